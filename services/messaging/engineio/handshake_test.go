package engineio

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// Section "Handshake": the packet "open" holds these five, and nothing else.
func TestHandshake(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{PingInterval: 25 * time.Second, PingTimeout: 1500 * time.Millisecond}, note)
	check := func(packet string, upgrades []any) {
		t.Helper()
		var open map[string]any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(packet, "0")), &open); err != nil || packet[0] != '0' {
			t.Fatalf("%q: %v", packet, err)
		}
		if got, want := slices.Sorted(maps.Keys(open)), []string{"maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"}; !slices.Equal(got, want) {
			t.Errorf("keys %q, want %q", got, want)
		}
		if id, err := base64.RawURLEncoding.DecodeString(open["sid"].(string)); err != nil || len(id) != 20 {
			t.Errorf("sid %v", open["sid"])
		}
		if got := open["upgrades"].([]any); !slices.Equal(got, upgrades) {
			t.Errorf("upgrades %v, want %v", got, upgrades)
		}
		if open["pingInterval"] != 25_000.0 || open["pingTimeout"] != 1500.0 || open["maxPayload"] != 1_000_000.0 {
			t.Errorf("got %v", open)
		}
	}
	a := h.request(http.MethodGet, newPolling+"&t=abc", "")
	check(a.body, []any{"websocket"})
	if rec := wait(t, "the session", h.opened); rec.conn.Transport() != Polling {
		t.Errorf("transport %s", rec.conn.Transport())
	}
	_, text, err := h.mustDial(newWebSocket).read()
	if err != nil {
		t.Fatal(err)
	}
	check(text, nil)
	if rec := wait(t, "the session", h.opened); rec.conn.Transport() != WebSocket {
		t.Errorf("transport %s", rec.conn.Transport())
	}
	if stats := h.server.Stats(); stats.Sessions[Polling] != 1 || stats.Sessions[WebSocket] != 1 || stats.Opened[Polling] != 1 || stats.Opened[WebSocket] != 1 {
		t.Errorf("%+v", stats)
	}
}

// ask sends a request as it is, a WebSocket's handshake if it is asked for.
func (h *harness) ask(method, query string, upgrade bool) answer {
	h.t.Helper()
	header := http.Header{}
	if upgrade {
		for name, value := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			header.Set(name, value)
		}
	}
	a, err := h.do(h.ctx, method, query, nil, header)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// Sections "HTTP long-polling", "WebSocket" and "Handshake": with what earned the code set
// right, and all else as it was, the request succeeds.
func TestErrorCodesAndTheirNextOfKin(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{Refuse: func(r *http.Request) *Refusal {
		if r.URL.Query().Get("please") == "" {
			return &Refusal{}
		}
		return nil
	}}, note)
	const please = "&please=1"
	a := h.request(http.MethodGet, newPolling+please, "")
	c := h.begin(a.body)
	type request struct {
		method, query string
		upgrade       bool
	}
	for code, tt := range map[Code]struct{ wrong, right request }{
		CodeUnknownTransport:   {request{query: "EIO=4&transport=abc" + please}, request{query: "EIO=4&transport=polling" + please}},
		CodeUnknownSession:     {request{query: newWebSocket + "&sid=x" + c.sid, upgrade: true}, request{query: newWebSocket + "&sid=" + c.sid, upgrade: true}},
		CodeBadHandshakeMethod: {request{method: http.MethodPut, query: newPolling + please}, request{method: http.MethodGet, query: newPolling + please}},
		CodeBadRequest:         {request{query: newWebSocket + please}, request{query: newWebSocket + please, upgrade: true}},
		CodeForbidden:          {request{query: newPolling}, request{query: newPolling + please}},
		CodeUnsupportedVersion: {request{query: "EIO=3&transport=polling" + please}, request{query: "EIO=4&transport=polling" + please}},
	} {
		status := http.StatusBadRequest
		if code == CodeForbidden {
			status = http.StatusForbidden
		}
		wantError(t, h.ask(tt.wrong.method, tt.wrong.query, tt.wrong.upgrade), status, code)
		if tt.right.upgrade {
			ws, got, err := h.dial(tt.right.query, nil)
			if err != nil {
				t.Errorf("code %d, set right: status %d, %v", code, got, err)
				continue
			}
			_ = ws.CloseNow()
		} else if got := h.ask(tt.right.method, tt.right.query, false); got.status != http.StatusOK {
			t.Errorf("code %d, set right: %+v", code, got)
		}
	}
}

// Sections "HTTP long-polling" and "WebSocket": a request that is wrong in one way is
// answered with that code.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, note)
	polling := h.poll()
	onWebSocket, socket := h.connect()
	tests := map[string]struct {
		method, query string
		upgrade       bool
		wantCode      Code
	}{
		"no transport":                {query: "EIO=4", wantCode: CodeUnknownTransport},
		"an unknown transport":        {query: "EIO=4&transport=abc", wantCode: CodeUnknownTransport},
		"webtransport":                {query: "EIO=4&transport=webtransport", wantCode: CodeUnknownTransport},
		"transport before all":        {method: "PUT", query: "EIO=3&transport=abc&sid=x", wantCode: CodeUnknownTransport},
		"no transport on WebSocket":   {query: "EIO=4", upgrade: true, wantCode: CodeUnknownTransport},
		"an unknown session":          {query: newPolling + "&sid=abc", wantCode: CodeUnknownSession},
		"an unknown session, POST":    {method: "POST", query: newPolling + "&sid=abc", wantCode: CodeUnknownSession},
		"an unknown session, upgrade": {query: newWebSocket + "&sid=abc", upgrade: true, wantCode: CodeUnknownSession},
		"POST for a handshake":        {method: "POST", query: newPolling, wantCode: CodeBadHandshakeMethod},
		"PUT for a handshake":         {method: "PUT", query: newPolling, wantCode: CodeBadHandshakeMethod},
		"OPTIONS for a handshake":     {method: "OPTIONS", query: newPolling, wantCode: CodeBadHandshakeMethod},
		"websocket without upgrade":   {query: newWebSocket, wantCode: CodeBadRequest},
		"polling with an upgrade":     {query: newPolling, upgrade: true, wantCode: CodeBadRequest},
		"JSONP":                       {query: newPolling + "&j=0", wantCode: CodeBadRequest},
		"no version":                  {query: "transport=polling", wantCode: CodeUnsupportedVersion},
		"version 3":                   {query: "EIO=3&transport=polling", wantCode: CodeUnsupportedVersion},
		"no number":                   {query: "EIO=abc&transport=polling", wantCode: CodeUnsupportedVersion},
		"version 3 on WebSocket":      {query: "EIO=3&transport=websocket", upgrade: true, wantCode: CodeUnsupportedVersion},
		"version 5":                   {query: "EIO=5&transport=polling", wantCode: CodeUnsupportedVersion},

		"another version in a session": {query: "EIO=3&transport=polling&sid=" + polling.sid, wantCode: CodeBadRequest},
		"another method in a session":  {method: "PUT", query: polling.query(Polling), wantCode: CodeBadRequest},
		"JSONP in a session":           {query: polling.query(Polling) + "&j=1", wantCode: CodeBadRequest},
		"websocket, no upgrade, with":  {query: polling.query(WebSocket), wantCode: CodeBadRequest},
		"polling on a WebSocket":       {query: onWebSocket.query(Polling), wantCode: CodeBadRequest},
		"POST on a WebSocket":          {method: "POST", query: onWebSocket.query(Polling), wantCode: CodeBadRequest},
		"a poll that is an upgrade":    {query: polling.query(Polling), upgrade: true, wantCode: CodeBadRequest},
	}
	want := map[Code]int64{}
	for name, tt := range tests {
		a := h.ask(tt.method, tt.query, tt.upgrade)
		var e struct{ Message string }
		wantError(t, a, http.StatusBadRequest, tt.wantCode)
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || !strings.HasPrefix(name, "JSONP") && e.Message != tt.wantCode.String() {
			t.Errorf("%s: %q, want %q", name, a.body, tt.wantCode)
		}
		if t.Failed() {
			t.Fatalf("that was: %s", name)
		}
		want[tt.wantCode]++
	}
	for code, n := range h.server.Stats().Refused {
		if n != want[code] {
			t.Errorf("%d requests are counted for code %d, %d were refused", n, code, want[code])
		}
	}
	// The sessions are as they were.
	wantOK(t, polling.post("4hello"), "ok")
	polling.wantGot("MessageText hello")
	socket.send("4hello")
	onWebSocket.wantGot("MessageText hello")
}

// A WebSocket's handshake (RFC 6455, section 4.2.1) that is wrong is a bad request like
// others, and counted.
func TestHandshakesOfWebSockets(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{Origin: Origins("https://shop.example")}, note)
	c := h.poll()
	right := http.Header{
		"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		"Origin": {"https://shop.example"},
	}
	n := int64(0)
	for name, value := range map[string]string{"Connection": "keep-alive", "Sec-Websocket-Version": "8", "Sec-Websocket-Key": "c2hvcnQ="} {
		for _, query := range []string{newWebSocket, c.query(WebSocket)} {
			header := maps.Clone(right)
			header[name] = []string{value}
			a, err := h.do(h.ctx, "GET", query, nil, header)
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, a, http.StatusBadRequest, CodeBadRequest)
			if a.header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
				t.Errorf("%s: the page cannot read why", name)
			}
			if n++; h.server.Stats().Refused[CodeBadRequest] != n {
				t.Errorf("%s: it is not counted", name)
			}
		}
	}
	for _, query := range []string{newWebSocket, c.query(WebSocket)} {
		ws, _, err := h.dial(query, http.Header{"Origin": right["Origin"]})
		if err != nil {
			t.Fatal(err)
		}
		_ = ws.CloseNow()
	}
}

// Two servers behind one address: what one doesn't hold, it forwards to the other, as
// its program says.
func TestForwardedSessions(t *testing.T) {
	t.Parallel()
	owner := newHarness(t, Options{}, echo)
	target, err := url.Parse(owner.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
		r.Out.Host = r.In.Host
	}}
	front := newHarness(t, Options{Missing: func(w http.ResponseWriter, r *http.Request, sid string) bool {
		if owner.server.find(sid) == nil {
			return false
		}
		proxy.ServeHTTP(w, r)
		return true
	}}, note)
	begin := func() *client { // at its owner; and all else is asked of the other
		c := owner.poll()
		elsewhere := *c.harness
		elsewhere.url, elsewhere.client = front.url, front.client
		c.harness = &elsewhere
		return c
	}
	page := http.Header{"Origin": {strings.TrimSuffix(front.url, "/engine.io/")}} // of the same host
	c := begin()
	waiting := c.getWaiting()
	a, err := c.do(c.ctx, "POST", c.query(Polling), strings.NewReader("4a"), page)
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, a, "ok")
	wantOK(t, wait(t, "the poll", waiting), "4a")
	waiting = c.getWaiting()
	ws, _, err := c.dial(c.query(WebSocket), page)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	s := &socketClient{t, ws}
	s.send("2probe")
	s.want("3probe")
	wantOK(t, wait(t, "the noop", waiting), "6")
	s.send("5", "4b")
	s.want("4b")
	c.rec.conn.Close(closeRestart, "restart")
	s.wantClose(closeRestart)
	c.wantGone(ForcedClose)

	c = begin() // a poll that is given up
	ctx, cancel := context.WithCancel(c.ctx)
	gone := make(chan error, 1)
	go func() {
		_, err := c.do(ctx, "GET", c.query(Polling), nil, nil)
		gone <- err
	}()
	c.until("the poll waits", func(conn *Conn) bool { return conn.polling.waiting != nil })
	cancel()
	<-gone
	c.wantGone(TransportError)
}

// Code 4 is the program's: it may refuse sessions, and only those.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		refusal    Refusal
		wantStatus int
		wantRetry  string
		wantText   string
	}{
		"by default": {refusal: Refusal{}, wantStatus: http.StatusForbidden, wantText: "Forbidden"},
		"in its own words": {
			refusal:    Refusal{Status: http.StatusTooManyRequests, Message: "Too many sessions from this address", RetryAfter: 1500 * time.Millisecond},
			wantStatus: http.StatusTooManyRequests, wantRetry: "2", wantText: "Too many sessions from this address",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, Options{Refuse: func(r *http.Request) *Refusal {
				if r.URL.Query().Has("please") {
					return nil
				}
				return &tt.refusal
			}}, note)
			for _, a := range []answer{h.ask("GET", newPolling, false), h.ask("GET", newWebSocket, true)} {
				wantError(t, a, tt.wantStatus, CodeForbidden)
				if got := a.header.Get("Retry-After"); got != tt.wantRetry || !strings.Contains(a.body, tt.wantText) {
					t.Errorf("retry after %q: %s", got, a.body)
				}
			}
			a := h.request("GET", newPolling+"&please=1", "")
			h.begin(a.body).upgrade() // nobody is asked again
			h.connectWith(newWebSocket + "&please=1")
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{MaxSessions: 2}, note)
	first, _ := h.connect()
	second := h.poll()
	for _, a := range []answer{h.ask("GET", newPolling, false), h.ask("GET", newWebSocket, true)} {
		wantError(t, a, http.StatusServiceUnavailable, CodeForbidden)
		if a.header.Get("Retry-After") == "" {
			t.Error("it doesn't say when to come back")
		}
	}
	second.upgrade()
	first.rec.conn.Abort()
	wait(t, "the end", first.rec.closed)
	h.poll()
	wantError(t, h.ask("GET", newPolling, false), http.StatusServiceUnavailable, CodeForbidden)
	second.rec.conn.Abort()
	wait(t, "the end", second.rec.closed)
	if a := h.ask("GET", newWebSocket+"&sid=", false); a.status != http.StatusBadRequest { // it takes no place
		t.Errorf("%+v", a)
	}
	h.connect()
}

// Section "Transports": a server offers what it likes.
func TestTransportsAreOptions(t *testing.T) {
	t.Parallel()
	t.Run("polling", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, Options{Transports: []Transport{Polling}}, note)
		if a := h.request("GET", newPolling, ""); !strings.Contains(a.body, `"upgrades":[]`) {
			t.Errorf("%q", a.body)
		}
		rec := wait(t, "the session", h.opened)
		wantError(t, h.ask("GET", newWebSocket, true), http.StatusBadRequest, CodeUnknownTransport)
		wantError(t, h.ask("GET", newWebSocket+"&sid="+rec.conn.ID(), true), http.StatusBadRequest, CodeBadRequest)
	})
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, Options{Transports: []Transport{WebSocket}}, note)
		h.connect()
		wantError(t, h.ask("GET", newPolling, false), http.StatusBadRequest, CodeUnknownTransport)
	})
	t.Run("no upgrades", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, Options{NoUpgrades: true}, note)
		h.connect()
		if a := h.request("GET", newPolling, ""); !strings.Contains(a.body, `"upgrades":[]`) {
			t.Errorf("%q", a.body)
		}
		rec := wait(t, "the session", h.opened)
		wantError(t, h.ask("GET", newWebSocket+"&sid="+rec.conn.ID(), true), http.StatusBadRequest, CodeBadRequest)
	})
}

// A session may be elsewhere: it is asked for before it is unknown, and only if it is
// not here.
func TestMissingSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{
		NewID: func() string { return "here" },
		Missing: func(w http.ResponseWriter, r *http.Request, sid string) bool {
			if sid != "elsewhere" {
				return false
			}
			w.Header().Set("X-Method", r.Method)
			w.WriteHeader(http.StatusTeapot)
			return true
		},
	}, note)
	c := h.poll()
	if c.sid != "here" {
		t.Errorf("the id is %q", c.sid)
	}
	for _, method := range []string{"GET", "POST"} {
		if a := h.ask(method, newPolling+"&sid=elsewhere", false); a.status != http.StatusTeapot || a.header.Get("X-Method") != method || len(a.header["Vary"]) != 0 {
			t.Errorf("%s: %+v", method, a)
		}
		wantError(t, h.ask(method, newPolling+"&sid=nowhere", false), http.StatusBadRequest, CodeUnknownSession)
	}
	if a := h.ask("GET", newWebSocket+"&sid=elsewhere", true); a.status != http.StatusTeapot {
		t.Errorf("%+v", a)
	}
	wantOK(t, c.post("4hello"), "ok")
	c.rec.conn.Abort()
	c.wantGone(ForcedClose)
}

// What the program sends when a session begins comes with the handshake, and after it.
func TestAProgramSpeaksFirst(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, note)
	h.begun = func(rec *recorder, r *http.Request) {
		_ = rec.conn.Send(Text, []byte(r.URL.Query().Get("name")))
		switch r.URL.Query().Get("then") {
		case "close":
			rec.conn.Close(closeRestart, "restart")
		case "abort":
			rec.conn.Abort()
		}
	}
	end := func() {
		t.Helper()
		rec := wait(t, "the session", h.opened)
		if got := wait(t, "the end", rec.closed); got.reason != ForcedClose {
			t.Errorf("ended with %+v", got)
		}
	}
	if got := packets(h.request("GET", newPolling+"&name=you", "").body); len(got) != 2 || got[1] != "4you" {
		t.Errorf("got %q", got)
	}
	<-h.opened
	_, s := h.connectWith(newWebSocket + "&name=you")
	s.want("4you")

	if got := packets(h.request("GET", newPolling+"&name=you&then=close", "").body); len(got) != 3 || got[1] != "4you" || got[2] != "1" {
		t.Errorf("got %q", got)
	}
	end()
	s = h.mustDial(newWebSocket + "&name=you&then=close")
	if _, open, err := s.read(); err != nil || open[0] != '0' {
		t.Errorf("got %q, %v", open, err)
	}
	s.want("4you")
	s.wantClose(closeRestart)
	end()

	wantError(t, h.request("GET", newPolling+"&then=abort", ""), http.StatusBadRequest, CodeUnknownSession)
	end()
	if ws, _, err := h.dial(newWebSocket+"&then=abort", nil); err == nil {
		_, _, err = ws.Read(h.ctx)
		for err == nil { // what was sent before
			_, _, err = ws.Read(h.ctx)
		}
		_ = ws.CloseNow()
	}
	end()
}

// Browsers tell where a page comes from; who may not speak to us is told so, on every
// transport, and who may, may read the answer, errors, too.
func TestOrigins(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{Origin: Origins("https://shop.example", "null")}, note)
	own := strings.TrimSuffix(h.url, "/engine.io/")
	ask := func(method, query, origin string, more http.Header) answer {
		t.Helper()
		header := http.Header{}
		maps.Copy(header, more)
		if origin != "" {
			header.Set("Origin", origin)
		}
		a, err := h.do(h.ctx, method, query, nil, header)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(a.header["Vary"], "Origin") {
			t.Errorf("vary: %q", a.header["Vary"])
		}
		return a
	}
	readable := func(a answer, origin string) {
		t.Helper()
		credentials := "true"
		if origin == "" {
			credentials = ""
		}
		if got := a.header.Get("Access-Control-Allow-Origin"); got != origin || a.header.Get("Access-Control-Allow-Credentials") != credentials {
			t.Errorf("allows %q, with credentials: %q; want %q", got, a.header.Get("Access-Control-Allow-Credentials"), origin)
		}
	}
	wanted := http.Header{"Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type,x-mine"}}
	for _, origin := range []string{"https://shop.example", "null", own, ""} {
		a := ask("GET", newPolling, origin, nil)
		if a.status != http.StatusOK {
			t.Errorf("%q: %+v", origin, a)
		}
		readable(a, origin)
		c := h.begin(a.body)
		a = ask("POST", c.query(Polling), origin, nil) // which is empty
		wantError(t, a, http.StatusBadRequest, CodeBadRequest)
		readable(a, origin)
		a = ask("GET", c.query(Polling), origin, nil)
		wantError(t, a, http.StatusBadRequest, CodeUnknownSession)
		readable(a, origin)

		a = ask("OPTIONS", newPolling, origin, wanted)
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Methods") != "GET, POST" ||
			a.header.Get("Access-Control-Allow-Headers") != "content-type,x-mine" || a.header.Get("Access-Control-Max-Age") == "" {
			t.Errorf("preflight: %+v", a)
		}
		readable(a, origin)

		ws, _, err := h.dial(newWebSocket, http.Header{"Origin": {origin}})
		if err != nil {
			t.Fatalf("%q: %v", origin, err)
		}
		_ = ws.CloseNow()
		<-h.opened
	}
	c := h.poll()
	for _, origin := range []string{"https://evil.example", "http://shop.example", "https://shop.example.evil.example", "https://shop.example:8443", "evil", "*"} {
		for _, a := range []answer{
			ask("GET", newPolling, origin, nil), ask("POST", c.query(Polling), origin, nil), ask("OPTIONS", newPolling, origin, wanted),
		} {
			wantError(t, a, http.StatusForbidden, CodeForbidden)
			readable(a, "")
		}
		if _, status, err := h.dial(newWebSocket, http.Header{"Origin": {origin}}); err == nil || status != http.StatusForbidden {
			t.Errorf("%q opens a WebSocket: %v", origin, err)
		}
		if _, status, err := h.dial(c.query(WebSocket), http.Header{"Origin": {origin}}); err == nil || status != http.StatusForbidden {
			t.Errorf("%q upgrades: %v", origin, err)
		}
	}
	wantOK(t, c.post("4still here"), "ok")

	nobody := newHarness(t, Options{}, note) // without the option
	a, err := nobody.do(h.ctx, "GET", newPolling, nil, http.Header{"Origin": {"https://shop.example"}})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, a, http.StatusForbidden, CodeForbidden)
	everybody := newHarness(t, Options{Origin: Origins("*")}, note)
	a, err = everybody.do(h.ctx, "GET", newPolling, nil, http.Header{"Origin": {"https://shop.example"}})
	if err != nil {
		t.Fatal(err)
	}
	readable(a, "https://shop.example")
}
