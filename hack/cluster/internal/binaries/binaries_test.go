package binaries

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequiredVersion(t *testing.T) {
	t.Parallel()
	const gomod = `module example

require example.com/single v1.2.3

require (
	example.com/listed v0.4.0 // indirect
)

replace example.com/replaced => example.com/replaced v9.9.9
`
	for module, want := range map[string]string{
		"example.com/single": "v1.2.3", "example.com/listed": "v0.4.0", "example.com/absent": "",
	} {
		got, err := requiredVersion([]byte(gomod), module)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("requiredVersion(%s) = %q, %v; want %q", module, got, err, want)
		}
	}
}

func TestGoBinaryName(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string]string{
		"go.etcd.io/etcd/server/v3": "server", "k8s.io/kubernetes/cmd/kubelet": "kubelet", ".": "coredns", "example.com/vault": "vault",
	} {
		if got := goBinaryName(pkg, "coredns"); got != want {
			t.Errorf("goBinaryName(%s) = %q, want %q", pkg, got, want)
		}
	}
}

func TestLinkerFlags(t *testing.T) {
	t.Parallel()
	if got, want := ldflags("p", "v1.37.2"), "-s -w -X p.gitVersion=v1.37.2 -X p.gitMajor=1 -X p.gitMinor=37"; got != want {
		t.Errorf("ldflags = %q, want %q", got, want)
	}
}

func TestDirFollowsThePins(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(source, "coredns"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(source, "coredns", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "require github.com/coredns/coredns v1.0.0\n")
	write("go.sum", "a")
	b := Builder{Source: source, Cache: "/cache"}
	first, err := b.Dir(CoreDNS())
	if err != nil {
		t.Fatal(err)
	}
	write("go.sum", "b")
	second, err := b.Dir(CoreDNS())
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Errorf("other pins, the same folder %s", first)
	}
	write("other.go", "package main")
	third, err := b.Dir(CoreDNS())
	if err != nil {
		t.Fatal(err)
	}
	if third == second {
		t.Errorf("another source, the same folder %s", third)
	}
	write("other_test.go", "package main")
	if got, err := b.Dir(CoreDNS()); err != nil || got != third {
		t.Errorf("a test made another folder of %s: %s, %v", third, got, err)
	}
}

// The pins of this tree name every program that the tool asks for.
func TestPinsOfThisTree(t *testing.T) {
	t.Parallel()
	b := Builder{Source: "../..", Cache: "/cache"}
	for _, m := range []Module{Kubernetes(), CoreDNS(), MetricsServer(), Ingress()} {
		if _, err := b.Version(m); err != nil {
			t.Error(err)
		}
	}
	var names []string
	for _, p := range Kubernetes().Only(EnvtestPrograms...).Programs {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"etcd", "kube-apiserver", "kubectl"}, names); diff != "" {
		t.Errorf("envtest's programs (-want +got):\n%s", diff)
	}
}
