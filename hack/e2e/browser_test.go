//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"
)

// page signs a user up, lists tasks, authenticates a socket, and reports.
//
//go:embed testdata/page.html
var page string

// hostAddress is where the cluster's pods reach this machine.
const hostAddress = "10.89.0.1"

// browse opens a page in a real browser, under the Marketplace's own host name:
// the page comes from this test, by one more Ingress, and speaks to the services
// as an app's page would.
func (m marketplace) browse(t *testing.T, host string, proxy netip.Addr) {
	t.Helper()
	reports := make(chan string, 1)
	port := servePage(t, reports)
	for _, object := range m.pageObjects(host, port) {
		if err := cluster.kube.Create(t.Context(), object); err != nil {
			t.Fatalf("expose the page: %v", err)
		}
	}
	url := "http://" + host + "/page/"
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, net.JoinHostPort(proxy.String(), "80"))
	}}
	defer transport.CloseIdleConnections()
	eventually(t, 30*time.Second, "the proxy serves the page", func(ctx context.Context) error {
		return wantStatus(ctx, transport, url, http.StatusOK)
	})

	began := time.Now()
	got, log := open(t, url, reports, "--host-resolver-rules=MAP "+host+" "+proxy.String())
	const want = `{"register":201,"tasks":200,"socket":"authenticated"}`
	if got != want {
		t.Fatalf("the page reports %q, want %s\nthe browser says:\n%s", got, want, log)
	}
	t.Logf("a page in a browser reports %s after %s", got, time.Since(began).Round(100*time.Millisecond))
}

// browserPatience is how long a page may take to report.
const browserPatience = 2 * time.Minute

// open opens a page in a browser until it reports, and returns that with what the
// browser says.
func open(t *testing.T, url string, reports <-chan string, flags ...string) (report, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), browserPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, findBrowser(t), append([]string{
		"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
		"--user-data-dir=" + t.TempDir(), "--remote-debugging-port=0", // which keeps it open
		url,
	}, flags...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends its own processes
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	select {
	case report = <-reports:
	case <-ctx.Done():
	}
	cancel()
	_ = cmd.Wait() // it was told to end
	return report, out.String()
}

func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chrome-headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no browser is installed; 'hack/setup.sh browser' does it")
	return ""
}

// servePage serves the page where the cluster reaches it, and passes on what it
// reports first.
func servePage(t *testing.T, reports chan<- string) (port int32) {
	t.Helper()
	content := strings.NewReplacer("EMAIL", uuid.NewString()+"@example.com", "PASSWORD", rand.Text()).Replace(page)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, content)
	})
	mux.HandleFunc("POST /page/report", passOn(reports))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(hostAddress, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(mux)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	address, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return int32(address.Port())
}

// passOn passes on what a page reports first.
func passOn(reports chan<- string) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		const enough = 4 << 10
		text, err := io.ReadAll(io.LimitReader(r.Body, enough))
		if err != nil {
			text = fmt.Append(nil, err)
		}
		select {
		case reports <- string(text):
		default: // the first one counts
		}
	}
}

// pageObjects bring a path of the host to a port of this machine.
func (m marketplace) pageObjects(host string, port int32) []kube.Object {
	meta := metav1.ObjectMeta{Name: "page", Namespace: m.namespace}
	slice := meta.DeepCopy()
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: meta.Name}
	return []kube.Object{
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: *slice, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{hostAddress}}},
			Ports:     []discoveryv1.EndpointPort{{Name: new("http"), Port: new(port)}},
		},
		&networkingv1.Ingress{ObjectMeta: meta, Spec: ingressTo(host, "/page", meta.Name)},
	}
}
