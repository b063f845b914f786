package image

import (
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// plainLayer is a layer that is not compressed: it never travels further than
// to this machine's own containerd, and packing it would take longer than all
// else. (The library's own layers always compress.)
type plainLayer struct {
	path string
	hash v1.Hash
	size int64
}

func newPlainLayer(path string) (plainLayer, error) {
	file, err := os.Open(path)
	if err != nil {
		return plainLayer{}, fmt.Errorf("open layer: %w", err)
	}
	defer func() { _ = file.Close() }()
	hash, size, err := v1.SHA256(file)
	if err != nil {
		return plainLayer{}, fmt.Errorf("digest layer: %w", err)
	}
	return plainLayer{path: path, hash: hash, size: size}, nil
}

// Digest is the digest of the blob, which is the tar itself.
func (l plainLayer) Digest() (v1.Hash, error) { return l.hash, nil }

// DiffID is the digest of the tar.
func (l plainLayer) DiffID() (v1.Hash, error) { return l.hash, nil }

// Compressed opens the blob.
func (l plainLayer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed opens the tar.
func (l plainLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Size is the length of the blob in bytes.
func (l plainLayer) Size() (int64, error) { return l.size, nil }

// MediaType says that the blob is a bare tar.
func (l plainLayer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
