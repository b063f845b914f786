package sioapi_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client/stockclient"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
)

// Stock clients with each choice of transports, on two pods, do all there is to do.
func TestStockClientsChat(t *testing.T) {
	t.Parallel()
	for name, transports := range map[string]map[string]any{
		"default":   {},
		"polling":   {"transports": []string{"polling"}},
		"websocket": webSocket,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
			p := w.Open()
			w.Enter("client", first.server.URL, w.options(p.Client, transports))
			w.Enter("tasker", second.server.URL, w.options(p.Tasker, transports))

			fields := sendFields(p.Conversation, map[string]any{"text": "by six?"})
			sent := w.ask("client", "send", fields)
			if !sent.OK || sent.Seq != 1 || sent.Duplicate {
				t.Errorf("answer %+v", sent)
			}
			if again := w.ask("client", "send", fields); again.ID != sent.ID || !again.Duplicate {
				t.Errorf("again: %+v", again)
			}
			m := w.hears("tasker", "message")
			if m.ID != sent.ID || m.Seq != 1 || m.From != p.Client || m.ClientID != fields["client_id"] || string(m.Body) != `{"text":"by six?"}` {
				t.Errorf("message %+v", m)
			}
			if got := w.ask("tasker", "read", map[string]any{"conversation_id": p.Conversation, "seq": 1}); !got.OK {
				t.Errorf("read: %+v", got.Error)
			}
			if r := w.hears("client", "receipt"); r.UserID != p.Tasker || r.Seq != 1 {
				t.Errorf("receipt %+v", r)
			}
			if got := w.ask("tasker", "typing", map[string]any{"conversation_id": p.Conversation}); !got.OK {
				t.Errorf("typing: %+v", got.Error)
			}
			if s := w.hears("client", "typing"); s.From != p.Tasker {
				t.Errorf("typing %+v", s)
			}
			w.Send("tasker", "presence", map[string]any{"status": "online"})
			if s := w.hears("client", "presence"); s.UserID != p.Tasker || s.Status != "online" {
				t.Errorf("presence %+v", s)
			}
			history := w.ask("tasker", "history", map[string]any{"conversation_id": p.Conversation, "limit": 10})
			if len(history.Messages) != 1 || history.Messages[0].ID != sent.ID {
				t.Errorf("history %+v", history)
			}
		})
	}
}

// refusal waits for a client's connect_error, and returns its problem.
func (w *world) refusal(client string) problem {
	w.T.Helper()
	h := w.happens(client, "connect_error")
	p := decode[problem](w.T, h.Data)
	if h.Message != p.Message || p.Message == "" {
		w.T.Errorf("%s", h)
	}
	return p
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := uuid.New()
	pod := w.newPod(podOptions{})
	w.Tokens.Revocations.Revoke(ended, time.Now())
	for name, tt := range map[string]struct {
		auth any
		code string
	}{
		"nothing":           {nil, "unauthenticated"},
		"no token":          {map[string]any{"user": "me"}, "unauthenticated"},
		"no text":           {map[string]any{"token": 5}, "unauthenticated"},
		"no token's form":   {map[string]any{"token": "let me in"}, "token_invalid"},
		"an ended session":  {map[string]any{"token": w.Tokens.Issue(t, uuid.New(), ended)}, "session_ended"},
		"another's key":     {map[string]any{"token": newWorld(t).Tokens.Issue(t, uuid.New(), uuid.New())}, "token_invalid"},
		"an enormous token": {map[string]any{"token": strings.Repeat("x", 50_000)}, "token_invalid"},
	} {
		w.Connect(name, pod.server.URL, map[string]any{"auth": tt.auth})
		if p := w.refusal(name); p.Code != tt.code || p.Temporary {
			t.Errorf("%s: %+v, want %s", name, p, tt.code)
		}
		w.Say("disconnect", name)
	}
	if load := pod.Hub.Load(); load.Live+load.Pending > 0 {
		t.Errorf("load %+v", load)
	}
	if n := pod.Metric("marketplane_messaging_commands_total", "protocol", "socket.io", "op", "auth", "result", "session_ended"); n != 1 {
		t.Errorf("%v clients of ended sessions are counted", n)
	}
}

// Mistakes are answered, and the connection stays.
func TestMistakesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	w.Enter("c", pod.server.URL, w.options(p.Client))
	for name, tt := range map[string]struct {
		event string
		args  []any
		code  string
	}{
		"no such event":    {"shout", []any{map[string]any{}}, "unknown_op"},
		"auth is CONNECT":  {"auth", []any{map[string]any{"token": "x"}}, "unknown_op"},
		"no argument":      {"typing", nil, "arguments_invalid"},
		"two arguments":    {"typing", []any{map[string]any{"conversation_id": p.Conversation}, 1}, "arguments_invalid"},
		"no object":        {"typing", []any{"x"}, "arguments_invalid"},
		"binary":           {"send", []any{map[string]any{"conversation_id": p.Conversation, "client_id": uuid.New(), "body": map[string]any{"a": map[string]any{"$binary": "AAEC"}}}}, "arguments_invalid"},
		"an unknown field": {"typing", []any{map[string]any{"conversation_id": p.Conversation, "op": "typing"}}, "unknown_field"},
		"a missing field":  {"send", []any{map[string]any{"conversation_id": p.Conversation}}, "missing_field"},
		"not a UUID":       {"read", []any{map[string]any{"conversation_id": "x", "seq": 1}}, "invalid"},
		"1 MB":             {"send", []any{sendFields(p.Conversation, map[string]any{"text": strings.Repeat("x", 990_000)})}, "body_too_large"},
	} {
		w.Emit("c", tt.event, tt.args...)
		h := w.happens("c", "ack")
		if h.Error != "" || len(h.Args) != 1 {
			t.Fatalf("%s: %s", name, h)
		}
		if a := decode[answer](t, h.Args[0]); a.OK || a.Error == nil || a.Error.Code != tt.code {
			t.Errorf("%s: %+v %+v, want %s", name, a, a.Error, tt.code)
		}
	}
	if a := w.ask("c", "send", sendFields(p.Conversation, map[string]any{"a": 1})); !a.OK {
		t.Errorf("after that: %+v", a.Error)
	}
}

// What names a conversation is refused to whoever is none of its members, as if
// there were none.
func TestOnlyMembersKnowOfAConversation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	w.Enter("stranger", pod.server.URL, w.options(uuid.New(), webSocket))
	ask := func(op string, conversation uuid.UUID) *problem {
		fields := map[string]any{"conversation_id": conversation}
		required, _ := door.Fields(op)
		for _, f := range required {
			switch f {
			case "client_id":
				fields[f] = uuid.New()
			case "body":
				fields[f] = map[string]any{"a": 1}
			case "seq":
				fields[f] = 1
			default:
			}
		}
		return w.ask("stranger", op, fields).Error
	}
	tried := 0
	for _, op := range door.Ops() {
		if required, _ := door.Fields(op); !slices.Contains(required, "conversation_id") {
			continue
		}
		tried++
		here, nowhere := ask(op, p.Conversation), ask(op, uuid.New())
		if diff := cmp.Diff(nowhere, here); diff != "" || here == nil || here.Code != "conversation_not_found" {
			t.Errorf("%s: %+v (-nowhere +here):\n%s", op, here, diff)
		}
	}
	if tried != 4 {
		t.Errorf("%d ops were tried", tried)
	}
}

func TestCommandRateIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: sioapi.Options{Door: door.Options{Rate: messaging.Rate{PerSecond: 0.001, Burst: 3}}}})
	p := w.Open()
	w.Enter("c", pod.server.URL, w.options(p.Client))
	for i := range 5 {
		a := w.ask("c", "typing", map[string]any{"conversation_id": p.Conversation})
		if limited := a.Error != nil && a.Error.Code == "rate_limited" && a.Error.RetryMS > 0; limited != (i >= 2) {
			t.Errorf("command %d: %+v", i+1, a.Error)
		}
	}
}

// A session that ends closes its connections at once, and stock clients stay away.
func TestASessionThatEndsClosesItsSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	user, session := uuid.New(), uuid.New()
	w.Enter("ended", pod.server.URL, w.optionsIn(user, session))
	w.Enter("polling", pod.server.URL, w.optionsIn(user, session, map[string]any{"transports": []string{"polling"}}))
	w.Enter("other", pod.server.URL, w.options(user))
	w.Tokens.Revocations.Revoke(session, time.Now())
	pod.Hub.EndSession(session)
	for _, client := range []string{"ended", "polling"} {
		if e := w.hears(client, "session"); e.Event != "ended" {
			t.Errorf("%s: %+v", client, e)
		}
		if h := w.happens(client, "disconnect"); h.Reason != "io server disconnect" {
			t.Errorf("%s", h)
		}
	}
	if a := w.ask("other", "typing", map[string]any{"conversation_id": uuid.New()}); a.Error == nil {
		t.Errorf("the other one: %+v", a)
	}
	podtest.WaitUntil(t, "they are gone", func() bool { return pod.Hub.Load().Live == 1 })
	if n := pod.Metric("marketplane_messaging_socketio_closes_total", "reason", "session ended"); n != 2 {
		t.Errorf("%v are counted", n)
	}
}

// A session that ends between the token's verification and the hub's news closes the
// socket, too.
func TestASessionThatEndsDuringConnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session := uuid.New()
	pod := w.newPod(podOptions{endsMeanwhile: session})
	w.Connect("c", pod.server.URL, w.optionsIn(uuid.New(), session))
	if h := w.happens("c", "disconnect"); h.Reason != "io server disconnect" {
		t.Errorf("%s", h)
	}
}

// Without recovery CONNECT's answer has no pid, events have no offset, and nobody is
// recovered.
func TestRecoveryIsOptional(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{noRecovery: true})
	if _, pid := pod.enter(t, w.auth(uuid.New())); pid != "" {
		t.Errorf("CONNECT's answer has the pid %s", pid)
	}
	p := w.Open()
	w.Enter("c", pod.server.URL, w.options(p.Client, webSocket))
	w.Enter("t", pod.server.URL, w.options(p.Tasker, webSocket))
	w.ask("t", "send", sendFields(p.Conversation, map[string]any{"n": 1}))
	h := w.Find(func(h stockclient.Happening) bool { return h.Client == "c" && h.Event == "message" })
	if len(h.Args) != 1 {
		t.Errorf("%s", h)
	}
	w.Say("cut", "c")
	if h := w.happens("c", "connect"); h.Recovered {
		t.Errorf("%s", h)
	}
}

// numbers collects the messages that a client gets, until the last one.
func (w *world) numbers(client string, last int) (got []int) {
	w.T.Helper()
	for len(got) == 0 || got[len(got)-1] != last {
		m := w.hears(client, "message")
		got = append(got, decode[struct{ N int }](w.T, m.Body).N)
	}
	return got
}

// What a client missed comes in order, once, on another pod as on the same, before
// the first event as after it, and to the next one after that.
func TestRecovery(t *testing.T) {
	t.Parallel()
	for name, transports := range map[string]map[string]any{
		"default": {}, "polling": {"transports": []string{"polling"}}, "websocket": webSocket,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
			at := w.newService(first)
			p := w.Open()
			w.Enter("t", first.server.URL, w.options(p.Tasker, webSocket))
			id := w.Enter("c", at.URL, w.options(p.Client, transports)).ID
			if transports["transports"] == nil {
				w.UntilUpgraded("c")
			}
			send := func(from, to int) {
				for n := from; n <= to; n++ {
					if a := w.ask("t", "send", sendFields(p.Conversation, map[string]any{"n": n})); !a.OK {
						t.Fatalf("%+v", a.Error)
					}
				}
			}
			next := 1
			for i, to := range []*pod{first, second, first} {
				at.to.Store(to)
				w.Do("cut", map[string]any{"client": "c", "for": 300}) // before it saw anything, the first time
				w.happens("c", "disconnect")
				send(next, next+4)
				if h := w.happens("c", "connect"); !h.Recovered || h.ID != id {
					t.Fatalf("time %d: %s, its id was %s", i+1, h, id)
				}
				got := w.numbers("c", next+4)
				if want := []int{next, next + 1, next + 2, next + 3, next + 4}; !slices.Equal(got, want) {
					t.Errorf("time %d: got %v, want %v", i+1, got, want)
				}
				send(next+5, next+5)
				if got := w.numbers("c", next+5); len(got) != 1 {
					t.Errorf("time %d: then %v", i+1, got)
				}
				next += 6
			}
		})
	}
}

// A pid authenticates nothing: with another user's token it is worth nothing, and
// neither is one that nobody sealed, nor an offset of nobody's.
func TestRecoveryIsTheUsersOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	w.Enter("t", pod.server.URL, w.options(p.Tasker, webSocket))
	for name, auth := range map[string]map[string]any{
		"another user": w.options(uuid.New())["auth"].(map[string]any),
		"an old place": {"token": w.Tokens.Issue(t, p.Client, uuid.New()), "offset": messaging.EncodeCursor(p.Client, 1<<40)},
		"no place":     {"token": w.Tokens.Issue(t, p.Client, uuid.New()), "offset": "x"},
		"no pid":       {"token": w.Tokens.Issue(t, p.Client, uuid.New()), "pid": "x"},
		"another pid":  {"token": w.Tokens.Issue(t, p.Client, uuid.New()), "pid": strings.Repeat("A", 200)},
		"no text":      {"token": w.Tokens.Issue(t, p.Client, uuid.New()), "pid": 5},
	} {
		w.Enter(name, pod.server.URL, w.options(p.Client, webSocket))
		w.ask("t", "send", sendFields(p.Conversation, map[string]any{"n": 1}))
		w.hears(name, "message")
		w.Do("auth", map[string]any{"client": name, "auth": auth})
		w.Say("cut", name)
		if h := w.happens(name, "connect"); h.Recovered {
			t.Errorf("%s: %s", name, h)
		}
		w.Say("disconnect", name)
	}
}

// A pod that drains closes its clients at its pace. They come back elsewhere, are
// recovered, and nothing that was acknowledged is lost.
func TestADrainLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.newPod(podOptions{hub: hub.Options{Window: 2 * time.Second}}), w.newPod(podOptions{})
	at := w.newService(first)
	p := w.Open()
	w.Enter("t", second.server.URL, w.options(p.Tasker, webSocket))
	names := []string{"a", "b", "c", "d", "e"}
	for i, name := range names {
		w.Enter(name, at.URL, w.options(p.Client, []map[string]any{webSocket, {}, {"transports": []string{"polling"}}}[i%3]))
	}
	at.to.Store(second)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		first.stop()
	}()
	last := 0
	for draining := true; draining; {
		select {
		case <-stopped:
			draining = false
		default:
		}
		last++
		w.ask("t", "send", sendFields(p.Conversation, map[string]any{"n": last}))
	}
	for _, name := range names {
		if h := w.happens(name, "connect"); !h.Recovered {
			t.Errorf("%s", h)
		}
		for i, n := range w.numbers(name, last) {
			if n != i+1 {
				t.Errorf("%s got %d as its message %d", name, n, i+1)
				break
			}
		}
	}
	w.ask("t", "send", sendFields(p.Conversation, map[string]any{"n": last + 1}))
	for _, name := range names {
		if got := w.numbers(name, last+1); len(got) != 1 {
			t.Errorf("%s got %v once more", name, got)
		}
	}
}
