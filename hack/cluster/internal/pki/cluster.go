package pki

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

// WriteCluster makes everything that a new cluster needs, in dir.PKI(), and
// the administrator's kubeconfig. Every component's kubeconfig is
// NAME.kubeconfig there.
func WriteCluster(dir layout.Dir, now time.Time) error {
	out := dir.PKI()
	if err := os.MkdirAll(out, 0o700); err != nil {
		return fmt.Errorf("make the certificates' folder: %w", err)
	}
	ca, err := NewAuthority("marketplane-local", now)
	if err != nil {
		return err
	}
	front, err := NewAuthority("marketplane-local-front-proxy", now)
	if err != nil {
		return err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	private, public, err := NewKeyPair()
	if err != nil {
		return err
	}
	if err := writeFiles(out, map[string][]byte{
		"ca.crt": ca.CertPEM, "ca.key": caKey, "front-proxy-ca.crt": front.CertPEM,
		"service-account.key": private, "service-account.pub": public,
	}); err != nil {
		return err
	}
	if err := writePair(front, out, "front-proxy-client", Subject{Name: "front-proxy-client"}); err != nil {
		return err
	}
	servers := map[string]Subject{
		"kube-apiserver": {Name: "kube-apiserver", Hosts: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + layout.Domain,
			"localhost", "127.0.0.1", layout.ServiceAddress, layout.ControlPlane().Address,
		}},
		// The API server opens kubelets' logs, exec and port-forward streams
		// as a user that RBAC lets do so.
		"kube-apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
	}
	for _, n := range layout.Nodes() {
		servers["kubelet-"+n.Name+"-server"] = Subject{Name: n.Name, Hosts: []string{n.Name, n.Address}}
	}
	for name, subject := range servers {
		if err := writePair(ca, out, name, subject); err != nil {
			return err
		}
	}
	return writeKubeconfigs(ca, dir)
}

func writeKubeconfigs(ca *Authority, dir layout.Dir) error {
	clients := map[string]Subject{
		"kube-controller-manager": {Name: "system:kube-controller-manager"},
		"kube-scheduler":          {Name: "system:kube-scheduler"},
		"kube-proxy":              {Name: "system:kube-proxy", Groups: []string{"system:node-proxier"}},
		"admin":                   {Name: "marketplane-local-admin", Groups: []string{"system:masters"}},
	}
	for _, n := range layout.Nodes() {
		clients["kubelet-"+n.Name] = Subject{Name: "system:node:" + n.Name, Groups: []string{"system:nodes"}}
	}
	for name, subject := range clients {
		pair, err := ca.Issue(subject)
		if err != nil {
			return err
		}
		config, err := Kubeconfig(layout.Context, layout.APIServerURL(), ca.CertPEM, pair)
		if err != nil {
			return err
		}
		path := filepath.Join(dir.PKI(), name+".kubeconfig")
		if name == "admin" {
			path = dir.Kubeconfig()
			// The tool's own client reads the pair from files.
			if err := pair.Write(dir.PKI(), name); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, config, 0o600); err != nil {
			return fmt.Errorf("write kubeconfig of %s: %w", name, err)
		}
	}
	return nil
}

func writePair(a *Authority, dir, name string, s Subject) error {
	pair, err := a.Issue(s)
	if err != nil {
		return err
	}
	return pair.Write(dir, name)
}
