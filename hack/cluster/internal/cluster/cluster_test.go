package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/cluster/internal/component"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

func TestMountsBelow(t *testing.T) {
	t.Parallel()
	const mountinfo = `21 1 254:0 / / rw - ext4 /dev/vda rw
30 21 0:40 / /var/lib/c/state/pod rw - tmpfs tmpfs rw
31 30 0:41 / /var/lib/c/state/pod/deep rw - overlay overlay rw
32 21 0:42 / /var/lib/c-other/x rw - tmpfs tmpfs rw
33 21 0:43 / /var/lib/c/with\040space rw - tmpfs tmpfs rw
`
	want := []string{"/var/lib/c/with space", "/var/lib/c/state/pod/deep", "/var/lib/c/state/pod"}
	if diff := cmp.Diff(want, mountsBelow(mountinfo, "/var/lib/c")); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestParseImageList(t *testing.T) {
	t.Parallel()
	const list = `REF                         TYPE                                       DIGEST        SIZE     PLATFORMS   LABELS
registry.example/app:dev    application/vnd.oci.image.manifest.v1+json sha256:aa     5.6 MiB  linux/amd64 -
sha256:0123                 application/vnd.oci.image.manifest.v1+json sha256:aa     5.6 MiB  linux/amd64 -
`
	want := map[string]string{"registry.example/app:dev": "sha256:aa", "sha256:0123": "sha256:aa"}
	if diff := cmp.Diff(want, parseImageList(list)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

// Components and the components that up starts must be the same.
func TestComponentsAreAll(t *testing.T) {
	t.Parallel()
	p := component.Paths{Dir: "/c", Kubernetes: "/k"}
	started := map[string]bool{}
	for _, c := range []component.Component{p.Etcd(), p.APIServer(), p.ControllerManager(), p.Scheduler(), p.Provisioner()} {
		started[c.Name] = true
	}
	for _, n := range layout.Nodes() {
		for _, c := range []component.Component{p.Containerd(n), p.Kubelet(n), p.KubeProxy(n)} {
			started[c.Name] = true
		}
	}
	listed := map[string]bool{}
	for _, name := range Components() {
		listed[name] = true
	}
	if diff := cmp.Diff(started, listed); diff != "" {
		t.Errorf("components (-started +listed):\n%s", diff)
	}
}
