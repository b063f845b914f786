package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackagesOfWhatIsMissing(t *testing.T) {
	t.Parallel()
	deps := []dependency{{file: "containerd", pkg: "containerd"}, {file: "ctr", pkg: "containerd"}, {file: "ip", pkg: "iproute2"}, {file: "nft", pkg: "nftables"}}
	tests := map[string]struct {
		has  map[string]bool
		want []string
	}{
		"all there":  {has: map[string]bool{"containerd": true, "ctr": true, "ip": true, "nft": true}},
		"each once":  {has: map[string]bool{"ip": true}, want: []string{"containerd", "nftables"}},
		"one of two": {has: map[string]bool{"containerd": true, "ip": true, "nft": true}, want: []string{"containerd"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := packagesOf(missingOf(deps, func(file string) bool { return tc.has[file] }))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("packages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyOursIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ours": `{"sandbox":"/var/lib/c/state/x"}`, "another's": `{"sandbox":"/var/lib/c-other/x"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "/var/lib/c/state/pod.log", "other link": "/var/log/pod.log"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	removeLinksInto(dir, "/var/lib/c")
	removeMentioning(dir, "/var/lib/c")
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"another's", "other link"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
