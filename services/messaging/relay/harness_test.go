package relay

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/seal"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

const path = "/socket.io/"

func newSealer(t testing.TB) *seal.Sealer {
	t.Helper()
	s, err := seal.New(bytes.Repeat([]byte{7}, seal.KeySize), Purpose)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pod is a process: a public and an internal server, with sessions and a relay.
type pod struct {
	t        testing.TB
	relay    *Relay
	engine   *engineio.Server
	self     netip.AddrPort
	url      string // of the public server
	public   *http.Server
	internal *http.Server
	opened   chan *session
	asked    atomic.Int64 // how many requests the internal server has had
	stopped  bool
}

// session is one whose handler tells the test.
type session struct {
	conn   *engineio.Conn
	got    chan string
	closed chan engineio.Reason
}

func (s *session) Message(kind engineio.Kind, payload []byte) <-chan struct{} {
	text := string(payload)
	s.got <- text
	if rest, ok := strings.CutPrefix(text, "echo "); ok {
		_ = s.conn.Send(kind, []byte(rest))
	}
	return nil
}

func (s *session) Closed(reason engineio.Reason, _ error) { s.closed <- reason }

// fast are options for tests in which something doesn't answer.
var fast = Options{DialTimeout: time.Second, HandshakeTimeout: time.Second, RequestTimeout: time.Second}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serve(t testing.TB, l net.Listener, h http.Handler) *http.Server {
	t.Helper()
	server := &http.Server{Handler: h, ReadHeaderTimeout: patience, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func newPod(t testing.TB, options Options, engine engineio.Options) *pod {
	t.Helper()
	p := &pod{t: t, opened: make(chan *session, 1000)}
	p.start(listen(t, "127.0.0.1:0"), options, engine, func(c *engineio.Conn, _ *http.Request) engineio.Handler {
		s := &session{conn: c, got: make(chan string, 10_000), closed: make(chan engineio.Reason, 1)}
		p.opened <- s
		return s
	})
	return p
}

func (p *pod) start(internal net.Listener, options Options, engine engineio.Options, open func(*engineio.Conn, *http.Request) engineio.Handler) {
	t := p.t
	t.Helper()
	setDefault(&options.CloseTimeout, time.Second) // some clients do not answer
	p.self = netip.MustParseAddrPort(internal.Addr().String())
	p.relay = New(p.self, newSealer(t), options, prometheus.NewRegistry())
	if err := p.relay.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	engine.NewID, engine.Missing, engine.CloseTimeout = p.relay.NewID, p.relay.Missing, time.Second
	p.engine = engineio.NewServer(engine, open)
	if err := p.engine.Start(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(path, p.engine)
	public := listen(t, "127.0.0.1:0")
	p.url = "http://" + public.Addr().String()
	p.public = serve(t, public, mux)
	inside := http.NewServeMux()
	inside.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		Internal(p.engine).ServeHTTP(w, r)
	}))
	p.internal = serve(t, internal, inside)
	t.Cleanup(p.stop)
}

// stop ends the process in order.
func (p *pod) stop() {
	if p.stopped {
		return
	}
	p.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.relay.Stop(ctx); err != nil {
		p.t.Errorf("stop: %v", err)
	}
	if err := p.engine.Shutdown(ctx); err != nil {
		p.t.Errorf("shutdown: %v", err)
	}
	_ = p.internal.Close()
	_ = p.public.Close()
	if n := p.relay.Sockets(); n != 0 {
		p.t.Errorf("%d sockets are left", n)
	}
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to a pod.
func (p *pod) ask(ctx context.Context, method, query, body string, header http.Header) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, p.url+path+"?EIO=4&"+query, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(b)}, err
}

func (p *pod) must(method, query, body string) answer {
	p.t.Helper()
	a, err := p.ask(p.t.Context(), method, query, body, nil)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, query, err)
	}
	return a
}

func (p *pod) want(method, query, body string, status int, text string) {
	p.t.Helper()
	if a := p.must(method, query, body); a.status != status || a.body != text {
		p.t.Fatalf("%s %s: %d %q, not %d %q", method, query, a.status, a.body, status, text)
	}
}

const unknown = `{"code":1,"message":"Session ID unknown"}` + "\n"

// begin begins a session with polling, whose query for further polls it returns.
func (p *pod) begin() (s *session, polling string) {
	p.t.Helper()
	a := p.must("GET", "transport=polling", "")
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(a.body, "0")), &open); err != nil || a.status != http.StatusOK {
		p.t.Fatalf("handshake: %+v", a)
	}
	return wait(p.t, "the session", p.opened), "transport=polling&sid=" + url.QueryEscape(open.SID)
}

// pending is a poll, on its way.
func (p *pod) pending(query string) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		a, err := p.ask(p.t.Context(), "GET", query, "", nil)
		if err != nil {
			a.body = err.Error()
		}
		got <- a
	}()
	return got
}

// socketClient is a client's WebSocket.
type socketClient struct {
	t testing.TB
	*websocket.Conn
}

// dial opens a WebSocket; status is that of the answer.
func (p *pod) dial(polling string) (ws *socketClient, status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	query := strings.Replace(polling, "polling", "websocket", 1)
	conn, response, err := websocket.Dial(ctx, p.url+path+"?EIO=4&"+query, nil) //nolint:bodyclose // it is, or it is the socket
	if response != nil {
		status = response.StatusCode
	}
	if err != nil {
		return nil, status, err
	}
	conn.SetReadLimit(-1)
	p.t.Cleanup(func() { _ = conn.CloseNow() })
	return &socketClient{p.t, conn}, status, nil
}

// upgrade upgrades a session that polls nowhere at the moment.
func (p *pod) upgrade(polling string) *socketClient {
	p.t.Helper()
	ws, _, err := p.dial(polling)
	if err != nil {
		p.t.Fatalf("upgrade: %v", err)
	}
	ws.send("2probe")
	ws.want("3probe")
	ws.send("5")
	return ws
}

// connect is an upgrade by hand, with what the client says right after it.
func (p *pod) connect(sid string, early ...string) (*net.TCPConn, *bufio.Reader) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, "GET "+path+"?EIO=4&transport=websocket&sid="+sid+" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"+strings.Join(early, ""))
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil) //nolint:bodyclose // the body is the socket
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Connection") != "Upgrade" {
		p.t.Fatalf("%+v, %v", response, err)
	}
	return conn.(*net.TCPConn), in
}

func (c *socketClient) send(packets ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, packet := range packets {
		if err := c.Write(ctx, websocket.MessageText, []byte(packet)); err != nil {
			c.t.Fatalf("send %.20q: %v", packet, err)
		}
	}
}

func (c *socketClient) read() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := c.Read(ctx)
	return string(b), err
}

func (c *socketClient) want(packets ...string) {
	c.t.Helper()
	for _, packet := range packets {
		if got, err := c.read(); err != nil || got != packet {
			c.t.Fatalf("got %.40q, %v, not %.40q", got, err, packet)
		}
	}
}

// wait takes what must come.
func wait[T any](t testing.TB, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("no sign of %s", what)
	}
	return v
}

// until looks until something is so.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// numbered are packets that tell their order.
func numbered(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%d %s", prefix, i, strings.Repeat("x", i%700))
	}
	return all
}

// discard takes every metric, for relays that only make ids.
type discard struct{}

func (discard) Register(prometheus.Collector) error  { return nil }
func (discard) MustRegister(...prometheus.Collector) {}
func (discard) Unregister(prometheus.Collector) bool { return true }
