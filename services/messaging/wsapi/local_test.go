package wsapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

// local is a server without a database and a bus, whose sends a test answers.
type local struct {
	messaging.Store // nil: what is not overridden is not called

	t        *testing.T
	hub      *hub.Hub
	sockets  *wsapi.Server
	server   *httptest.Server
	messages []messaging.Message // of every conversation, newest first

	mu         sync.Mutex
	changed    chan struct{} // closed when there are more sends
	sends      []heldSend
	open, most int // sends that have no answer, now and at most
}

type heldSend struct {
	draft  messaging.Draft
	answer func(messaging.Sent, error)
}

func newLocal(t *testing.T, options wsapi.Options) *local {
	t.Helper()
	l := &local{t: t, changed: make(chan struct{})}
	log, registry := testkit.Logger(t), prometheus.NewRegistry()
	l.hub = hub.New(emptyStreams{}, noBus{}, hub.Options{}, log, registry)
	if options.Door.Rate == (messaging.Rate{}) {
		options.Door.Rate = fast
	}
	options.Door.Metrics = door.NewMetrics(registry)
	service := messaging.NewService(l, l, l.hub, fast, time.Now)
	l.sockets = wsapi.NewServer(service, l.hub, believer{}, options, log, registry)
	if err := errors.Join(l.hub.Start(t.Context()), l.sockets.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	l.server = httptest.NewServer(l.sockets)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(l.hub.Stop(ctx), l.sockets.Stop(ctx)); err != nil {
			t.Errorf("stop: %v", err)
		}
		l.server.Close()
	})
	return l
}

// Send implements messaging.Sender: it holds the draft until a test answers.
func (l *local) Send(draft messaging.Draft, answer func(messaging.Sent, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	l.most = max(l.most, l.open)
	l.sends = append(l.sends, heldSend{draft, func(sent messaging.Sent, err error) {
		l.mu.Lock()
		l.open-- // before the answer, which lets more come
		l.mu.Unlock()
		answer(sent, err)
	}})
	close(l.changed)
	l.changed = make(chan struct{})
}

// held waits until n sends are held, and returns them.
func (l *local) held(n int) []heldSend {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		held, changed := l.sends, l.changed
		l.mu.Unlock()
		if len(held) >= n {
			return held
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("%d sends, want %d", len(held), n)
		}
	}
}

// local is a messaging.Store in which everybody is a member of everything.

func (l *local) Head(context.Context, uuid.UUID, uuid.UUID) (int64, error) {
	if len(l.messages) == 0 {
		return 0, nil
	}
	return l.messages[0].Seq, nil
}

func (l *local) Audience(context.Context, uuid.UUID, uuid.UUID) ([]uuid.UUID, error) { return nil, nil }

func (l *local) Messages(_ context.Context, _ uuid.UUID, before int64, limit int) ([]messaging.Message, error) {
	var out []messaging.Message
	for _, m := range l.messages {
		if m.Seq < before && len(out) < limit {
			out = append(out, m)
		}
	}
	return out, nil
}

// believer takes "USER SESSION" for a token.
type believer struct{}

func (believer) Verify(_ context.Context, token string) (identity.Principal, error) {
	user, session, _ := strings.Cut(token, " ")
	return identity.Principal{UserID: uuid.MustParse(user), SessionID: uuid.MustParse(session)}, nil
}

func (believer) IsRevoked(uuid.UUID) bool { return false }

type emptyStreams struct{}

func (emptyStreams) Resume(_ context.Context, places []messaging.Place, _ int) ([]messaging.Resumption, error) {
	return make([]messaging.Resumption, len(places)), nil
}

func (emptyStreams) Heads(context.Context, []uuid.UUID) (map[uuid.UUID]int64, error) { return nil, nil }

func (emptyStreams) ItemsAfter(context.Context, uuid.UUID, int64, int) ([]messaging.Item, error) {
	return nil, nil
}

type noBus struct{}

func (noBus) Subscribe(uuid.UUID) (func(), error) { return func() {}, nil }
func (noBus) SubscribeMany() error                { return nil }
func (noBus) Publish(uuid.UUID, []byte) error     { return nil }
func (noBus) PublishMany([]byte) error            { return nil }
func (noBus) Messages() <-chan *nats.Msg          { return nil }
func (noBus) Connected() bool                     { return true }

// connect opens a socket of a user's session.
func (l *local) connect(user, session uuid.UUID) *peer {
	l.t.Helper()
	c, err := connect(l.t, l.url(), user.String()+" "+session.String(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *local) url() string { return "ws" + strings.TrimPrefix(l.server.URL, "http") }

// post sends a message with an id, and does not wait.
func (c *peer) post(id int, conversation uuid.UUID) {
	c.t.Helper()
	if err := c.write(fmt.Sprintf(`{"id":%d,"op":"send","conversation_id":%q,"client_id":%q,"body":{"n":%d}}`, id, conversation, uuid.New(), id)); err != nil {
		c.t.Error(err)
	}
}

// Sends wait for their commit beside each other, and later commands don't wait
// for them.
func TestSendsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{})
	c := l.connect(uuid.New(), uuid.New())
	conversation := uuid.New()
	c.post(101, conversation)
	c.post(102, conversation)
	held := l.held(2)
	if r := c.call(map[string]any{"op": "typing", "conversation_id": conversation}); r.OK == nil {
		t.Errorf("typing: %+v", r.Error)
	}
	for i, h := range held {
		if want := fmt.Sprintf(`{"n":%d}`, 101+i); string(h.draft.Body) != want {
			t.Errorf("body %s, want %s", h.draft.Body, want)
		}
	}
	held[1].answer(messaging.Sent{ID: uuid.New(), Seq: 2}, nil)
	held[0].answer(messaging.Sent{}, messaging.ErrNoConversation)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.await(func() bool { return c.replies[101].Error != nil && c.replies[102].OK != nil })
	if c.replies[101].Error.Code != "conversation_not_found" || c.replies[102].OK.Seq != 2 {
		t.Errorf("replies %+v", c.replies)
	}
}

// Whoever sends more than is committed is read no further, and loses nothing.
func TestSendsInFlightAreBounded(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{})
	c := l.connect(uuid.New(), uuid.New())
	conversation := uuid.New()
	const sends, bound = 200, 64
	go func() {
		for i := range sends {
			c.post(1000+i, conversation)
		}
	}()
	l.held(bound)
	for i := range sends {
		l.held(i + 1)[i].answer(messaging.Sent{ID: uuid.New(), Seq: int64(i + 1)}, nil)
		// While its answer is on its way, more would come than may.
		c.mu.Lock()
		c.await(func() bool { return c.replies[uint64(1000+i)].OK != nil })
		r := c.replies[uint64(1000+i)]
		c.mu.Unlock()
		if r.OK == nil || r.OK.Seq != int64(i+1) {
			t.Fatalf("reply %d: %+v", i, r.OK)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most != bound {
		t.Errorf("%d sends were in flight, want %d", l.most, bound)
	}
}

// A connection that ends answers what it took, takes nothing more, and closes
// then.
func TestTheEndWaitsForAnswers(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{})
	session := uuid.New()
	c := l.connect(uuid.New(), session)
	c.post(101, uuid.New())
	held := l.held(1)
	l.hub.EndSession(session)
	c.waitEvents("session", 1)
	c.post(102, uuid.New())
	if err := c.closeError(); err != nil {
		t.Fatalf("closed before the answer: %v", err)
	}
	held[0].answer(messaging.Sent{ID: uuid.New(), Seq: 1}, nil)
	c.wantClose(wsapi.CodeSessionEnded)
	if r := c.replies[101]; r.OK == nil || r.OK.Seq != 1 {
		t.Errorf("reply %+v %+v", r.OK, r.Error)
	}
	if n := len(l.held(1)); n != 1 {
		t.Errorf("%d sends were taken", n)
	}
}

// Answers that come after the connection is gone find nobody, and break nothing.
func TestAnswersAfterTheEnd(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{})
	c := l.connect(uuid.New(), uuid.New())
	c.post(101, uuid.New())
	held := l.held(1)
	_ = c.ws.CloseNow()
	podtest.WaitUntil(t, "the connection is gone", func() bool { return l.hub.Load().Live == 0 })
	held[0].answer(messaging.Sent{}, nil)
}

func TestHistory(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{})
	const large = 5 // seqs from here on are large
	for seq := int64(8); seq >= 1; seq-- {
		text := "short"
		if seq >= large {
			text = strings.Repeat("x", 30_000)
		}
		l.messages = append(l.messages, messaging.Message{
			ConversationID: uuid.New(), ID: uuid.New(), ClientID: uuid.New(), SenderID: uuid.New(), Seq: seq,
			Body: json.RawMessage(`{"text":"` + text + `"}`), SentAt: time.Now(),
		})
	}
	c := l.connect(uuid.New(), uuid.New())
	ask := func(more map[string]any) (seqs []int64, next int64) {
		request := map[string]any{"op": "history", "conversation_id": uuid.New()}
		for name, value := range more {
			request[name] = value
		}
		r := c.call(request)
		if r.OK == nil {
			t.Fatalf("history: %+v", r.Error)
		}
		for _, m := range r.OK.Messages {
			seqs = append(seqs, m.Seq)
		}
		return seqs, r.OK.NextBefore
	}
	for _, tt := range []struct {
		request map[string]any
		want    []int64
		next    int64
	}{
		{map[string]any{}, []int64{8, 7}, 7}, // 64 KiB are full
		{map[string]any{"before": 7}, []int64{6, 5, 4, 3, 2, 1}, 0},
		{map[string]any{"before": 5, "limit": 3}, []int64{4, 3, 2}, 2},
		{map[string]any{"before": 2}, []int64{1}, 0},
		{map[string]any{"before": 1}, nil, 0},
	} {
		if seqs, next := ask(tt.request); !slices.Equal(seqs, tt.want) || next != tt.next {
			t.Errorf("%v: seqs %v and next %d, want %v and %d", tt.request, seqs, next, tt.want, tt.next)
		}
	}
	c.wantRefused(map[string]any{"op": "history", "conversation_id": uuid.New(), "limit": 101}, "invalid")
	c.wantRefused(map[string]any{"op": "history", "conversation_id": uuid.New(), "before": -1}, "invalid")
	c.wantRefused(map[string]any{"op": "history"}, "missing_field")
}

func TestConnectsAreBoundedByAddress(t *testing.T) {
	t.Parallel()
	l := newLocal(t, wsapi.Options{
		Addresses: door.NewAddresses(messaging.Rate{PerSecond: 0.001, Burst: 2}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
	})
	from := func(address string) (status int, retryAfter string) {
		r := testkit.Upgrade(t, l.server.URL, wsapi.Subprotocol)
		r.Header.Set("X-Forwarded-For", address)
		response, err := l.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode, response.Header.Get("Retry-After")
	}
	for i, want := range []int{101, 101, 429} {
		if got, retryAfter := from("192.0.2.1"); got != want || (got == 429) != (retryAfter != "") {
			t.Errorf("connection %d: status %d, Retry-After %q", i, got, retryAfter)
		}
	}
	if got, _ := from("192.0.2.2"); got != 101 {
		t.Errorf("another address: status %d", got)
	}
}

// Ten thousand clients connect, authenticate, send, and go in every way to go,
// and leave nothing.
func TestTenThousandConnectionsLeaveNothingBehind(t *testing.T) {
	// Not parallel: it counts goroutines, and weighs the heap.
	l := newLocal(t, wsapi.Options{})
	go func() {
		for {
			l.mu.Lock()
			held, changed := l.sends, l.changed
			l.sends = nil
			l.mu.Unlock()
			for _, h := range held {
				h.answer(messaging.Sent{ID: uuid.New(), Seq: 1}, nil)
			}
			select {
			case <-changed:
			case <-t.Context().Done():
				return
			}
		}
	}()
	settle := func() {
		podtest.WaitUntil(t, "every connection is gone", func() bool {
			load := l.hub.Load()
			return load.Live+load.Pending == 0
		})
	}
	testkit.LeavesNothing(t, 10_000, 4<<20, settle, func(i int) error {
		ws, _, err := websocket.Dial(t.Context(), l.url(), &websocket.DialOptions{ //nolint:bodyclose // the library closes it
			Subprotocols: []string{wsapi.Subprotocol},
		})
		if err != nil {
			return err
		}
		defer func() { _ = ws.CloseNow() }()
		frame := fmt.Sprintf(`{"id":1,"op":"auth","token":"%s %s"}`+"\n"+
			`{"id":2,"op":"send","conversation_id":%q,"client_id":%q,"body":{"a":1}}`, uuid.New(), uuid.New(), uuid.New(), uuid.New())
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(frame)); err != nil {
			return err
		}
		for acked := false; !acked; {
			_, reply, err := ws.Read(t.Context())
			if err != nil {
				return err
			}
			acked = bytes.Contains(reply, []byte(`"re":2`))
		}
		switch i % 3 {
		case 0:
			_ = ws.Write(t.Context(), websocket.MessageText, []byte("{"))
			_, _, _ = ws.Read(t.Context())
		case 1:
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}
		return nil
	})
}
