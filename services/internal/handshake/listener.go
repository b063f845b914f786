package handshake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/marketplane/marketplane/services/internal/workers"
)

// Listener is for an http.Server to accept from. It reads what a client sends first:
// a WebSocket handshake is served at once; a connection that begins with anything
// else is accepted as it came, with TCP's keep-alive.
type Listener struct {
	inner   *net.TCPListener
	handler http.Handler
	timeout time.Duration
	log     *slog.Logger
	others  chan accepted
	closed  chan struct{}
	workers *workers.Pool[*net.TCPConn]
	running sync.WaitGroup // run

	mu   sync.Mutex
	over bool                  // closed
	open map[*net.TCPConn]bool // not passed on or taken over yet; whether it has sent something
}

// maxIdle is how many workers wait for more to do.
const maxIdle = 16

type accepted struct {
	conn net.Conn
	err  error
}

// Listen serves handshakes that arrive at inner, each by handler, whose answers are
// held in memory until they are complete, and whose request's context does not end
// with the client. A client may take timeout to send something, and to take an answer.
// WebSockets have pings, so inner needs no TCP keep-alive, which is four system calls
// for each.
func Listen(inner *net.TCPListener, handler http.Handler, timeout time.Duration, log *slog.Logger) *Listener {
	l := &Listener{
		inner: inner, handler: handler, timeout: timeout, log: log,
		others: make(chan accepted), closed: make(chan struct{}), open: map[*net.TCPConn]bool{},
	}
	l.workers = workers.New(maxIdle, l.meet)
	l.running.Go(l.run)
	return l
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.others:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close implements net.Listener. Handshakes that are being served go on.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return net.ErrClosed
	}
	l.over = true
	close(l.closed)
	l.workers.Stop()
	for conn, asked := range l.open {
		if !asked {
			_ = conn.Close() // nothing is owed to it
		}
	}
	return l.inner.Close() //nolint:wrapcheck // it is the inner one's
}

// Wait returns when no handshake is being served; call it when the listener is
// closed. When ctx ends first, their connections are closed.
func (l *Listener) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.running.Wait()
		l.workers.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		_ = conn.Close() // it has had its time
	}
	return fmt.Errorf("%d handshakes are still being served: %w", len(l.open), ctx.Err())
}

func (l *Listener) run() {
	for {
		conn, err := l.inner.AcceptTCP()
		switch {
		case err == nil:
			l.workers.Do(conn)
		case errors.Is(err, net.ErrClosed):
			return
		case !l.pass(accepted{err: err}): // the server knows when to go on
			return
		}
	}
}

// note says whether a connection has sent something, unless the listener is closed.
func (l *Listener) note(conn *net.TCPConn, asked bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.open[conn] = asked
	}
	return !l.over
}

// leave notes that a connection is closed, or somebody else's.
func (l *Listener) leave(conn *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

// pass gives the server something to accept, unless it has gone.
func (l *Listener) pass(a accepted) bool {
	select {
	case l.others <- a:
		return true
	case <-l.closed:
		return false
	}
}

// meet serves a new connection's handshake, or passes the connection on.
func (l *Listener) meet(conn *net.TCPConn) {
	defer l.leave(conn)
	if !l.note(conn, false) {
		_ = conn.Close() // nothing is owed to it
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(l.timeout)) // fails on what is closed
	first := getFirst()
	defer first.release()
	if err := first.read(conn); err != nil || !l.note(conn, true) {
		_ = conn.Close() // as above
		return
	}
	request := first.handshake()
	if request == nil {
		_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) // it works without
		if !l.pass(accepted{conn: &rewound{conn, first.copy()}}) {
			_ = conn.Close() // as a server does that is closed
		}
		return
	}
	_ = conn.SetReadDeadline(time.Time{}) // fails on what is closed
	request.RemoteAddr = conn.RemoteAddr().String()
	l.serve(&answer{conn: conn, header: http.Header{}, request: request, early: first.rest(), timeout: l.timeout})
}

func (l *Listener) serve(w *answer) {
	defer func() {
		if v := recover(); v != nil && v != any(http.ErrAbortHandler) {
			l.log.Error("panic in a handshake", "panic", v, "stack", string(debug.Stack()))
		}
		if !w.hijacked {
			_ = w.conn.Close() // all is said
		}
	}()
	l.handler.ServeHTTP(w, w.request)
	w.finish()
}
