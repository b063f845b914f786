package wsconn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

// What the tests put into frames (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	flagFin    = 0x80
	flagMasked = 0x80

	length16 = 126 // the length follows in two bytes
	length64 = 127 // the length follows in eight bytes

	codeProtocol = 1002
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// recorder is a Handler that a test drives.
type recorder struct {
	conn     *Conn
	message  func(c *Conn, kind Kind, payload []byte) <-chan struct{}
	tooLarge chan struct{}
	closed   chan Closure
}

func (r *recorder) Message(kind Kind, payload []byte) <-chan struct{} {
	return r.message(r.conn, kind, payload)
}

func (r *recorder) TooLarge() {
	r.tooLarge <- struct{}{}
	r.conn.Close(4002, "too large")
}

func (r *recorder) Closed(closure Closure) { r.closed <- closure }

func newRecorder(message func(*Conn, Kind, []byte) <-chan struct{}) *recorder {
	return &recorder{message: message, tooLarge: make(chan struct{}, 10), closed: make(chan Closure, 1)}
}

func echo(c *Conn, kind Kind, payload []byte) <-chan struct{} {
	_ = c.Send(kind, payload)
	return nil
}

// server accepts every handshake, each with a recorder of its own.
type server struct {
	t       testing.TB
	group   *Group
	http    *httptest.Server
	next    atomic.Int64
	clients sync.Map // path -> chan *recorder
}

// accepted is where the recorder of the connection with a path arrives.
func (s *server) accepted(path string) chan *recorder {
	ch, _ := s.clients.LoadOrStore(path, make(chan *recorder, 1))
	return ch.(chan *recorder) //nolint:forcetypeassert // nothing else is in it
}

// client waits for that recorder.
func (s *server) client(path string) (*recorder, error) {
	defer s.clients.Delete(path)
	return await("the server's side", s.accepted(path))
}

func (s *server) newPath() string { return "/" + strconv.FormatInt(s.next.Add(1), 10) }

func newServer(t testing.TB, options Options, message func(*Conn, Kind, []byte) <-chan struct{}) *server {
	t.Helper()
	s := &server{t: t, group: NewGroup(options)}
	if err := s.group.Start(); err != nil {
		t.Fatal(err)
	}
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := newRecorder(message)
		c, err := s.group.Accept(w, r, "test.v1", rec)
		if err != nil {
			return
		}
		rec.conn = c
		s.accepted(r.URL.Path) <- rec
		c.Start()
	}))
	t.Cleanup(func() {
		s.http.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.group.Wait(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		if n := s.group.Queued(); n != 0 {
			t.Errorf("%d bytes are still counted as queued", n)
		}
	})
	return s
}

// dial opens a connection with an ordinary client.
func (s *server) dial() (*websocket.Conn, *recorder) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := s.newPath()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.http.URL, "http")+path, &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		Subprotocols: []string{"test.v1"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	s.t.Cleanup(func() { _ = ws.CloseNow() })
	rec, err := s.client(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return ws, rec
}

// unread is a ResponseWriter for a handshake that nobody waits for.
type unread struct {
	http.ResponseWriter
	conn net.Conn
}

func (u unread) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return u.conn, bufio.NewReadWriter(bufio.NewReader(u.conn), bufio.NewWriter(u.conn)), nil
}

// pipe is a connection without a file descriptor, as TLS is, whose every write
// waits for the peer. Its handshake is done.
func pipe(t testing.TB, g *Group, rec *recorder) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	var err error
	if rec.conn, err = g.Accept(unread{httptest.NewRecorder(), ours}, testkit.Upgrade(t, "http://test/", "test.v1"), "test.v1", rec); err != nil {
		t.Fatal(err)
	}
	rec.conn.Start()
	answer := make([]byte, 1)
	for !bytes.HasSuffix(answer, []byte("\r\n\r\n")) {
		answer = append(answer, 0)
		if _, err := io.ReadFull(theirs, answer[len(answer)-1:]); err != nil {
			t.Fatal(err)
		}
	}
	return theirs
}

// raw is a client that can break the rules.
type raw struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
}

const handshake = " HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// raw opens a connection, and sends something together with the handshake.
func (s *server) raw(early ...byte) (*raw, *recorder) {
	s.t.Helper()
	r, rec, err := s.open(early...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r, rec
}

// open is raw for any goroutine.
func (s *server) open(early ...byte) (*raw, *recorder, error) {
	conn, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.http.Listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	r := &raw{t: s.t, conn: conn, br: bufio.NewReader(conn)}
	path := s.newPath()
	if _, err := conn.Write(append([]byte("GET "+path+handshake), early...)); err != nil {
		return nil, nil, err
	}
	response, err := http.ReadResponse(r.br, nil)
	if err != nil {
		return nil, nil, err
	}
	_ = response.Body.Close()
	// The example of RFC 6455, section 1.3.
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return nil, nil, fmt.Errorf("answer %d %v", response.StatusCode, response.Header)
	}
	rec, err := s.client(path)
	return r, rec, err
}

func (r *raw) write(b []byte) {
	r.t.Helper()
	if _, err := r.conn.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// clientFrame is a frame as clients send them.
func clientFrame(first byte, payload string) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b := []byte{first}
	switch n := len(payload); {
	case n < length16:
		b = append(b, flagMasked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, flagMasked|length16), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, flagMasked|length64), uint64(n))
	}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

// frame reads a frame of the server's.
func (r *raw) frame() (first byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r.br, head); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1])
	switch head[1] {
	case length16:
		more := make([]byte, 2)
		_, err = io.ReadFull(r.br, more)
		size = uint64(binary.BigEndian.Uint16(more))
	case length64:
		more := make([]byte, 8)
		_, err = io.ReadFull(r.br, more)
		size = binary.BigEndian.Uint64(more)
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r.br, payload)
	return head[0], payload, err
}

func (r *raw) wantFrame(first byte, payload string) {
	r.t.Helper()
	if err := r.expect(first, payload); err != nil {
		r.t.Fatal(err)
	}
}

// expect is wantFrame for any goroutine.
func (r *raw) expect(first byte, payload string) error {
	gotFirst, got, err := r.frame()
	if err != nil {
		return fmt.Errorf("no frame %#x %.40q: %w", first, payload, err)
	}
	if gotFirst != first || string(got) != payload {
		return fmt.Errorf("frame %#x %.40q, want %#x %.40q", gotFirst, got, first, payload)
	}
	return nil
}

// wantClose reads up to a close frame with the code.
func (r *raw) wantClose(code uint16) {
	r.t.Helper()
	if err := r.expectClose(code); err != nil {
		r.t.Fatal(err)
	}
}

// expectClose is wantClose for any goroutine.
func (r *raw) expectClose(code uint16) error {
	for {
		first, payload, err := r.frame()
		if err != nil {
			return fmt.Errorf("no close frame: %w", err)
		}
		if first != flagFin|opClose {
			continue
		}
		if len(payload) < 2 || binary.BigEndian.Uint16(payload) != code {
			return fmt.Errorf("close frame %q, want code %d", payload, code)
		}
		return nil
	}
}

func (r *raw) wantEnd() {
	r.t.Helper()
	if rest, err := io.ReadAll(r.br); err != nil || len(rest) > 0 {
		r.t.Errorf("%q and %v before the end", rest, err)
	}
}

// wait fails the test if nothing comes.
func wait[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	v, err := await(what, from)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// await is wait for any goroutine.
func await[T any](what string, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
	case <-time.After(patience):
		err = fmt.Errorf("%s: not in %s", what, patience)
	}
	return v, err
}
