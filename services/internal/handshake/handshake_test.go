package handshake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

const patience = 20 * time.Second

// server is an http.Server that accepts from a Listener.
type server struct {
	*Listener
	http *http.Server
	done chan error
	log  *bytes.Buffer

	mu     sync.Mutex
	passed map[string]chan struct{} // closed when net/http is given the connection, by its address
}

func newServer(t testing.TB, timeout time.Duration, handler http.Handler) *server {
	t.Helper()
	inner, err := (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{done: make(chan error, 1), log: &bytes.Buffer{}, passed: map[string]chan struct{}{}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	s.Listener = Listen(inner.(*net.TCPListener), handler, timeout, log)
	s.http = &http.Server{Handler: handler, ReadHeaderTimeout: timeout, ConnState: func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			passed := s.whenPassed(conn.RemoteAddr())
			select {
			case <-passed: // another one, from the same port
			default:
				close(passed)
			}
		}
	}}
	go func() { s.done <- s.http.Serve(s.Listener) }()
	t.Cleanup(func() { s.stop(t) })
	return s
}

// stop can be called twice.
func (s *server) stop(t testing.TB) {
	t.Helper()
	_ = s.http.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Wait(ctx); err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.done:
		s.done <- err
		if !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the server does not end")
	}
}

func (s *server) whenPassed(client net.Addr) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passed[client.String()] == nil {
		s.passed[client.String()] = make(chan struct{})
	}
	return s.passed[client.String()]
}

func (s *server) waitUntilPassed(t *testing.T, conn net.Conn) {
	t.Helper()
	select {
	case <-s.whenPassed(conn.LocalAddr()):
	case <-time.After(patience):
		t.Fatal("net/http is not given the connection")
	}
}

func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// said is an answer as a client reads it.
type said struct {
	status int
	header http.Header
	length int64
	close  bool
	body   string
}

func readAnswer(t *testing.T, in *bufio.Reader) said {
	t.Helper()
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return said{response.StatusCode, response.Header, response.ContentLength, response.Close, string(body)}
}

// request is a handshake, with more headers.
func request(headers ...string) string {
	return "GET /ws?a=1 HTTP/1.1\r\nHost: market.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(headers, "") + "\r\n"
}

// here says whether a request came without net/http's server.
func here(r *http.Request) bool { return r.Context().Value(http.ServerContextKey) == nil }

// who answers who served a request, and with what.
func who(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Header", r.Header.Get("X-Header"))
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, "here: %t, %s %s of %s for %s: %s", here(r), r.Method, r.RequestURI, r.RemoteAddr, r.Host, body)
}

// Whatever is no handshake, or none that can be taken for one at first sight, is
// net/http's, from its first byte on.
func TestOnlyHandshakesAreServedHere(t *testing.T) {
	t.Parallel()
	s := newServer(t, patience, http.HandlerFunc(who))
	tests := map[string]struct {
		pieces []string
		want   int // status
		here   bool
	}{
		"a handshake":                {pieces: []string{request()}, here: true, want: 403},
		"among other protocols":      {pieces: []string{strings.Replace(request(), "websocket", "x, WebSocket", 1)}, here: true, want: 403},
		"with data":                  {pieces: []string{request() + "early"}, here: true, want: 403},
		"without a body, it says":    {pieces: []string{request("Content-Length: 0\r\n")}, here: true, want: 403},
		"in pieces":                  {pieces: []string{request()[:30], request()[30:]}, want: 403},
		"a letter at first":          {pieces: []string{"G", request()[1:]}, want: 403},
		"too long for one look":      {pieces: []string{request("X-Header: " + strings.Repeat("x", firstSize) + "\r\n")}, want: 403},
		"a request":                  {pieces: []string{"GET /ws HTTP/1.1\r\nHost: market.test\r\n\r\n"}, want: 403},
		"another protocol":           {pieces: []string{strings.Replace(request(), "websocket", "h2c", 1)}, want: 403},
		"another method":             {pieces: []string{strings.Replace(request(), "GET", "PUT", 1)}, want: 403},
		"with a body":                {pieces: []string{request("Content-Length: 4\r\n") + "body"}, want: 403},
		"with a body in chunks":      {pieces: []string{request("Transfer-Encoding: chunked\r\n") + "4\r\nbody\r\n0\r\n\r\n"}, want: 403},
		"HTTP/1.0":                   {pieces: []string{strings.Replace(request(), "HTTP/1.1", "HTTP/1.0", 1)}, want: 403},
		"with expectations":          {pieces: []string{request("Expect: more\r\n")}, want: 417},
		"without a host":             {pieces: []string{strings.Replace(request(), "Host: market.test\r\n", "", 1)}, want: 400},
		"of a client without a key":  {pieces: []string{strings.Replace(request(), "Sec-WebSocket-Key", "X", 1)}, want: 403},
		"of a connection that stays": {pieces: []string{strings.Replace(request(), "Connection: Upgrade", "Connection: keep-alive", 1)}, want: 403},
		"with a head that ends soon": {pieces: []string{strings.ReplaceAll(request(), "\r\n", "\n") + "\r\n\r\n"}, want: 403},
		"with two":                   {pieces: []string{request("Host: other.test\r\n")}, want: 400},
		"with a host that is none":   {pieces: []string{strings.Replace(request(), "market.test", "a b", 1)}, want: 400},
		"for an absolute URL":        {pieces: []string{strings.Replace(request(), "/ws", "http://other.test/ws", 1)}, want: 403},
		"a header that is none":      {pieces: []string{request("X Header: x\r\n")}, want: 400},
		"a value that is none":       {pieces: []string{request("X-Header: \x01\r\n")}, want: 400},
		"a line that goes on":        {pieces: []string{request("X-Header: a\r\n b\r\n")}, here: true, want: 403},
		"lengths that differ":        {pieces: []string{request("Content-Length: 0\r\nContent-Length: 1\r\n")}, want: 400},
		"no HTTP":                    {pieces: []string{"hello\r\n\r\n"}, want: 400},
		"HTTP of which nobody heard": {pieces: []string{strings.Replace(request(), "HTTP/1.1", "HTTP/9.9", 1)}, want: 505},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := s.dial(t)
			for i, piece := range tt.pieces {
				if i > 0 {
					s.waitUntilPassed(t, conn)
				}
				if _, err := conn.Write([]byte(piece)); err != nil {
					t.Fatal(err)
				}
			}
			got := readAnswer(t, bufio.NewReader(conn))
			if got.status != tt.want {
				t.Errorf("status %d, want %d: %s", got.status, tt.want, got.body)
			}
			if want := fmt.Sprintf("here: %t, ", tt.here); tt.want == http.StatusForbidden && !strings.HasPrefix(got.body, want) {
				t.Errorf("%s, want %s", got.body, want)
			}
		})
	}
}

// Every connection that net/http is given can do what a TCP connection can, and is
// watched by TCP's keep-alive.
func TestOthersAreUpgradedToo(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"by a second request": "GET / HTTP/1.1\r\nHost: market.test\r\n\r\n",
		"by a long request":   "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, patience, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") == "" {
					return
				}
				if here(r) {
					t.Error("served here")
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				raw, err := conn.(syscall.Conn).SyscallConn()
				if err != nil {
					t.Error(err)
					return
				}
				_ = raw.Control(func(fd uintptr) {
					if on, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); err != nil || on != 1 {
						t.Errorf("TCP keep-alive: %d, %v", on, err)
					}
				})
				early, _ := rw.Peek(rw.Reader.Buffered())
				for left := len("early") - len(early); left > 0; { // with the second segment
					var buf [8]byte
					var n int
					_ = raw.Read(func(fd uintptr) bool {
						n, err = syscall.Read(int(fd), buf[:])
						return !errors.Is(err, syscall.EAGAIN)
					})
					left -= n
				}
				_, _ = conn.Write([]byte("done"))
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			}))
			conn := s.dial(t)
			in := bufio.NewReader(conn)
			if before != "" {
				_, _ = conn.Write([]byte(before))
				response, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
			}
			_, _ = conn.Write([]byte(request("X-Header: "+strings.Repeat("x", firstSize)+"\r\n") + "early"))
			if got, err := io.ReadAll(in); string(got) != "done" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A client may send frames before it has the answer.
func TestWebSockets(t *testing.T) {
	t.Parallel()
	s := newServer(t, patience, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !here(r) {
			t.Error("served by net/http")
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		kind, message, err := ws.Read(context.Background())
		if err == nil {
			err = ws.Write(context.Background(), kind, message)
		}
		if err != nil {
			t.Error(err)
		}
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}))
	conn := s.dial(t)
	_, _ = conn.Write([]byte(request() + "\x81\x82\x00\x00\x00\x00hi")) // masked with nothing
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response)
	}
	if got := response.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455, section 1.3
		t.Errorf("Sec-WebSocket-Accept: %s", got)
	}
	frame := make([]byte, 4)
	if _, err := io.ReadFull(in, frame); err != nil || string(frame) != "\x81\x02hi" {
		t.Errorf("%q, %v", frame, err)
	}
}

func TestRefusalsAreWholeAnswers(t *testing.T) {
	t.Parallel()
	s := newServer(t, patience, http.HandlerFunc(who))
	conn := s.dial(t)
	_, _ = conn.Write([]byte(request("X-Header: x\r\n")))
	in := bufio.NewReader(conn)
	got := readAnswer(t, in)
	want := "here: true, GET /ws?a=1 of " + conn.LocalAddr().String() + " for market.test: "
	if got.body != want {
		t.Errorf("%q, want %q", got.body, want)
	}
	if got.length != int64(len(want)) || !got.close || got.header.Get("X-Header") != "x" {
		t.Errorf("%+v", got)
	}
	if _, err := http.ParseTime(got.header.Get("Date")); err != nil {
		t.Error(err)
	}
	if more, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("goes on: %q, %v", more, err)
	}
}

func TestPanicsEndTheirConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value any
		logs  bool
	}{"a panic": {"oh", true}, "the way to cut an answer short": {http.ErrAbortHandler, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, patience, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte("half an answer"))
				panic(tt.value)
			}))
			conn := s.dial(t)
			_, _ = conn.Write([]byte(request()))
			if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			s.stop(t)
			if logs := strings.Contains(s.log.String(), "panic in a handshake"); logs != tt.logs {
				t.Errorf("log: %s", s.log)
			}
		})
	}
}

func TestSilentConnectionsEnd(t *testing.T) {
	t.Parallel()
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, time.Millisecond, http.HandlerFunc(who))
		if got, err := io.ReadAll(s.dial(t)); len(got) != 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("with the server", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, time.Hour, http.HandlerFunc(who))
		silent := s.dial(t)
		asking := s.dial(t) // after it; so the first is accepted when this one is answered
		_, _ = asking.Write([]byte(request()))
		_, _ = io.ReadAll(asking)
		s.stop(t)
		if got, err := io.ReadAll(silent); len(got) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// What is being served when the server closes is served.
func TestHandshakesOutliveTheListener(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	s := newServer(t, patience, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-goOn
		who(w, r)
	}))
	conn := s.dial(t)
	_, _ = conn.Write([]byte(request()))
	<-arrived
	_ = s.http.Close()
	gone := make(chan error, 1)
	go func() { gone <- s.Wait(t.Context()) }()
	close(goOn)
	if got, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 403 Forbidden\r\n")) {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

// Who is served for too long is left alone.
func TestHandshakesEndWithTheWait(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	s := newServer(t, patience, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-goOn
	}))
	conn := s.dial(t)
	_, _ = conn.Write([]byte(request()))
	<-arrived
	_ = s.http.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait does not wait: %v", err)
	}
	if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	close(goOn)
}

func TestConnectionsLeaveNothingBehind(t *testing.T) {
	// Not parallel: it counts goroutines, and weighs the heap.
	s := newServer(t, patience, http.HandlerFunc(who))
	testkit.LeavesNothing(t, 1000, 1<<20, func() {}, func(i int) error {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		switch i % 4 {
		case 0:
			return nil // says nothing
		case 1:
			_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
		case 2:
			_, err = conn.Write([]byte(request()[:50])) // and no more
			return err
		case 3:
			_, err = conn.Write([]byte(request()))
		}
		_, readErr := io.ReadAll(conn)
		return errors.Join(err, readErr)
	})
}

// Whatever comes in, what is taken for a handshake is a request that net/http's
// server gives to its handler, too, and the same one.
func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{
		request(), request() + "early", request("X: \x01\r\n"), request("Content-Length: 1\r\n") + "x", request("Host: b\r\n"),
		request("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", request("Expect: 100-continue\r\n"), request("A: b\r\n c\r\n"),
		strings.Replace(request(), "/ws", "/%77s?%zz;#", 1), strings.Replace(request(), "\r\n", "\n", 3),
		strings.ReplaceAll(request(), "\r\n", "\n") + "early\r\n\r\nmore", "GET / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		first := getFirst()
		defer first.release()
		if err := first.read(bytes.NewReader(sent)); err != nil {
			return
		}
		got := first.handshake()
		if got == nil {
			return
		}
		want, rest := served(first.copy())
		if want == nil {
			t.Fatalf("net/http does not take %q", sent)
		}
		if !bytes.Equal(rest, first.rest()) {
			t.Errorf("after %q comes %q, for net/http %q", sent, first.rest(), rest)
		}
		about := func(r *http.Request) []any {
			return []any{r.Method, r.URL.String(), r.RequestURI, r.Proto, r.Host, r.Header, r.ContentLength, r.TransferEncoding}
		}
		if diff := cmp.Diff(about(want), about(got)); diff != "" {
			t.Errorf("net/http takes %q for something else (-net/http +here):\n%s", sent, diff)
		}
	})
}

// served returns what net/http's server makes of a request, or nil, and what follows it.
func served(sent []byte) (got *http.Request, rest []byte) {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			early, _ := rw.Peek(rw.Reader.Buffered())
			got, rest = r, bytes.Clone(early)
			_ = conn.Close()
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	mine, theirs := net.Pipe()
	listener := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	listener.conn <- theirs
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	go func() { _, _ = mine.Write(sent) }()
	_, _ = io.Copy(io.Discard, mine) // until the server closes it
	_ = mine.Close()
	_ = server.Close()
	<-done
	return got, rest
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
