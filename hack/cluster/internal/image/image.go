// Package image makes container images without a container engine: one layer,
// a configuration and a manifest, in an archive that containerd, Docker and
// Podman import. The same input gives the same bytes.
package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nameAnnotation is where containerd's import looks for an image's full name.
const nameAnnotation = "io.containerd.image.name"

// Spec is what an image is made of.
type Spec struct {
	// Name is NAME:TAG, without a registry.
	Name string
	// Entries are the files.
	Entries []Entry
	// Entrypoint, Cmd, Env, User, WorkingDir and Labels are as in an OCI image
	// configuration.
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
	Labels               map[string]string
}

// BaseEntries are what an image of a static program wants beside it: the user
// nonroot, a /tmp, and this machine's certificate authorities if it has any.
func BaseEntries() []Entry {
	entries := []Entry{
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{Path: "/home/nonroot", Mode: fs.ModeDir | 0o700, UID: 65532, GID: 65532},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	if data, err := os.ReadFile(authorities); err == nil {
		entries = append(entries, Entry{Path: authorities, Mode: 0o644, Data: data})
	}
	return entries
}

// Write builds the image and writes its archive to path, replacing it at once.
func Write(path string, s Spec) (err error) {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // an image is no secret
		return fmt.Errorf("write image: %w", err)
	}
	layerFile, err := os.CreateTemp(filepath.Dir(path), ".layer-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer func() {
		_ = layerFile.Close()
		_ = os.Remove(layerFile.Name())
	}()
	if err := WriteLayer(layerFile, s.Entries); err != nil {
		return err
	}
	img, err := build(layerFile.Name(), s)
	if err != nil {
		return fmt.Errorf("build image %s: %w", s.Name, err)
	}
	out, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer func() {
		if err != nil {
			_ = out.Close()
			_ = os.Remove(out.Name())
		}
	}()
	if err := writeArchive(out, img, s.Name); err != nil {
		return fmt.Errorf("write image %s: %w", s.Name, err)
	}
	if err := out.Chmod(0o644); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return os.Rename(out.Name(), path)
}

func checkName(s string) error {
	tag, err := name.NewTag(s)
	if err != nil {
		return fmt.Errorf("image name: %w", err)
	}
	if !strings.HasSuffix(s, ":"+tag.TagStr()) {
		return fmt.Errorf("image name %q: want NAME:TAG", s)
	}
	return nil
}

func build(layerFile string, s Spec) (v1.Image, error) {
	layer, err := newPlainLayer(layerFile)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, MediaType: types.OCIUncompressedLayer, History: v1.History{CreatedBy: "marketplane hack/cluster"}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: s.Entrypoint, Cmd: s.Cmd, User: s.User, WorkingDir: s.WorkingDir, Labels: s.Labels,
		Env: withPath(s.Env),
	}
	return mutate.ConfigFile(img, config)
}

// withPath adds the usual PATH to an environment without one.
func withPath(env []string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") {
			return env
		}
	}
	return append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
}

// dockerManifest is one entry of the manifest.json of `docker save`.
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// writeArchive writes an OCI image layout that is a `docker save` archive too.
func writeArchive(w io.Writer, img v1.Image, tag string) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	docker := dockerManifest{Config: blobPath(configDigest), RepoTags: []string{tag}}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		docker.Layers = append(docker.Layers, blobPath(d))
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest,
			Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
			Annotations: map[string]string{
				nameAnnotation: FullName(tag), "org.opencontainers.image.ref.name": tag[strings.LastIndex(tag, ":")+1:],
			},
		}},
	})
	if err != nil {
		return err
	}
	dockerJSON, err := json.Marshal([]dockerManifest{docker})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		path string
		data []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", dockerJSON},
		{blobPath(digest), manifest},
		{blobPath(configDigest), config},
	} {
		if err := writeBlob(tw, f.path, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			return err
		}
	}
	for _, l := range layers {
		if err := copyLayer(tw, l); err != nil {
			return err
		}
	}
	return tw.Close()
}

func copyLayer(tw *tar.Writer, l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	blob, err := l.Compressed()
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }()
	return writeBlob(tw, blobPath(digest), size, blob)
}

func writeBlob(tw *tar.Writer, path string, size int64, data io.Reader) error {
	if err := tw.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: size, ModTime: epoch, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(tw, data)
	return err
}

func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// FullName is the name that Kubernetes gives an image without a registry.
func FullName(tag string) string {
	first, _, hasPath := strings.Cut(tag, "/")
	switch {
	case hasPath && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return tag
	case hasPath:
		return defaultRegistry + "/" + tag
	default:
		return defaultRegistry + "/library/" + tag
	}
}

// defaultRegistry stands in the full name of every image without a registry,
// in containerd's short spelling. Nothing is ever fetched from it: the nodes
// hold the image already.
var defaultRegistry = strings.TrimPrefix(name.DefaultRegistry, "index.")

// Identity is what an archive holds, as far as containerd tells images apart.
type Identity struct{ Name, Digest string }

// Identify reads which images an archive holds, without reading its blobs if
// it was written by Write. An archive without an OCI index gives none.
func Identify(archive io.Reader) ([]Identity, error) {
	tr := tar.NewReader(archive)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if strings.TrimPrefix(h.Name, "./") != "index.json" {
			continue
		}
		const most = 1 << 20
		var index v1.IndexManifest
		if err := json.NewDecoder(io.LimitReader(tr, most)).Decode(&index); err != nil {
			return nil, fmt.Errorf("read archive's index: %w", err)
		}
		var found []Identity
		for _, m := range index.Manifests {
			if full := m.Annotations[nameAnnotation]; full != "" {
				found = append(found, Identity{Name: full, Digest: m.Digest.String()})
			}
		}
		slices.SortFunc(found, func(a, b Identity) int { return strings.Compare(a.Name, b.Name) })
		return found, nil
	}
}
