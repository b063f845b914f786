package engineio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// ending is what Handler.Closed was told.
type ending struct {
	reason Reason
	err    error
}

// recorder is a Handler that a test drives.
type recorder struct {
	t       testing.TB
	conn    *Conn
	message func(rec *recorder, kind Kind, payload []byte) <-chan struct{}
	got     chan string // what note was given
	closed  chan ending
	busy    atomic.Bool
	over    atomic.Bool
}

func (r *recorder) Message(kind Kind, payload []byte) <-chan struct{} {
	if !r.busy.CompareAndSwap(false, true) {
		r.t.Error("two messages at a time")
	}
	defer r.busy.Store(false)
	if r.over.Load() {
		r.t.Error("a message after the end")
	}
	return r.message(r, kind, payload)
}

func (r *recorder) Closed(reason Reason, err error) {
	if r.busy.Load() {
		r.t.Error("the end while a message is handled")
	}
	if !r.over.CompareAndSwap(false, true) {
		r.t.Error("two ends")
	}
	r.closed <- ending{reason, err}
}

// note is what most tests do with messages.
func note(r *recorder, kind Kind, payload []byte) <-chan struct{} {
	r.got <- fmt.Sprintf("%v %s", kind, payload)
	return nil
}

func echo(r *recorder, kind Kind, payload []byte) <-chan struct{} {
	_ = r.conn.Send(kind, payload)
	return nil
}

// harness is a server, and clients of it.
type harness struct {
	t       testing.TB
	server  *Server
	message func(rec *recorder, kind Kind, payload []byte) <-chan struct{}
	begun   func(rec *recorder, r *http.Request) // within open
	opened  chan *recorder
	url     string
	client  *http.Client
	network *pipes          // of a bubble
	ctx     context.Context //nolint:containedctx // the test's
}

func prepare(t testing.TB, options Options, message func(*recorder, Kind, []byte) <-chan struct{}) *harness {
	t.Helper()
	h := &harness{t: t, message: message, opened: make(chan *recorder, 1000)}
	h.server = NewServer(options, func(c *Conn, r *http.Request) Handler {
		rec := &recorder{t: t, conn: c, message: h.message, got: make(chan string, 10_000), closed: make(chan ending, 10)}
		if h.begun != nil {
			h.begun(rec, r)
		}
		h.opened <- rec
		return rec
	})
	return h
}

// stop shuts the server down, and looks at what is left.
func (h *harness) stop() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Hour) // which a bubble has
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		h.t.Errorf("shutdown: %v", err)
	}
	stats := h.server.Stats()
	for deadline := time.Now().Add(patience); stats.Queued != 0 && time.Now().Before(deadline); stats = h.server.Stats() {
		time.Sleep(time.Millisecond) // the last answer is still being written
	}
	if stats.Sessions[Polling] != 0 || stats.Sessions[WebSocket] != 0 || stats.Upgrading != 0 || stats.Queued != 0 {
		h.t.Errorf("after the end: %+v", stats)
	}
	var opened, closed int64
	for _, n := range stats.Opened {
		opened += n
	}
	for _, n := range stats.Closed {
		closed += n
	}
	if opened != closed {
		h.t.Errorf("%d sessions began, %d ended", opened, closed)
	}
	if n := h.held(); n != 0 || h.server.admitted != 0 {
		h.t.Errorf("%d sessions are still held, %d are counted", n, h.server.admitted)
	}
}

// held is how many sessions requests may find, but for those whose clients have just
// left.
func (h *harness) held() (n int) {
	h.server.mu.Lock()
	conns := slices.Collect(maps.Values(h.server.conns))
	h.server.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		if c.polling == nil || !c.polling.left {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// newHarness serves on a real network.
func newHarness(t testing.TB, options Options, message func(*recorder, Kind, []byte) <-chan struct{}) *harness {
	t.Helper()
	setDefault(&options.CloseTimeout, 200*time.Millisecond) // most clients do not answer
	h := prepare(t, options, message)
	if err := h.server.Start(); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h.server)
	h.url, h.client = web.URL+"/engine.io/", web.Client()
	h.ctx = t.Context()
	t.Cleanup(func() {
		h.stop()
		h.client.CloseIdleConnections()
		web.Close()
	})
	return h
}

// pipes is a network in memory, whose time is the bubble's.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// bubble runs a test where time passes only while everybody waits. Sockets have no
// descriptors there, so wsconn does without its poller.
func bubble(t *testing.T, options Options, message func(*recorder, Kind, []byte) <-chan struct{}, test func(h *harness)) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	bubbleOf(t, &protocols, options, message, test)
}

func bubbleOf(t *testing.T, protocols *http.Protocols, options Options, message func(*recorder, Kind, []byte) <-chan struct{}, test func(h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := prepare(t, options, message)
		if err := h.server.wheel.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.server.started.Store(true)
		network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		web := &http.Server{
			Handler:      h.server,
			WriteTimeout: time.Second, // less than a poll takes
			Protocols:    protocols,
			ErrorLog:     log.New(io.Discard, "", 0), // some tests panic
		}
		if protocols.UnencryptedHTTP2() {
			web.ReadTimeout = time.Second // of which HTTP/1 would make use where we have to set one
		}
		h.network = network
		served := make(chan error)
		go func() { served <- web.Serve(network) }()
		transport := &http.Transport{DialContext: network.dial, Protocols: protocols}
		h.url, h.client, h.ctx = "http://bubble/engine.io/", &http.Client{Transport: transport}, context.Background()
		defer func() {
			h.stop()
			transport.CloseIdleConnections()
			_ = web.Close()
			<-served
		}()
		test(h)
	})
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	body   string
}

func (h *harness) do(ctx context.Context, method, query string, body io.Reader, header http.Header) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, h.url+"?"+query, body)
	if err != nil {
		return answer{}, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	response, err := h.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(b)}, err
}

// request is one that must be answered.
func (h *harness) request(method, query, body string) answer {
	h.t.Helper()
	a, err := h.do(h.ctx, method, query, strings.NewReader(body), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

const (
	newPolling   = "EIO=4&transport=polling"
	newWebSocket = "EIO=4&transport=websocket"
)

// client is one side of a session, whose other side is the recorder.
type client struct {
	*harness
	rec   *recorder
	sid   string
	begun time.Time // about
}

// poll begins a session with polling.
func (h *harness) poll() *client {
	h.t.Helper()
	begun := time.Now()
	a := h.request(http.MethodGet, newPolling, "")
	if a.status != http.StatusOK {
		h.t.Fatalf("handshake: %+v", a)
	}
	c := h.begin(a.body)
	c.begun = begun
	c.settle()
	return c
}

// settle returns when the server knows that its answers are written.
func (c *client) settle() {
	c.t.Helper()
	c.until("the answer is written", func(conn *Conn) bool { return conn.polling == nil || conn.polling.writing == 0 })
}

// begin takes the packet "open".
func (h *harness) begin(packet string) *client {
	h.t.Helper()
	var open struct{ SID string }
	if err := json.NewDecoder(strings.NewReader(strings.TrimPrefix(packet, "0"))).Decode(&open); err != nil || open.SID == "" {
		h.t.Fatalf("handshake: %q, %v", packet, err)
	}
	return &client{harness: h, rec: wait(h.t, "the session", h.opened), sid: open.SID}
}

func (c *client) query(transport Transport) string {
	return "EIO=4&transport=" + string(transport) + "&sid=" + url.QueryEscape(c.sid)
}

func (c *client) get() answer {
	c.t.Helper()
	a := c.request(http.MethodGet, c.query(Polling), "")
	c.settle()
	return a
}

// getLater polls meanwhile.
func (c *client) getLater() <-chan answer {
	got := make(chan answer, 1)
	go func() {
		a, err := c.do(c.ctx, http.MethodGet, c.query(Polling), nil, nil)
		if err != nil {
			a.body = err.Error()
		}
		got <- a
	}()
	return got
}

// getWaiting polls meanwhile, and returns when the server knows of it.
func (c *client) getWaiting() <-chan answer {
	got := c.getLater()
	c.until("the poll waits", func(conn *Conn) bool { return conn.polling == nil || conn.polling.waiting != nil })
	return got
}

// until returns when the session's state is as wanted.
func (c *client) until(what string, state func(conn *Conn) bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		c.rec.conn.mu.Lock()
		ok := state(c.rec.conn)
		c.rec.conn.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (c *client) post(body string) answer {
	c.t.Helper()
	return c.request(http.MethodPost, c.query(Polling), body)
}

// postSlowly posts what is written, and answers once that is all.
func (c *client) postSlowly() (write *io.PipeWriter, posted <-chan answer) {
	body, write := io.Pipe()
	got := make(chan answer, 1)
	go func() {
		a, err := c.do(c.ctx, http.MethodPost, c.query(Polling), body, nil)
		if err != nil {
			a.body = err.Error()
		}
		got <- a
	}()
	return write, got
}

// wantGone says that the session is not known any more, and how it ended.
func (c *client) wantGone(reason Reason) {
	c.t.Helper()
	if got := wait(c.t, "the end", c.rec.closed); got.reason != reason {
		c.t.Errorf("the session ended with %q (%v), want %q", got.reason, got.err, reason)
	}
	wantError(c.t, c.get(), http.StatusBadRequest, CodeUnknownSession)
	if err := c.rec.conn.Send(Text, []byte("late")); !errors.Is(err, ErrClosed) {
		c.t.Errorf("send after the end: %v", err)
	}
}

// dial opens a WebSocket, or says with which status it did not.
func (h *harness) dial(query string, header http.Header) (ws *websocket.Conn, status int, err error) {
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	ws, response, err := websocket.Dial(ctx, strings.Replace(h.url, "http", "ws", 1)+"?"+query, &websocket.DialOptions{
		HTTPClient: h.client, HTTPHeader: header,
	})
	if err == nil {
		ws.SetReadLimit(1 << 24)
	}
	if response != nil {
		status = response.StatusCode
		if response.Body != nil {
			_ = response.Body.Close()
		}
	}
	return ws, status, err
}

// socketClient is a client's WebSocket.
type socketClient struct {
	t  testing.TB
	ws *websocket.Conn
}

func (h *harness) mustDial(query string) *socketClient {
	h.t.Helper()
	ws, _, err := h.dial(query, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = ws.CloseNow() })
	return &socketClient{h.t, ws}
}

func (s *socketClient) read() (websocket.MessageType, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	kind, b, err := s.ws.Read(ctx)
	return kind, string(b), err
}

// want reads text.
func (s *socketClient) want(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if kind, got, err := s.read(); err != nil || kind != websocket.MessageText || got != text {
			s.t.Fatalf("read %v %q, %v; want %q", kind, got, err, text)
		}
	}
}

func (s *socketClient) send(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		if err := s.ws.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
			s.t.Fatalf("write %q: %v", text, err)
		}
	}
}

// wantClose reads the server's close frame.
func (s *socketClient) wantClose(code int) {
	s.t.Helper()
	_, got, err := s.read()
	if websocket.CloseStatus(err) != websocket.StatusCode(code) {
		s.t.Fatalf("read %q, %v; want a close frame with code %d", got, err, code)
	}
}

// connect begins a session with a WebSocket.
func (h *harness) connect() (*client, *socketClient) {
	h.t.Helper()
	return h.connectWith(newWebSocket)
}

func (h *harness) connectWith(query string) (*client, *socketClient) {
	h.t.Helper()
	begun := time.Now()
	s := h.mustDial(query)
	_, text, err := s.read()
	if err != nil {
		h.t.Fatal(err)
	}
	c := h.begin(text)
	c.begun = begun
	return c, s
}

// probe opens a WebSocket for a session, and probes it.
func (c *client) probe() *socketClient {
	c.t.Helper()
	s := c.mustDial(c.query(WebSocket))
	s.send("2probe")
	s.want("3probe")
	return s
}

// upgrade goes all the way.
func (c *client) upgrade() *socketClient {
	c.t.Helper()
	s := c.probe()
	s.send("5")
	c.until("the upgrade", func(conn *Conn) bool { return conn.socket != nil })
	return s
}

// wait receives what must come.
func wait[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// wantError says that an answer is an error of the protocol.
func wantError(t testing.TB, a answer, status int, code Code) {
	t.Helper()
	var e struct {
		Code    *Code
		Message string
	}
	err := json.Unmarshal([]byte(a.body), &e)
	if err != nil || a.status != status || e.Code == nil || *e.Code != code || e.Message == "" {
		t.Errorf("answered %d %q, want status %d and code %d", a.status, a.body, status, code)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
}

func wantOK(t testing.TB, a answer, body string) {
	t.Helper()
	if a.status != http.StatusOK || a.body != body {
		t.Errorf("answered %d %q, want %q", a.status, a.body, body)
	}
}

// packets takes a payload apart.
func packets(payload string) []string { return strings.Split(payload, "\x1e") }

// wantGot says what the handler has noted next.
func (c *client) wantGot(notes ...string) {
	c.t.Helper()
	var got []string
	for range notes {
		got = append(got, wait(c.t, "a message", c.rec.got))
	}
	if !slices.Equal(got, notes) {
		c.t.Errorf("got %q, want %q", got, notes)
	}
}
