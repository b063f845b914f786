package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func readTar(t *testing.T, r io.Reader) (headers []tar.Header, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers, content
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, *h)
		content[h.Name] = data
	}
}

func TestWriteLayer(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	err := WriteLayer(&b, []Entry{
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/opt/app/run", Mode: 0o755, Data: []byte("program")},
		{Path: "/home/me", Mode: fs.ModeDir | 0o700, UID: 65532, GID: 65532},
		{Path: "/bin", Mode: fs.ModeSymlink | 0o777, Link: "usr/bin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name     string
		Mode     int64
		UID, GID int
		Type     byte
		Link     string
	}
	headers, _ := readTar(t, &b)
	var got []row
	for _, h := range headers {
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s has the time %s, want the epoch", h.Name, h.ModTime)
		}
		got = append(got, row{h.Name, h.Mode, h.Uid, h.Gid, h.Typeflag, h.Linkname})
	}
	want := []row{
		{"bin", 0o777, 0, 0, tar.TypeSymlink, "usr/bin"},
		{"home/", 0o755, 0, 0, tar.TypeDir, ""},
		{"home/me/", 0o700, 65532, 65532, tar.TypeDir, ""},
		{"opt/", 0o755, 0, 0, tar.TypeDir, ""},
		{"opt/app/", 0o755, 0, 0, tar.TypeDir, ""},
		{"opt/app/run", 0o755, 0, 0, tar.TypeReg, ""},
		{"tmp/", 0o1777, 0, 0, tar.TypeDir, ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("layer (-want +got):\n%s", diff)
	}
}

func TestWriteLayerRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string][]Entry{
		"a relative path":    {{Path: "etc/passwd"}},
		"a way out":          {{Path: "/../etc/passwd"}},
		"the root":           {{Path: "/"}},
		"a path twice":       {{Path: "/a"}, {Path: "/a"}},
		"a source not there": {{Path: "/a", Source: "/nonexistent/file"}},
		"a source folder":    {{Path: "/a", Source: "/"}},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := WriteLayer(io.Discard, entries); err == nil {
				t.Error("no error")
			}
		})
	}
}

func writeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("static"), 0o700); err != nil {
		t.Fatal(err)
	}
	entry, err := FileEntry(program + "=/app")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out", "image.tar")
	if err := Write(out, Spec{
		Name: "app:dev", Entries: append(BaseEntries(), entry), Entrypoint: []string{"/app"}, User: "65532:65532", Env: []string{"A=b"},
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// The archive is checked with another reader of `docker save` archives than
// the code that wrote it.
func TestWriteIsADockerArchive(t *testing.T) {
	t.Parallel()
	img, err := tarball.ImageFromPath(writeImage(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v1.Config{
		Entrypoint: []string{"/app"}, User: "65532:65532",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b"},
	}, config.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers = %d, %v; want one", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	headers, files := readTar(t, content)
	if got := string(files["app"]); got != "static" {
		t.Errorf("the program holds %q", got)
	}
	if !strings.Contains(string(files["etc/passwd"]), "nonroot:x:65532:65532:") {
		t.Errorf("no nonroot in %q", files["etc/passwd"])
	}
	for _, h := range headers {
		if h.Name == "app" && h.Mode != 0o755 {
			t.Errorf("mode of the program is %o", h.Mode)
		}
	}
}

func TestWriteIsAnOCILayout(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(writeImage(t))
	if err != nil {
		t.Fatal(err)
	}
	_, files := readTar(t, bytes.NewReader(data))
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(files[blobPath(index.Manifests[0].Digest)], &manifest); err != nil {
		t.Fatal(err)
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		hash, size, err := v1.SHA256(bytes.NewReader(files[blobPath(d.Digest)]))
		if err != nil || hash != d.Digest || size != d.Size {
			t.Errorf("blob %s is %s of %d bytes, want %d (%v)", d.Digest, hash, size, d.Size, err)
		}
	}
	got, err := Identify(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	want := []Identity{{Name: FullName("app:dev"), Digest: index.Manifests[0].Digest.String()}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

func TestWriteIsReproducible(t *testing.T) {
	t.Parallel()
	a, err := os.ReadFile(writeImage(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(writeImage(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the same input gave different bytes")
	}
}

func TestFullName(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]string{
		"app:dev":                     defaultRegistry + "/library/app:dev",
		"team/app:dev":                defaultRegistry + "/team/app:dev",
		"registry.example/team/app:1": "registry.example/team/app:1",
		"localhost/app:1":             "localhost/app:1",
		"host:5000/app:1":             "host:5000/app:1",
	} {
		if got := FullName(tag); got != want {
			t.Errorf("FullName(%q) = %q, want %q", tag, got, want)
		}
	}
}

func TestNameIsChecked(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "app", "app:", "App:dev", "a b:dev"} {
		if err := checkName(bad); err == nil {
			t.Errorf("name %q is accepted", bad)
		}
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "usr/share/doc/x"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/su"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "usr/bin/su"), 0o755|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	entries, err := Tree(root, func(path string) bool { return path != "/usr/share/doc" })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]fs.FileMode{}
	for _, e := range entries {
		got[e.Path] = e.Mode
	}
	want := map[string]fs.FileMode{
		"/bin": fs.ModeSymlink | 0o777, "/usr": fs.ModeDir | 0o755, "/usr/bin": fs.ModeDir | 0o755,
		"/usr/bin/su": 0o755, "/usr/share": fs.ModeDir | 0o755,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}
