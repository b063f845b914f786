package relay

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// count counts what became of a pod's forwarded requests.
func (p *pod) count(r result) int { return int(testutil.ToFloat64(p.relay.metrics.requests[r])) }

// Every request of a session may come to another process than its owner.
func TestPolling(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	s, polling := a.begin()
	b.want("POST", polling, "4one\x1e4two", http.StatusOK, "ok")
	a.want("POST", polling, "4three", http.StatusOK, "ok")
	for _, want := range []string{"one", "two", "three"} {
		if got := wait(t, "a message", s.got); got != want {
			t.Errorf("got %q, not %q", got, want)
		}
	}
	waiting := b.pending(polling)
	b.want("POST", polling, "4echo four", http.StatusOK, "ok")
	if got := wait(t, "the poll", waiting); got.status != http.StatusOK || got.body != "4four" {
		t.Errorf("the poll: %+v", got)
	}
	large := strings.Repeat("x", 900_000)
	b.want("POST", polling, "4echo "+large, http.StatusOK, "ok")
	b.want("GET", polling, "", http.StatusOK, "4"+large)
	// The owner's refusals are the client's.
	if got := b.must("POST", polling, "4"+large+large); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too much: %d %s", got.status, got.body)
	}
	until(t, "all are counted", func() bool { return b.count(forwarded) == 6 })
	if a.count(forwarded) != 0 {
		t.Error("the owner has forwarded something")
	}
}

// What the owner looks at comes as the client sent it, and its answer as it is.
func TestHeadersAreKept(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 10)
	owner := listen(t, "127.0.0.1:0")
	serve(t, owner, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.Header().Set("Access-Control-Allow-Origin", "https://page.example")
		w.Header().Set("Keep-Alive", "timeout=1")
		w.Header().Add("Vary", "Origin")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "answer")
	}))
	b := newPod(t, Options{}, engineio.Options{Origin: engineio.Origins("*")})
	sid := New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(t), Options{}, discard{}).NewID()
	header := http.Header{
		"Origin": {"https://page.example"}, "X-Forwarded-For": {"192.0.2.1", "192.0.2.2"}, "X-Forwarded-Proto": {"https"},
		"Connection": {"X-Mine"}, "X-Mine": {"1"}, "Te": {"trailers"}, "Upgrade": {"websocket"}, "Cookie": {"a=b"}, "User-Agent": {""},
	}
	query := "transport=polling&t=a%2Fb&sid=" + url.QueryEscape(sid)
	got, err := b.ask(t.Context(), "POST", query, "4body", header)
	if err != nil || got.status != http.StatusTeapot || got.body != "answer" {
		t.Fatalf("%+v, %v", got, err)
	}
	if got.header.Get("Access-Control-Allow-Origin") != "https://page.example" || got.header.Get("Keep-Alive") != "" || len(got.header.Values("Vary")) != 1 {
		t.Errorf("the answer's header: %v", got.header)
	}
	r := wait(t, "the request", seen)
	if r.Host != strings.TrimPrefix(b.url, "http://") || r.URL.Path != path || r.URL.RawQuery != "EIO=4&"+query {
		t.Errorf("%s %s", r.Host, r.URL)
	}
	for name, want := range map[string]string{
		"Origin": "https://page.example", "X-Forwarded-For": "192.0.2.1, 192.0.2.2, 127.0.0.1", "X-Forwarded-Proto": "https",
		"Cookie": "a=b", "X-Mine": "", "Te": "", "Upgrade": "", "Connection": "", "User-Agent": "",
	} {
		if got := strings.Join(r.Header.Values(name), "|"); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	s, polling := a.begin()
	waiting := b.pending(polling)
	until(t, "the poll is forwarded", func() bool { return b.relay.Forwarded() == 1 })
	ws, _, err := b.dial(polling)
	if err != nil {
		t.Fatal(err)
	}
	ws.send("2probe")
	ws.want("3probe")
	if got := wait(t, "the poll", waiting); got.body != "6" {
		t.Errorf("the poll: %+v", got)
	}
	ws.send("5")
	// Both ways at once, in order.
	out, in := numbered("4in ", 500), numbered("out ", 500)
	go func() {
		for _, text := range in {
			for s.conn.Send(engineio.Text, []byte(text)) != nil {
				_ = s.conn.Room(context.Background())
			}
		}
	}()
	go ws.send(out...)
	for i := range in {
		ws.want("4" + in[i])
		if got := wait(t, "a message", s.got); got != out[i][1:] {
			t.Fatalf("got %q, not %q", got, out[i][1:])
		}
	}
	if a.relay.Sockets() != 0 || b.relay.Sockets() != 1 {
		t.Errorf("%d and %d sockets", a.relay.Sockets(), b.relay.Sockets())
	}
	until(t, "the socket alone is forwarded", func() bool { return a.relay.Forwarded() == 0 && b.relay.Forwarded() == 1 })
	// Polls and second upgrades are the owner's to refuse.
	if got := b.must("GET", polling, ""); got.status != http.StatusBadRequest {
		t.Errorf("a poll: %+v", got)
	}
	second, _, err := b.dial(polling)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := second.read(); err == nil {
		t.Errorf("a second upgrade: %q", got)
	}
	// The client leaves.
	_ = ws.Close(websocket.StatusNormalClosure, "")
	if reason := wait(t, "the end", s.closed); reason != engineio.TransportClose {
		t.Errorf("ended for %s", reason)
	}
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })
}

// A megabyte both ways, to who takes nothing for a while.
func TestASlowReaderLosesNothing(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{MaxQueued: 16 << 20}), newPod(t, Options{}, engineio.Options{})
	s, polling := a.begin()
	ws := b.upgrade(polling)
	texts := make([]string, 12)
	for i := range texts {
		texts[i] = strings.Repeat(string(rune('a'+i)), 1_000_000)
		if err := s.conn.Send(engineio.Text, []byte(texts[i])); err != nil {
			t.Fatal(err)
		}
	}
	ws.send("4now") // the other direction goes on
	wait(t, "a message", s.got)
	for _, text := range texts {
		ws.want("4" + text)
	}
}

// Who takes nothing for too long loses the socket.
func TestAStuckReader(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{MaxQueued: 64 << 20, WriteTimeout: time.Minute}), newPod(t, Options{WriteTimeout: 100 * time.Millisecond}, engineio.Options{})
	s, polling := a.begin()
	b.upgrade(polling)
	until(t, "the upgrade", func() bool { return s.conn.Transport() == engineio.WebSocket })
	for range 30 {
		_ = s.conn.Send(engineio.Text, make([]byte, 1_000_000)) // until it has ended
	}
	wait(t, "the end", s.closed)
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })
}

// An owner closes with a code; a client's connection breaks off.
func TestBothEndsEnd(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	s, polling := a.begin()
	ws := b.upgrade(polling)
	until(t, "the upgrade", func() bool { return s.conn.Transport() == engineio.WebSocket })
	_ = s.conn.Send(engineio.Text, []byte("last"))
	s.conn.Close(1012, "restart")
	ws.want("4last")
	if _, err := ws.read(); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the end: %v", err)
	}
	wait(t, "the end", s.closed)
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })

	for range 50 { // the end comes with a message, or soon after it
		s, polling = a.begin()
		ws = b.upgrade(polling)
		ws.send("4last")
		_ = ws.CloseNow()
		wait(t, "the end", s.closed)
	}
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })

	s, polling = a.begin()
	ws = b.upgrade(polling)
	s.conn.Abort()
	if got, err := ws.read(); err == nil {
		t.Errorf("after the end: %q", got)
	}
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })
}

func TestACancelledPollReachesTheOwner(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	s, polling := a.begin()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := b.ask(ctx, "GET", polling, "", nil)
		gone <- err
	}()
	until(t, "the poll has come", func() bool { return a.asked.Load() == 1 })
	cancel()
	wait(t, "the end of the poll", gone)
	if reason := wait(t, "the end", s.closed); reason != engineio.TransportError {
		t.Errorf("ended for %s", reason)
	}
	until(t, "it is counted", func() bool { return b.count(givenUp) == 1 })
}

func TestADeadOwner(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	_, polling := a.begin()
	_, other := a.begin()
	b.want("POST", polling, "4a", http.StatusOK, "ok") // over a connection that will wait
	poll, ws := b.pending(polling), b.upgrade(other)
	until(t, "the poll has come", func() bool { return a.asked.Load() == 3 })
	_ = a.internal.Close()
	a.stop()
	if got := wait(t, "the poll", poll); got.status == http.StatusOK {
		t.Errorf("the poll: %+v", got)
	}
	if got, err := ws.read(); err == nil {
		t.Errorf("the socket: %q", got)
	}
	b.want("GET", polling, "", http.StatusBadRequest, unknown)
	b.want("POST", polling, "4a", http.StatusBadRequest, unknown)
	if _, status, err := b.dial(other); err == nil || status != http.StatusBadRequest {
		t.Errorf("an upgrade: %v", err)
	}
	if n := b.count(unreachable); n < 3 {
		t.Errorf("%d requests met nobody", n)
	}
}

// An owner that accepts connections, and does not go on.
func TestASilentOwner(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{
		"nothing":        "",
		"half an answer": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n4ha",
		"half a header":  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: web",
	} {
		for _, cut := range []bool{false, true} {
			if name == "nothing" && cut {
				continue // as a dead owner
			}
			owner := listen(t, "127.0.0.1:0")
			t.Cleanup(func() { _ = owner.Close() })
			go func() {
				for {
					conn, err := owner.Accept()
					if err != nil {
						return
					}
					t.Cleanup(func() { _ = conn.Close() })
					go func() {
						if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
							return
						}
						_, _ = io.WriteString(conn, first)
						if cut {
							_ = conn.Close()
						}
					}()
				}
			}()
			b := newPod(t, fast, engineio.Options{})
			sid := New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(t), Options{}, discard{}).NewID()
			query := "transport=polling&sid=" + url.QueryEscape(sid)
			got, err := b.ask(t.Context(), "GET", query, "", nil)
			if err == nil && (got.status != http.StatusBadRequest || !cut) {
				t.Errorf("%s, %t: %+v", name, cut, got)
			}
			if _, status, err := b.dial(query); err == nil || status == http.StatusSwitchingProtocols {
				t.Errorf("%s, %t: upgraded: %v", name, cut, err)
			}
			until(t, "nothing is left", func() bool {
				b.relay.mu.Lock()
				defer b.relay.mu.Unlock()
				return b.relay.requests == 0 && b.relay.opening == 0
			})
		}
	}
}

// Ids that were not sealed with our key, or name what must not be asked.
func TestForeignIDs(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	_, polling := a.begin()
	sid := strings.TrimPrefix(polling, "transport=polling&sid=")
	sealer := newSealer(t)
	odd := func(address string) string {
		id := append([]byte{idVersion}, make([]byte, idRandom)...)
		return sealer.Seal(append(id, address...))
	}
	for name, sid := range map[string]string{
		"plain":           "abcdefghijklmnopqrst",
		"forged":          flip(sid[:1]) + sid[1:],
		"cut":             sid[:len(sid)-1],
		"long":            strings.Repeat("A", 9000),
		"our own":         b.relay.NewID(),
		"our own, as v6":  New(netip.AddrPortFrom(netip.AddrFrom16(b.self.Addr().As16()), b.self.Port()), sealer, Options{}, discard{}).NewID(),
		"no address":      odd(""),
		"half an address": odd("abc"),
		"port 0":          New(netip.AddrPortFrom(a.self.Addr(), 0), sealer, Options{}, discard{}).NewID(),
		"another version": sealer.Seal([]byte{9}),
		"empty":           sealer.Seal(nil),
	} {
		b.want("GET", "transport=polling&sid="+url.QueryEscape(sid), "", http.StatusBadRequest, unknown)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for r := range results {
		if n := b.count(r); n != 0 {
			t.Errorf("%d requests are counted as %d", n, r)
		}
	}
}

// flip is another letter of an id's alphabet.
func flip(letter string) string {
	if letter == "A" {
		return "B"
	}
	return "A"
}

// A process that has an owner's address now, and no other, is asked, and asks
// nobody.
func TestAnAddressOfBefore(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{}, engineio.Options{})
	_, polling := a.begin()
	a.stop()
	again := &pod{t: t, opened: make(chan *session, 10)}
	again.start(listen(t, a.self.String()), Options{}, engineio.Options{}, func(c *engineio.Conn, _ *http.Request) engineio.Handler {
		s := &session{conn: c, got: make(chan string, 10), closed: make(chan engineio.Reason, 1)}
		again.opened <- s
		return s
	})
	b.want("GET", polling, "", http.StatusBadRequest, unknown)
	if _, status, err := b.dial(polling); err == nil || status != http.StatusBadRequest {
		t.Errorf("an upgrade: %v", err)
	}
	until(t, "both are counted", func() bool { return b.count(forwarded) == 2 })
	if again.count(forwarded)+again.count(unreachable) != 0 {
		t.Error("it has asked somebody")
	}
}

// Even processes that know their own addresses wrongly forward a request once.
func TestNoLoop(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	var relays [2]*Relay
	var addresses [2]netip.AddrPort
	var public string
	for i := range relays {
		l := listen(t, "127.0.0.1:0")
		addresses[i] = netip.MustParseAddrPort(l.Addr().String())
		relays[i] = New(netip.MustParseAddrPort("192.0.2.1:81"), newSealer(t), Options{}, discard{})
		serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- l.Addr().String()
			if !relays[i].Missing(w, r, r.URL.Query().Get("sid")) {
				w.WriteHeader(http.StatusBadRequest)
			}
		}))
		public = "http://" + l.Addr().String()
	}
	for _, address := range addresses { // the one itself, and the other
		sid := New(address, newSealer(t), Options{}, discard{}).NewID()
		p := &pod{t: t, url: public}
		if got := p.must("GET", "transport=polling&sid="+sid, ""); got.status != http.StatusBadRequest {
			t.Errorf("%+v", got)
		}
		if n := len(asked); n != 2 {
			t.Errorf("%d processes were asked", n)
		}
		for len(asked) > 0 {
			<-asked
		}
	}
}

// The internal port takes what was forwarded, and nothing that begins a session.
func TestInternal(t *testing.T) {
	t.Parallel()
	a := newPod(t, Options{}, engineio.Options{})
	_, polling := a.begin()
	inside := &pod{t: t, url: "http://" + a.self.String()}
	mark := http.Header{headerForwarded: {"1"}}
	for query, header := range map[string]http.Header{"transport=polling": mark, "transport=websocket": mark, "transport=polling&sid=": mark, polling: nil} {
		if got, err := inside.ask(t.Context(), "GET", query, "", header); err != nil || got.status != http.StatusNotFound {
			t.Errorf("%s: %+v, %v", query, got, err)
		}
	}
	if got, err := inside.ask(t.Context(), "POST", polling, "4a", mark); err != nil || got.body != "ok" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{MaxRequests: 1, MaxSockets: 1}, engineio.Options{})
	_, first := a.begin()
	_, second := a.begin()
	waiting := b.pending(first)
	until(t, "the poll has come", func() bool { return a.asked.Load() == 1 })
	if got := b.must("GET", second, ""); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("too many polls: %+v", got)
	}
	ws := b.upgrade(second)
	_, third := a.begin()
	if _, status, err := b.dial(third); err == nil || status != http.StatusServiceUnavailable {
		t.Errorf("too many sockets: %v", err)
	}
	a.want("POST", first, "4echo a", http.StatusOK, "ok")
	wait(t, "the poll", waiting)
	_ = ws.Close(websocket.StatusNormalClosure, "")
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })
	b.upgrade(third).send("4a")
	if n := b.count(refused); n != 2 {
		t.Errorf("%d refused", n)
	}
}

// A process that stops closes its forwarded sockets over the window, and answers
// polls; both ends know.
func TestStop(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{Window: time.Second}, engineio.Options{})
	const n = 8
	ended := make(chan time.Time, 2*n)
	for range n {
		s, polling := a.begin()
		ws := b.upgrade(polling)
		ws.send("4echo here")
		ws.want("4here")
		go func() {
			_, _ = ws.read()
			_ = ws.CloseNow()
			ended <- time.Now()
		}()
		go func() {
			<-s.closed
			ended <- time.Now()
		}()
	}
	_, polling := a.begin()
	_, upgrading := a.begin()
	waiting := b.pending(polling)
	until(t, "the poll has come", func() bool { return a.asked.Load() == n+1 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	times := make([]time.Time, 2*n)
	for i := range times {
		times[i] = wait(t, "the end of a socket", ended)
	}
	if took := times[2*n-1].Sub(times[0]); took < 500*time.Millisecond {
		t.Errorf("all were closed within %v", took)
	}
	if _, status, err := b.dial(upgrading); err == nil || status != http.StatusServiceUnavailable {
		t.Errorf("an upgrade: %v", err)
	}
	a.want("POST", polling, "4echo last", http.StatusOK, "ok")
	if got := wait(t, "the poll", waiting); got.body != "4last" {
		t.Errorf("the poll: %+v", got)
	}
	wait(t, "the stop", stopped)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	if !b.relay.Missing(w, r, strings.TrimPrefix(upgrading, "transport=polling&sid=")) || w.Code != http.StatusServiceUnavailable {
		t.Errorf("a poll after the end: %d", w.Code)
	}
}

// What a client has sent when it hears of the end still comes to the owner, even
// if the owner goes on speaking.
func TestStopHearsTheClientOut(t *testing.T) {
	t.Parallel()
	owner := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { _ = owner.Close() })
	heard, deaf, said := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	go upgraded(owner, func(conn net.Conn, in *bufio.Reader) {
		<-deaf
		_, err := conn.Write(make([]byte, 32<<20)) // more than anybody keeps
		said <- err
		b, _ := io.ReadAll(in)
		heard <- string(b)
	})
	b := newPod(t, Options{CloseTimeout: patience}, engineio.Options{})
	conn, in := b.connect(New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(t), Options{}, discard{}).NewID())
	_, _ = io.WriteString(conn, "before")
	go b.relay.Stop(context.Background())
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(in); err != nil || len(got) != 0 {
		t.Errorf("the client got %q, %v", got, err)
	}
	close(deaf)
	if err := wait(t, "what the owner says", said); err != nil {
		t.Errorf("the owner: %v", err)
	}
	_, _ = io.WriteString(conn, ", after")
	_ = conn.Close()
	if got := wait(t, "the client's bytes", heard); got != "before, after" {
		t.Errorf("the owner got %q", got)
	}
}

// upgraded answers upgrades by hand.
func upgraded(owner net.Listener, then func(conn net.Conn, in *bufio.Reader)) {
	for {
		conn, err := owner.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			in := bufio.NewReader(conn)
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			then(conn, in)
		}()
	}
}

// A side does not outlive the other for long, even if it has not noticed.
func TestNoSideOutlivesTheOther(t *testing.T) {
	t.Parallel()
	owner := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { _ = owner.Close() })
	asked, end := make(chan struct{}, 2), make(chan struct{})
	go upgraded(owner, func(_ net.Conn, _ *bufio.Reader) {
		asked <- struct{}{}
		<-end
	})
	b := newPod(t, Options{CloseTimeout: 50 * time.Millisecond}, engineio.Options{})
	sid := New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(t), Options{}, discard{}).NewID()
	first, _ := b.connect(sid)
	wait(t, "the upgrade", asked)
	_ = first.Close()
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 }) // while its owner waits
	second, in := b.connect(sid)
	wait(t, "the upgrade", asked)
	close(end)
	_ = second.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(in); err != nil || len(got) != 0 {
		t.Errorf("the client got %q, %v", got, err)
	}
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 }) // while its client does
}

// When there is no more time, everything ends.
func TestStopInAHurry(t *testing.T) {
	t.Parallel()
	a, b := newPod(t, Options{}, engineio.Options{}), newPod(t, Options{Window: time.Hour}, engineio.Options{})
	s, polling := a.begin()
	ws := b.upgrade(polling)
	other := b.upgrade(func() string { _, polling := a.begin(); return polling }())
	_, polling = a.begin()
	waiting := b.pending(polling)
	until(t, "the poll has come", func() bool { return a.asked.Load() == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.relay.Stop(ctx); err == nil {
		t.Error("it says that it had the time")
	}
	wait(t, "the poll", waiting)
	wait(t, "the end", s.closed)
	for _, each := range []*socketClient{ws, other} {
		if got, err := each.read(); err == nil {
			t.Errorf("the socket: %q", got)
		}
	}
}

// What a client says before it knows of the 101, and an owner right with it, is
// lost nowhere.
func TestEarlyBytes(t *testing.T) {
	t.Parallel()
	owner := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { _ = owner.Close() })
	heard := make(chan string, 1)
	go func() {
		conn, err := owner.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nearly")
		b, _ := io.ReadAll(in)
		heard <- string(b)
		_, _ = io.WriteString(conn, " and late")
	}()
	b := newPod(t, Options{}, engineio.Options{})
	sid := New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(t), Options{}, discard{}).NewID()
	conn, in := b.connect(sid, "mine")
	_, _ = io.WriteString(conn, " too")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, "the client's bytes", heard); got != "mine too" {
		t.Errorf("the owner got %q", got)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(in); err != nil || string(got) != "early and late" {
		t.Errorf("the client got %q, %v", got, err)
	}
	until(t, "the socket is gone", func() bool { return b.relay.Sockets() == 0 })
}
