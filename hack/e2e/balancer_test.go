//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// stage is a place in Engine.IO's upgrade from polling to WebSocket.
type stage int

const (
	nowhere       stage = iota
	beforeRequest       // the WebSocket is not asked for
	beforeProbe         // it is open, and nothing came over it
	beforeUpgrade       // the probe was answered, and the upgrade packet did not come
)

// balancer stands before one stock client, and sends the requests that open sessions
// to one place and all others to another. It stops the first upgrade at a stage.
type balancer struct {
	*httptest.Server
	opening, others atomic.Pointer[url.URL]
	stage           stage
	first           sync.Once
	started         chan struct{} // closed when upgrades may begin
	stopped         chan struct{} // closed when the first one is stopped
	resumed         chan struct{} // closed when it may go on
}

func newBalancer(t *testing.T, opening, others string, stop stage) *balancer {
	t.Helper()
	b := &balancer{
		stage: stop, started: make(chan struct{}), stopped: make(chan struct{}), resumed: make(chan struct{}),
	}
	if err := b.to(opening, others); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			to := &b.opening
			if r.In.URL.Query().Has("sid") {
				to = &b.others
			}
			r.SetURL(to.Load())
		},
		ModifyResponse: func(response *http.Response) error {
			if socket, ok := response.Body.(io.ReadWriteCloser); ok && response.StatusCode == http.StatusSwitchingProtocols {
				response.Body = &stoppedSocket{ReadWriteCloser: socket, balancer: b, gone: make(chan struct{})}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" && b.stage != nowhere {
			<-b.started
			if b.stage == beforeRequest {
				b.stop(nil)
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		for _, c := range []chan struct{}{b.started, b.resumed} {
			if !isClosed(c) {
				close(c)
			}
		}
		b.CloseClientConnections()
		b.Close()
		transport.CloseIdleConnections()
	})
	return b
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// to says where requests go from now on.
func (b *balancer) to(opening, others string) error {
	for target, text := range map[*atomic.Pointer[url.URL]]string{&b.opening: opening, &b.others: others} {
		u, err := url.Parse(text)
		if err != nil {
			return err
		}
		target.Store(u)
	}
	return nil
}

// stop stops the first upgrade until it may go on or its socket is gone.
func (b *balancer) stop(gone <-chan struct{}) {
	b.first.Do(func() {
		close(b.stopped)
		select {
		case <-b.resumed:
		case <-gone:
		}
	})
}

// stoppedSocket is a WebSocket to a pod.
type stoppedSocket struct {
	io.ReadWriteCloser
	balancer *balancer
	writes   int
	once     sync.Once
	gone     chan struct{} // closed when nothing comes of the pod any more
}

func (s *stoppedSocket) Read(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.gone) })
	}
	return n, err
}

// Write is called for what the client sends: the probe, and when that is answered
// the upgrade packet.
func (s *stoppedSocket) Write(p []byte) (int, error) {
	s.writes++
	if s.balancer.stage == beforeProbe && s.writes == 1 || s.balancer.stage == beforeUpgrade && s.writes == 2 {
		s.balancer.stop(s.gone)
	}
	return s.ReadWriteCloser.Write(p)
}

// podURL is where a pod serves clients.
func podURL(p corev1.Pod) string {
	return fmt.Sprintf("http://%s:%d", p.Status.PodIP, contract.PublicPort)
}
