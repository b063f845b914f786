package engineio

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A server that shuts down tells everybody, and takes no new sessions.
func TestShutdown(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{CloseTimeout: patience}, echo)
	polling, idle, onWebSocket := h.poll(), h.poll(), h.poll()
	s := onWebSocket.upgrade()
	waiting := polling.getWaiting()
	upgrading := h.poll()
	probing := upgrading.probe()
	done := make(chan error, 1)
	go func() { done <- h.server.Shutdown(h.ctx) }()
	wantOK(t, wait(t, "the end", waiting), "1")
	s.wantClose(closeRestart)
	polling.wantGone(ServerShutdown)
	onWebSocket.wantGone(ServerShutdown)

	for _, a := range []answer{h.ask("GET", newPolling, false), h.ask("GET", newWebSocket, true), h.ask("GET", idle.query(WebSocket), true)} {
		wantError(t, a, http.StatusServiceUnavailable, CodeForbidden)
		if a.header.Get("Retry-After") == "" {
			t.Error("it doesn't say when to come back")
		}
	}
	if len(done) != 0 {
		t.Error("it has not waited for all")
	}
	wantOK(t, idle.get(), "1")
	idle.wantGone(ServerShutdown)
	probing.send("5")
	probing.wantClose(closeRestart)
	upgrading.wantGone(ServerShutdown)
	if err := wait(t, "the end of it", done); err != nil {
		t.Error(err)
	}
	if err := h.server.Shutdown(h.ctx); err != nil {
		t.Errorf("again: %v", err)
	}
}

// A server that was never started has nothing to wait for.
func TestShutdownBeforeStart(t *testing.T) {
	t.Parallel()
	if err := prepare(t, Options{}, nil).server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A shutdown that takes too long aborts what is left.
func TestShutdownGivesUp(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{CloseTimeout: patience}, echo)
	polling := h.poll()
	onWebSocket, _ := h.connect() // and does not answer
	ctx, cancel := context.WithTimeout(h.ctx, 50*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	polling.wantGone(ServerShutdown)
	onWebSocket.wantGone(ServerShutdown)
}

// A session that is about to begin when the server shuts down ends, too.
func TestShutdownMeetsAHandshake(t *testing.T) {
	t.Parallel()
	for _, transport := range []Transport{Polling, WebSocket} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, Options{}, echo)
			begun, release := make(chan struct{}), make(chan struct{})
			h.begun = func(*recorder, *http.Request) {
				close(begun)
				<-release
			}
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				if transport == Polling {
					_, _ = h.do(h.ctx, "GET", newPolling, nil, nil)
				} else if ws, _, err := h.dial(newWebSocket, nil); err == nil {
					_ = ws.CloseNow()
				}
			}()
			wait(t, "the handshake", begun)
			done := make(chan error, 1)
			go func() { done <- h.server.Shutdown(h.ctx) }()
			for draining := false; !draining; time.Sleep(time.Millisecond) {
				h.server.mu.Lock()
				draining = h.server.draining
				h.server.mu.Unlock()
			}
			close(release)
			rec := wait(t, "the session", h.opened)
			if end := wait(t, "the end", rec.closed); end.reason != ServerShutdown && end.reason != TransportClose && end.reason != TransportError {
				t.Errorf("ended with %+v", end)
			}
			if err := wait(t, "the shutdown", done); err != nil {
				t.Error(err)
			}
			<-asked
		})
	}
}

// A session that is about to begin when a shutdown is given up ends, too.
func TestShutdownGivesUpOnAHandshake(t *testing.T) {
	t.Parallel()
	for _, transport := range []Transport{Polling, WebSocket} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, Options{}, echo)
			begun, release := make(chan struct{}), make(chan struct{})
			h.begun = func(*recorder, *http.Request) {
				close(begun)
				<-release
			}
			asked, over := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(asked)
				if transport == Polling {
					_, _ = h.do(h.ctx, "GET", newPolling, nil, nil)
				} else if ws, _, err := h.dial(newWebSocket, nil); err == nil { // and says nothing
					defer func() { _ = ws.CloseNow() }()
					wait(t, "the end", over)
				}
			}()
			wait(t, "the handshake", begun)
			ctx, cancel := context.WithCancel(h.ctx)
			cancel()
			if err := h.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("shutdown: %v", err)
			}
			close(release)
			rec := wait(t, "the session", h.opened)
			if end := wait(t, "the end", rec.closed); end.reason != ServerShutdown {
				t.Errorf("ended with %+v", end)
			}
			close(over)
			<-asked
		})
	}
}

// A session on WebSocket that says nothing has no goroutine, and neither have its
// timers.
func TestSilentSessionsHaveNoGoroutine(t *testing.T) {
	// Not parallel: it counts goroutines.
	h := newHarness(t, Options{}, echo)
	address := strings.TrimSuffix(strings.TrimPrefix(h.url, "http://"), "/engine.io/")
	dialRaw(t, address)
	before := runtime.NumGoroutine()
	const sessions = 500
	for range sessions {
		dialRaw(t, address)
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine()-before > sessions/5 { // those that are kept for what may come
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines for %d sessions", runtime.NumGoroutine()-before, sessions)
		}
		time.Sleep(time.Millisecond)
	}
}
