package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

func TestWriteCluster(t *testing.T) {
	t.Parallel()
	dir := layout.Dir(t.TempDir())
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := WriteCluster(dir, now); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir.PKI(), "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("no authority: %v", err)
	}
	tests := map[string]struct {
		wantName   string
		wantGroups []string
		wantHosts  []string
	}{
		"admin":                         {wantName: "marketplane-local-admin", wantGroups: []string{"system:masters"}},
		"kube-apiserver":                {wantName: "kube-apiserver", wantHosts: []string{"10.89.0.11", "10.96.0.1", "kubernetes.default.svc"}},
		"kube-apiserver-kubelet-client": {wantName: "kube-apiserver-kubelet-client", wantGroups: []string{"system:masters"}},
		"kubelet-node-2-server":         {wantName: "node-2", wantHosts: []string{"node-2", "10.89.0.12"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := filepath.Join(dir.PKI(), name)
			pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
			if err != nil {
				t.Fatal(err)
			}
			usage := x509.ExtKeyUsageClientAuth
			if len(tc.wantHosts) > 0 {
				usage = x509.ExtKeyUsageServerAuth
			}
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("verify: %v", err)
			}
			for _, host := range tc.wantHosts {
				if err := pair.Leaf.VerifyHostname(host); err != nil {
					t.Errorf("host: %v", err)
				}
			}
			if got := pair.Leaf.Subject.CommonName; got != tc.wantName {
				t.Errorf("name = %q, want %q", got, tc.wantName)
			}
			if diff := cmp.Diff(tc.wantGroups, pair.Leaf.Subject.Organization); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
	checkSecretModes(t, string(dir))
}

func checkSecretModes(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"state/pki/*", "state/admin.kubeconfig"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v; want mode 0600", f, info.Mode(), err)
			}
		}
	}
}

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	data, err := Kubeconfig("here", "https://server.example", []byte("CA"), Pair{CertPEM: []byte("CERT"), KeyPEM: []byte("KEY")})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Name    string `json:"name"`
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.CurrentContext != "here" || got.Clusters[0].Cluster.Server != "https://server.example" ||
		string(got.Clusters[0].Cluster.CA) != "CA" || string(got.Users[0].User.Cert) != "CERT" || string(got.Users[0].User.Key) != "KEY" {
		t.Errorf("kubeconfig = %+v", got)
	}
}

func TestNewKeyPair(t *testing.T) {
	t.Parallel()
	private, public, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	for want, data := range map[string][]byte{"EC PRIVATE KEY": private, "PUBLIC KEY": public} {
		if block, _ := pem.Decode(data); block == nil || block.Type != want {
			t.Errorf("no block %q", want)
		}
	}
}
