package lifecycle_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/lifecycle"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

type journal struct{ lines []string }

func (j *journal) part(name string, startErr error) lifecycle.Part {
	return lifecycle.Part{
		Name: name,
		Start: func(context.Context) error {
			j.lines = append(j.lines, "start "+name)
			return startErr
		},
		Stop: func(context.Context) error {
			j.lines = append(j.lines, "stop "+name)
			return nil
		},
	}
}

func TestGroupStopsInReverse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		bErr    error
		want    []string
		wantErr string
	}{
		"asked to stop":      {nil, []string{"start a", "start b", "start c", "ready", "stop c", "stop b", "stop a"}, ""},
		"a part can't start": {errors.New("no"), []string{"start a", "start b", "stop a"}, "start b: no"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var j journal
			g := lifecycle.NewGroup(testkit.Logger(t), time.Second)
			g.Add(j.part("a", nil))
			g.Add(j.part("b", tt.bErr))
			g.Add(j.part("c", nil))
			err := g.Run(ctx, func() {
				j.lines = append(j.lines, "ready")
				cancel()
			})
			if got := errorText(err); got != tt.wantErr {
				t.Errorf("error %q, want %q", got, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, j.lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestGroupEndsWithItsFirstFailure(t *testing.T) {
	t.Parallel()
	g := lifecycle.NewGroup(testkit.Logger(t), time.Second)
	waits := make(chan struct{})
	g.Go("steady", func(ctx context.Context) error {
		<-ctx.Done()
		close(waits)
		return nil
	})
	g.Go("weak", func(context.Context) error { return errors.New("broke") })
	err := g.Run(t.Context(), func() {})
	if err == nil || !strings.Contains(err.Error(), "weak ended: broke") {
		t.Errorf("error %v", err)
	}
	<-waits // the other part was stopped and waited for
}

func TestGroupDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := lifecycle.NewGroup(testkit.Logger(t), time.Minute)
		release := make(chan struct{})
		g.Go("stuck", func(context.Context) error {
			<-release
			return nil
		})
		err := g.Run(ctx, cancel)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the deadline's", err)
		}
		close(release)
	})
}

// For the floor's length a stopping server takes new connections as before;
// then nobody gets in, and the process says that it is not ready.
func TestServerAcceptsForTheFloor(t *testing.T) {
	t.Parallel()
	for name, handshakes := range map[string]bool{"a server": false, "of handshakes, too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acceptsForTheFloor(t, handshakes)
		})
	}
}

func acceptsForTheFloor(t *testing.T, handshakes bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var health lifecycle.Health
	g := lifecycle.NewGroup(testkit.Logger(t), 30*time.Second)
	told := make(chan struct{})
	server := &lifecycle.Server{
		Name: "test", Address: "127.0.0.1:0", Log: testkit.Logger(t), Floor: 3 * time.Second,
		Stopping: func() { close(told) },
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }),
		Closed:   func(context.Context) { health.SetReady(false) },

		Handshakes: handshakes,
	}
	g.Add(server.Part(g))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- g.Run(ctx, func() {
			health.SetReady(true)
			close(ready)
		})
	}()
	<-ready
	get := func() error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://"+server.Addr().String(), nil)
		if err != nil {
			return err
		}
		response, err := client.Do(r)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
	probe := func() int {
		w := httptest.NewRecorder()
		health.InternalMux(prometheus.NewRegistry()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, contract.PathReady, nil))
		return w.Code
	}
	cancel()
	<-told
	if err := get(); err != nil {
		t.Errorf("refused during the floor: %v", err)
	}
	if code := probe(); code != http.StatusOK {
		t.Errorf("readiness during the floor = %d", code)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := get(); err == nil {
		t.Error("served after the stop")
	}
	if code := probe(); code != http.StatusServiceUnavailable {
		t.Errorf("readiness after the stop = %d", code)
	}
}

// A server stops when the last handshake is served.
func TestServerWaitsForHandshakes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := lifecycle.NewGroup(testkit.Logger(t), 30*time.Second)
	arrived, closed, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	server := &lifecycle.Server{
		Name: "test", Address: "127.0.0.1:0", Log: testkit.Logger(t), Handshakes: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(arrived)
			<-goOn
			w.WriteHeader(http.StatusForbidden)
		}),
		Closed: func(context.Context) { close(closed) },
	}
	g.Add(server.Part(g))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- g.Run(ctx, func() { close(ready) }) }()
	<-ready
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n")
	<-arrived
	cancel()
	<-closed
	select {
	case err := <-ended:
		t.Errorf("ended before the handshake: %v", err)
	case <-time.After(10 * time.Millisecond): // it would have, with nothing else to do
	}
	close(goOn)
	if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 403 ") {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
