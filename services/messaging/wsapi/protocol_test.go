package wsapi_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

func TestHelloComesFirst(t *testing.T) {
	t.Parallel()
	pod := newWorld(t).newPod(podOptions{socket: wsapi.Options{ResumeTTL: time.Hour}})
	c := pod.dial(t)
	go c.read()
	hello := c.waitEvents("hello", 1)[0]
	if hello.PingMS != 25_000 || hello.MaxPayload != 65_536 || hello.ResumeTTLS != 3600 {
		t.Errorf("hello %+v", hello)
	}
}

func TestMistakesAreRefusedAndTheSocketStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p, other := w.Open(), w.Open()
	c := pod.dial(t)
	go c.read()
	c.wantRefused(sendFields(p, uuid.New(), "too early"), "unauthenticated")
	c.wantRefused(map[string]any{"op": "auth", "token": "nonsense"}, "token_invalid")
	if r := c.auth(w.Tokens.Issue(t, p.Client, uuid.New()), "no cursor at all"); r.OK == nil || *r.OK.Recovered {
		t.Fatalf("a bad cursor: %+v %+v", r.OK, r.Error)
	}
	c.wantRefused(map[string]any{"op": "shout"}, "unknown_op")
	withField := sendFields(p, uuid.New(), "x")
	withField["priority"] = 1
	c.wantRefused(withField, "unknown_field")
	c.wantRefused(map[string]any{"op": "send", "conversation_id": p.Conversation, "client_id": uuid.New(), "body": "text"}, "body_invalid")
	c.wantRefused(map[string]any{"op": "send", "conversation_id": p.Conversation, "client_id": uuid.Nil, "body": map[string]int{"a": 1}}, "client_id_invalid")
	c.wantRefused(sendFields(p, uuid.New(), strings.Repeat("x", messaging.MaxBody)), "body_too_large")
	c.wantRefused(sendFields(other, uuid.New(), "not a member"), "conversation_not_found")
	c.wantRefused(sendFields(pair{Conversation: uuid.New()}, uuid.New(), "nowhere"), "conversation_not_found")
	c.wantRefused(map[string]any{"op": "read", "conversation_id": other.Conversation, "seq": 1}, "conversation_not_found")
	c.wantRefused(map[string]any{"op": "read", "conversation_id": p.Conversation, "seq": 1}, "seq_unknown")
	c.wantRefused(map[string]any{"op": "typing", "conversation_id": other.Conversation}, "conversation_not_found")
	if r := c.send(p, "after all"); r.OK.Seq != 1 {
		t.Errorf("seq %d", r.OK.Seq)
	}
}

func TestWhatCannotBeReadClosesTheSocket(t *testing.T) {
	t.Parallel()
	pod := newWorld(t).newPod(podOptions{})
	tests := map[string]struct {
		kind  websocket.MessageType
		frame string
		want  int
	}{
		"malformed JSON": {websocket.MessageText, `{"op":`, wsapi.CodeMalformed},
		"not an object":  {websocket.MessageText, `7`, wsapi.CodeMalformed},
		"binary":         {websocket.MessageBinary, `{"op":"auth"}`, wsapi.CodeMalformed},
		"not UTF-8":      {websocket.MessageText, "{\"op\":\"\xff\"}", wsapi.CodeMalformed},
		"oversize":       {websocket.MessageText, `{"op":"` + strings.Repeat("x", 1<<20) + `"}`, wsapi.CodeTooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := pod.dial(t)
			go c.read()
			if err := c.ws.Write(t.Context(), tt.kind, []byte(tt.frame)); err != nil {
				t.Fatal(err)
			}
			c.wantClose(tt.want)
		})
	}
}

func TestUpgradesAreCheckedFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{hub: hub.Options{MaxLinks: 1}, socket: wsapi.Options{AllowedOrigins: []string{"https://app.example.com"}}})
	occupied := pod.dial(t)
	go occupied.read()
	tests := map[string]struct {
		change func(*http.Request)
		want   string
	}{
		"not an upgrade":    {func(r *http.Request) { r.Header.Del("Upgrade") }, "400 upgrade_required"},
		"no subprotocol":    {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Protocol") }, "400 subprotocol_required"},
		"other subprotocol": {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "mqtt") }, "400 subprotocol_required"},
		"foreign origin":    {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example.com") }, "403 origin_not_allowed"},
		"no room":           {func(r *http.Request) { r.Header.Set("Origin", "https://app.example.com") }, "503 too_many_connections"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := pod.status(t, tt.change); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("no auth", func(t *testing.T) {
		pod := w.newPod(podOptions{socket: wsapi.Options{AuthTimeout: 50 * time.Millisecond}})
		c := pod.dial(t)
		go c.read()
		c.wantClose(wsapi.CodeAuthTimeout)
	})
	t.Run("no pong", func(t *testing.T) {
		pod := w.newPod(podOptions{socket: wsapi.Options{PingInterval: 50 * time.Millisecond, PingTimeout: time.Second}})
		// Who does not read does not answer pings, either.
		c := pod.connectDeaf(t, uuid.New())
		podtest.WaitUntil(t, "the connection is gone", func() bool { return pod.Hub.Load().Live == 0 })
		go c.read()
		c.wantClose(wsapi.CodePingTimeout)
	})
}

// connectDeaf authenticates a socket that reads nothing afterwards.
func (p *pod) connectDeaf(t testing.TB, user uuid.UUID) *peer {
	t.Helper()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(64 << 10) // the kernel would read megabytes for it
		}
		return conn, err
	}
	c := p.dialBy(t, &http.Client{Transport: &http.Transport{DialContext: dial}})
	if err := c.write(`{"id":1,"op":"auth","token":"` + p.w.Tokens.Issue(t, user, uuid.New()) + `"}`); err != nil {
		t.Fatal(err)
	}
	// What is sent before it has its answer may be before its place in the stream.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, frame, err := c.ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(frame), `"re":1`) {
			return c
		}
	}
}

func TestACommandRateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: wsapi.Options{Door: door.Options{Rate: messaging.Rate{PerSecond: 0.001, Burst: 3}}}})
	p := w.Open()
	c := pod.connect(t, p.Client, "")
	c.send(p, "one")
	c.send(p, "two")
	r := c.wantRefused(sendFields(p, uuid.New(), "three"), "rate_limited")
	if !r.Error.Temporary || r.Error.RetryMS == 0 {
		t.Errorf("refused with %+v", r.Error)
	}
}

func TestASocketRenewsItsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	c := pod.connect(t, p.Client, "")
	next := uuid.New()
	r := c.auth(w.Tokens.Issue(t, p.Client, next), "")
	if r.OK == nil || r.OK.Session != next || r.OK.Cursor != "" {
		t.Fatalf("renewed: %+v %+v", r.OK, r.Error)
	}
	c.wantRefused(map[string]any{"op": "auth", "token": w.Tokens.Issue(t, p.Client, next), "cursor": "x"}, "cursor_not_wanted")
	c.wantRefused(map[string]any{"op": "auth", "token": w.Tokens.Issue(t, p.Tasker, uuid.New())}, "other_user")
	pod.Hub.EndSession(next)
	c.wantClose(wsapi.CodeSessionEnded)
}

// The end of a session that comes between the verification of its token and its
// socket's binding finds no socket to close.
func TestASessionThatEndsDuringAuthClosesItsSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ending := uuid.New()
	pod := w.newPod(podOptions{endsMeanwhile: ending})
	user := uuid.New()
	first := pod.dial(t)
	go first.read()
	renewing := pod.connect(t, user, "")
	for _, c := range []*peer{first, renewing} {
		if err := c.write(fmt.Sprintf(`{"id":9,"op":"auth","token":%q}`, w.Tokens.Issue(t, user, ending))); err != nil {
			t.Fatal(err)
		}
		c.wantClose(wsapi.CodeSessionEnded)
	}
}

func TestASessionThatEndsClosesItsSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	user, session := uuid.New(), uuid.New()
	bystander := pod.connect(t, user, "")
	c := pod.dial(t)
	go c.read()
	c.auth(w.Tokens.Issue(t, user, session), "")
	w.Tokens.Revocations.Revoke(session, time.Now())
	pod.Hub.EndSession(session)
	if e := c.waitEvents("session", 1)[0]; e.Event != "ended" || e.Cursor != "" {
		t.Errorf("event %+v", e)
	}
	c.wantClose(wsapi.CodeSessionEnded)

	late := pod.dial(t)
	go late.read()
	late.wantRefused(map[string]any{"op": "auth", "token": w.Tokens.Issue(t, user, session)}, "session_ended")
	bystander.call(map[string]any{"op": "auth", "token": w.Tokens.Issue(t, user, uuid.New())})
}

func TestConnectionsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	pod.connect(t, p.Client, "").send(p, "warm")
	for i := range 60 {
		c := pod.connect(t, p.Tasker, "")
		c.send(p, "hello")
		switch i % 3 {
		case 0:
			_ = c.ws.CloseNow()
		case 1:
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
		case 2:
			_ = c.write("{")
			c.wantClose(wsapi.CodeMalformed)
		}
	}
	podtest.WaitUntil(t, "only the first connection is left", func() bool {
		load := pod.Hub.Load()
		return load.Live == 1 && load.Pending == 0
	})
	pod.stop()
	if load := pod.Hub.Load(); load.Live+load.Pending+load.Draining != 0 || !load.Stopping {
		t.Errorf("load %+v", load)
	}
}
