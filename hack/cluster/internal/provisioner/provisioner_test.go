package provisioner

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/cluster/internal/kubeapi"
	"github.com/marketplane/marketplane/hack/cluster/internal/pki"
)

const name = "example.dev/local"

func pendingClaim(mutate ...func(*claim)) claim {
	c := claim{Metadata: metadata{
		Name: "data", Namespace: "shop", UID: "u-1",
		Annotations: map[string]string{provisionerAnnotation: name, selectedNode: "node-2"},
	}}
	c.Spec.StorageClassName = "local"
	c.Spec.AccessModes = []string{"ReadWriteOnce"}
	c.Spec.Resources.Requests = map[string]string{"storage": "5Gi"}
	for _, m := range mutate {
		m(&c)
	}
	return c
}

func TestUnprovisioned(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		claim   claim
		volumes []volume
		want    bool
	}{
		"waits, node known":       {claim: pendingClaim(), want: true},
		"no node chosen yet":      {claim: pendingClaim(func(c *claim) { delete(c.Metadata.Annotations, selectedNode) })},
		"another's provisioner":   {claim: pendingClaim(func(c *claim) { c.Metadata.Annotations[provisionerAnnotation] = "other" })},
		"bound":                   {claim: pendingClaim(func(c *claim) { c.Spec.VolumeName = "pvc-u-1" })},
		"being deleted":           {claim: pendingClaim(func(c *claim) { c.Metadata.DeletionTimestamp = "2030-01-01T00:00:00Z" })},
		"made, not yet bound":     {claim: pendingClaim(), volumes: []volume{{Metadata: metadata{Name: "pvc-u-1"}}}},
		"another's volume exists": {claim: pendingClaim(), volumes: []volume{{Metadata: metadata{Name: "pvc-u-2"}}}, want: true},
	}
	for label, tc := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			if got := len(unprovisioned(name, []claim{tc.claim}, tc.volumes)) == 1; got != tc.want {
				t.Errorf("unprovisioned = %t, want %t", got, tc.want)
			}
		})
	}
}

func TestReleased(t *testing.T) {
	t.Parallel()
	base := func(mutate func(*volume)) volume {
		v := volume{Metadata: metadata{Name: "v", Annotations: map[string]string{provisionedBy: name}}, Spec: volumeSpec{ReclaimPolicy: "Delete"}, Status: volumeStatus{Phase: "Released"}}
		mutate(&v)
		return v
	}
	tests := map[string]struct {
		volume volume
		want   bool
	}{
		"released":              {volume: base(func(*volume) {}), want: true},
		"bound":                 {volume: base(func(v *volume) { v.Status.Phase = "Bound" })},
		"retained":              {volume: base(func(v *volume) { v.Spec.ReclaimPolicy = "Retain" })},
		"another's":             {volume: base(func(v *volume) { v.Metadata.Annotations = nil })},
		"being deleted already": {volume: base(func(v *volume) { v.Metadata.DeletionTimestamp = "2030-01-01T00:00:00Z" })},
	}
	for label, tc := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			if got := len(released(name, []volume{tc.volume})) == 1; got != tc.want {
				t.Errorf("released = %t, want %t", got, tc.want)
			}
		})
	}
}

// fakeAPI is as much of an API server as the provisioner speaks to.
type fakeAPI struct {
	mu      sync.Mutex
	claims  map[string]claim
	volumes map[string]volume
	changed chan struct{} // closed and replaced at each change
}

func (f *fakeAPI) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeAPI) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Query().Get("watch") == "true":
		f.watch(w, r)
	case r.Method == http.MethodGet && r.URL.Path == claimsPath:
		f.mu.Lock()
		defer f.mu.Unlock()
		writeList(w, f.claims)
	case r.Method == http.MethodGet && r.URL.Path == volumesPath:
		f.mu.Lock()
		defer f.mu.Unlock()
		writeList(w, f.volumes)
	case r.URL.Path == classesPath+"local":
		_ = json.NewEncoder(w).Encode(storageClass{ReclaimPolicy: "Delete"})
	case r.Method == http.MethodPost && r.URL.Path == volumesPath:
		var v volume
		if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.change(func() { f.volumes[v.Metadata.Name] = v })
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodDelete:
		f.change(func() { delete(f.volumes, strings.TrimPrefix(r.URL.Path, volumesPath+"/")) })
	default:
		http.NotFound(w, r)
	}
}

func writeList[T any](w io.Writer, items map[string]T) {
	l := list[T]{Items: []T{}}
	for _, i := range items {
		l.Items = append(l.Items, i)
	}
	_ = json.NewEncoder(w).Encode(l)
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		_, _ = io.WriteString(w, "{}\n")
		if control.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func newClient(t *testing.T, handler http.Handler) *kubeapi.Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	authority, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Subject{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(dir, "admin"); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kubeapi.New(server.URL, dir)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestProvisionsAndDeletes(t *testing.T) {
	t.Parallel()
	api := &fakeAPI{claims: map[string]claim{}, volumes: map[string]volume{}, changed: make(chan struct{})}
	p := Provisioner{API: newClient(t, api), Name: name, Root: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}()

	api.change(func() { api.claims["data"] = pendingClaim() })
	api.until(t, "a volume for the claim", func() bool { return len(api.volumes) == 1 })
	path := filepath.Join(p.Root, "node-2", "pvc-u-1")
	want := newVolume(name, pendingClaim(), storageClass{ReclaimPolicy: "Delete"}, "node-2", path)
	api.mu.Lock()
	got := api.volumes["pvc-u-1"]
	api.mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("volume (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("the volume's folder: %v", err)
	}

	api.change(func() {
		delete(api.claims, "data")
		got.Status.Phase = "Released"
		api.volumes["pvc-u-1"] = got
	})
	api.until(t, "the released volume is deleted", func() bool { return len(api.volumes) == 0 })
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the deleted volume's folder is still there: %v", err)
	}
}

func TestNeverDeletesOutsideOfItsFolder(t *testing.T) {
	t.Parallel()
	root, other := t.TempDir(), t.TempDir()
	p := Provisioner{Name: name, Root: root, Log: slog.New(slog.DiscardHandler)}
	for _, path := range []string{other, "/", root, filepath.Join(root, "node-1", "..", "x"), filepath.Join(root, "node-1", "another")} {
		v := volume{Metadata: metadata{Name: "pvc-1"}, Spec: volumeSpec{Local: &localSource{Path: path}}}
		if err := p.remove(t.Context(), v); err == nil {
			t.Errorf("volume at %s was taken for one of ours", path)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("deleted: %v", err)
	}
}
