package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/watch"
)

// served is a Caddy on loopback, with services behind it.
type served struct {
	listen Listen
	client *http.Client
	roots  *x509.CertPool
	t      *testing.T
}

func newServed(t *testing.T) *served {
	t.Helper()
	p := &served{listen: Listen{HTTP: freeAddress(t), HTTPS: freeAddress(t)}, roots: x509.NewCertPool(), t: t}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			// Whatever the name: the port alone says which of the two it is.
			if strings.HasSuffix(address, ":443") {
				return dialer.DialContext(ctx, network, p.listen.HTTPS)
			}
			return dialer.DialContext(ctx, network, p.listen.HTTP)
		},
	}
	p.client = &http.Client{
		Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		if err := Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (p *served) trust(secret *corev1.Secret) {
	p.roots.AppendCertsFromPEM(secret.Data[corev1.TLSCertKey])
}

func (p *served) serve(t *testing.T, state watch.State) {
	t.Helper()
	config, _, err := Render(state, p.listen)
	if err != nil {
		t.Fatal(err)
	}
	if err := Load(config); err != nil {
		t.Fatal(err)
	}
}

// services starts one server a name, which says its name, the path and the host
// of each request, or echoes what comes over a WebSocket.
func (p *served) services(names ...string) map[types.NamespacedName]*corev1.Service {
	all := map[types.NamespacedName]*corev1.Service{}
	for _, name := range names {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				echo(w, r)
				return
			}
			_, _ = fmt.Fprintf(w, "%s %s %s", name, r.URL.RequestURI(), r.Host)
		}))
		p.t.Cleanup(server.Close)
		address, ok := server.Listener.Addr().(*net.TCPAddr)
		if !ok {
			p.t.Fatalf("listens on %v", server.Listener.Addr())
		}
		all[key(name)] = service(address.IP.String(), int32(address.Port))
	}
	return all
}

func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, data, err := conn.Read(r.Context())
		if err != nil || conn.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

func (p *served) get(t *testing.T, url string) (status int, body string, header http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content), response.Header
}

func (p *served) dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	conn, response, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		HTTPClient: &http.Client{Transport: p.client.Transport},
	})
	if err != nil {
		t.Fatalf("dial %s: %v (%v)", url, err, response)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func (p *served) echoes(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatalf("%s: write: %v", text, err)
	}
	_, got, err := conn.Read(ctx)
	if err != nil || string(got) != text {
		t.Fatalf("%s: read %q: %v", text, got, err)
	}
}
