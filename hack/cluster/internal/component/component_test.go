package component

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

var paths = Paths{Dir: "/run/c", Kubernetes: "/bin/k"}

func TestEveryComponentEntersItsNodesNetwork(t *testing.T) {
	t.Parallel()
	all := map[string][]Component{
		"mkp-node-1": {paths.Etcd(), paths.APIServer(), paths.ControllerManager(), paths.Scheduler()},
	}
	for _, n := range layout.Nodes() {
		all[n.Namespace] = append(all[n.Namespace], paths.Containerd(n), paths.Kubelet(n), paths.KubeProxy(n))
	}
	for namespace, components := range all {
		for _, c := range components {
			want := []string{"nsenter", "--net=/run/netns/" + namespace, "--"}
			if diff := cmp.Diff(want, c.Args[:3]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.Name, diff)
			}
		}
	}
}

func TestAPIServerFlags(t *testing.T) {
	t.Parallel()
	args := paths.APIServer().Args
	for _, want := range []string{
		"--advertise-address=10.89.0.11", "--authorization-mode=Node,RBAC", "--enable-aggregator-routing=true",
		"--kubelet-client-certificate=/run/c/state/pki/kube-apiserver-kubelet-client.crt",
	} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %q", want, args)
		}
	}
}

// The rendered files are compared with golden ones, so that a change of what a
// node runs with is seen in review. UPDATE_GOLDEN=1 writes them anew.
func TestFiles(t *testing.T) {
	t.Parallel()
	files, err := paths.Files()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for path := range files {
		names = append(names, path)
	}
	slices.Sort(names)
	var got strings.Builder
	for _, path := range names {
		if strings.Contains(path, "node-2") {
			continue // the same but for names and addresses
		}
		got.WriteString("== " + path + "\n" + strings.TrimRight(string(files[path]), "\n") + "\n")
		if strings.HasSuffix(path, ".json") || strings.HasSuffix(path, ".conflist") {
			if !json.Valid(files[path]) {
				t.Errorf("%s is no JSON", path)
			}
		}
	}
	golden := filepath.Join("testdata", "files.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestAddons(t *testing.T) {
	t.Parallel()
	got, err := Addons(AddonImages{CoreDNS: "coredns:test", MetricsServer: "metrics:test", Ingress: "ingress:test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image: coredns:test", "image: metrics:test", "image: ingress:test", "clusterIP: 10.96.0.80", "--class=local", "clusterIP: 10.96.0.10", "kubernetes cluster.local in-addr.arpa",
		"provisioner: " + layout.StorageProvisioner, `storageclass.kubernetes.io/is-default-class: "true"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the manifest", want)
		}
	}
}
