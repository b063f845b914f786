package wsapi_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

func TestMessagesReachEveryDeviceOnEveryPod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
	p := w.Open()
	client, phone := first.connect(t, p.Client, ""), second.connect(t, p.Client, "")
	tasker := second.connect(t, p.Tasker, "")
	stranger := first.connect(t, uuid.New(), "")

	if r := client.send(p, "hello"); r.OK.Seq != 1 || r.OK.Duplicate {
		t.Errorf("ack %+v", r.OK)
	}
	if r := tasker.send(p, "hi"); r.OK.Seq != 2 {
		t.Errorf("ack %+v", r.OK)
	}
	for name, c := range map[string]*peer{"client": client, "phone": phone, "tasker": tasker} {
		got := c.waitEvents("message", 2)
		if got[0].Seq != 1 || got[0].From != p.Client.String() || string(got[0].Body) != `{"text": "hello"}` ||
			got[1].Seq != 2 || got[1].From != p.Tasker.String() || got[1].ConversationID != p.Conversation {
			t.Errorf("%s got %+v", name, got)
		}
	}
	if r := tasker.call(map[string]any{"op": "read", "conversation_id": p.Conversation, "seq": 1}); r.OK == nil {
		t.Errorf("read: %+v", r.Error)
	}
	if e := client.waitEvents("receipt", 1)[0]; e.Seq != 1 || e.UserID != p.Tasker || e.Cursor == "" {
		t.Errorf("receipt %+v", e)
	}
	tasker.call(map[string]any{"op": "typing", "conversation_id": p.Conversation})
	tasker.call(map[string]any{"op": "typing", "conversation_id": p.Conversation})
	if e := phone.waitEvents("typing", 1)[0]; e.From != p.Tasker.String() || e.Cursor != "" {
		t.Errorf("typing %+v", e)
	}
	// What comes after it shows that the second typing was held back.
	tasker.send(p, "done")
	phone.waitEvents("message", 3)
	if n := len(phone.waitEvents("typing", 1)); n != 1 {
		t.Errorf("%d typing events", n)
	}
	if events := stranger.durable(); len(events) != 0 {
		t.Errorf("a stranger got %+v", events)
	}
}

func TestAMessageThatIsSentAgainIsTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
	p := w.Open()
	client, again := first.connect(t, p.Client, ""), second.connect(t, p.Client, "")
	key := uuid.New()
	one, two := client.call(sendFields(p, key, "once")), again.call(sendFields(p, key, "once"))
	if one.OK == nil || two.OK == nil || one.OK.ID != two.OK.ID || one.OK.Seq != two.OK.Seq || one.OK.Duplicate || !two.OK.Duplicate {
		t.Errorf("answers %+v and %+v", one.OK, two.OK)
	}
	client.wantRefused(sendFields(p, key, "something else"), "client_id_reused")
	client.send(p, "next")
	if got := again.waitEvents("message", 2); got[1].Seq != 2 {
		t.Errorf("events %+v", got)
	}
}

func TestManySendersLeaveNoGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pods := []*pod{w.newPod(podOptions{}), w.newPod(podOptions{})}
	p := w.Open()
	witness := pods[0].connect(t, p.Client, "")
	const senders, each = 50, 4
	peers := make([]*peer, senders)
	for i := range peers {
		peers[i] = pods[i%2].connect(t, []uuid.UUID{p.Client, p.Tasker}[i/2%2], "")
	}
	var wg sync.WaitGroup
	for i, c := range peers {
		wg.Go(func() {
			for n := range each {
				if r, ok := c.try(sendFields(p, uuid.New(), fmt.Sprintf("%d of %d", n, i))); !ok || r.OK == nil {
					t.Errorf("sender %d: %+v", i, r.Error)
				}
			}
		})
	}
	wg.Wait()
	for i, e := range witness.waitEvents("message", senders*each) {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, e.Seq)
		}
	}
}

func TestResumeReplaysOnceAndInOrderWhileOthersSend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pods := []*pod{w.newPod(podOptions{}), w.newPod(podOptions{})}
	p := w.Open()
	const messages = 400
	receiver := pods[0].connect(t, p.Tasker, "")
	senders := make([]*peer, 4)
	for i := range senders {
		senders[i] = pods[i%2].connect(t, p.Client, "")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, c := range senders {
			wg.Go(func() {
				for range messages / len(senders) {
					if r, ok := c.try(sendFields(p, uuid.New(), "go on")); !ok || r.OK == nil {
						t.Errorf("send: %+v", r.Error)
					}
				}
			})
		}
		wg.Wait()
	}()
	var got []object
	for i := 1; len(got) < messages; i++ {
		receiver.waitEvents("message", min(7, messages-len(got)))
		_ = receiver.ws.CloseNow()
		receiver.mu.Lock()
		receiver.await(func() bool { return receiver.closed != nil })
		receiver.mu.Unlock()
		got = append(got, receiver.durable()...)
		receiver = pods[i%2].connect(t, p.Tasker, receiver.lastCursor())
	}
	<-done
	if len(got) != messages {
		t.Errorf("%d events", len(got))
	}
	for i, e := range got {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, e.Seq)
		}
	}
}

func TestCursorsThatCannotBeRecovered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	c := pod.connect(t, p.Client, "")
	c.send(p, "one")
	for name, cursor := range map[string]string{
		"another user's":    messaging.EncodeCursor(p.Tasker, 1),
		"beyond the head":   messaging.EncodeCursor(p.Client, 99),
		"none of ours":      "AAAA",
		"empty":             "",
		"an old version's":  "AgAAAAAAAAABAAAAAA",
		"of a damaged kind": messaging.EncodeCursor(p.Client, 1)[1:] + "A",
	} {
		c := pod.dial(t)
		go c.read()
		r := c.call(map[string]any{"op": "auth", "token": w.Tokens.Issue(t, p.Client, uuid.New()), "cursor": cursor})
		if r.OK == nil || *r.OK.Recovered || r.OK.Cursor != messaging.EncodeCursor(p.Client, 2) {
			t.Errorf("%s: %+v %+v", name, r.OK, r.Error)
		}
	}
}

func TestWithoutTheBusMessagesAreTakenAndArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
	p := w.Open()
	client, tasker := first.connect(t, p.Client, ""), second.connect(t, p.Tasker, "")
	client.send(p, "with the bus")
	tasker.waitEvents("message", 1)

	w.StopBus()
	podtest.WaitUntil(t, "the pods notice", func() bool { return !first.Bus.Connected() && !second.Bus.Connected() })
	client.send(p, "without it")
	client.send(p, "still without it")
	client.waitEvents("message", 3) // on the same pod at once
	tasker.waitEvents("message", 3)

	w.StartBus()
	podtest.WaitUntil(t, "the pods are back", func() bool { return first.Bus.Connected() && second.Bus.Connected() })
	tasker.send(p, "live again")
	for i, e := range client.waitEvents("message", 4) {
		if e.Seq != int64(i+1) {
			t.Errorf("event %d has seq %d", i, e.Seq)
		}
	}
}

func TestACommitWhosePublishIsLostIsDelivered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.newPod(podOptions{}), w.newPod(podOptions{})
	p := w.Open()
	client := first.connect(t, p.Client, "")
	first.Bus.Lose.Store(true)
	tasker := second.connect(t, p.Tasker, "")
	client.send(p, "into the void")
	tasker.waitEvents("message", 1) // by the comparison after the connect

	client.send(p, "the void again")
	first.Bus.Lose.Store(false)
	client.send(p, "and this one shows the gap")
	if got := tasker.waitEvents("message", 3); got[1].Seq != 2 || got[2].Seq != 3 {
		t.Errorf("events %+v", got)
	}
}

// Who reads nothing is closed, and resumes; nobody else waits for who reads
// nothing: a third member has each message before the next is sent.
func TestASlowReaderIsClosedAndResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{socket: wsapi.Options{MaxQueued: 64 << 10}})
	p, other := w.support(uuid.New(), uuid.New(), pod.Hub.Announce), uuid.New()
	w.add(p.Conversation, p.Tasker, other, pod.Hub.Announce)
	slow := pod.connectDeaf(t, p.Tasker)
	client, third := pod.connect(t, p.Client, ""), pod.connect(t, other, "")
	longText := strings.Repeat("x", 20_000)
	sent := 0
	for pod.closes(wsapi.CodeSlowConsumer) == 0 && sent < 2000 {
		client.send(p, longText)
		sent++
		if got := third.waitEvents("message", sent)[sent-1]; got.Seq != int64(sent) {
			t.Fatalf("the third member's message %d has seq %d", sent, got.Seq)
		}
	}
	go slow.read()
	slow.wantClose(wsapi.CodeSlowConsumer)
	got := slow.durable()
	if len(got) == sent {
		t.Error("nothing was held back")
	}
	resumed := pod.connect(t, p.Tasker, slow.lastCursor())
	got = append(got, resumed.waitEvents("message", sent-len(got))...)
	for i, e := range got {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, e.Seq)
		}
	}
}

func TestADrainLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const window = 3 * time.Second
	old, next := w.newPod(podOptions{hub: hub.Options{Window: window}}), w.newPod(podOptions{})
	const pairs, minPerSide = 20, 3
	type side struct {
		user  uuid.UUID
		token string // for the connections after the first
		pair  pair
		acked []uuid.UUID
		peers []*peer
	}
	var sides []*side
	for range pairs {
		p := w.Open()
		for _, user := range []uuid.UUID{p.Client, p.Tasker} {
			sides = append(sides, &side{user: user, token: w.Tokens.Issue(t, user, uuid.New()), pair: p})
		}
	}
	for _, s := range sides {
		s.peers = []*peer{old.connect(t, s.user, "")}
	}
	stranger := old.dial(t)
	go stranger.read()

	// Everybody sends until they have moved and sent some more.
	var wg sync.WaitGroup
	for _, s := range sides {
		wg.Go(func() {
			c := s.peers[0]
			for more := minPerSide; more > 0; {
				key := uuid.New()
				for {
					r, ok := c.try(sendFields(s.pair, key, "chat"))
					if ok && r.OK != nil {
						s.acked = append(s.acked, r.OK.ID)
						break
					}
					if ok && !r.Error.Temporary {
						t.Errorf("refused: %+v", r.Error)
						return
					}
					if !ok { // closed at its deadline: resume, and send again
						var err error
						if c, err = connect(t, next.url, s.token, c.lastCursor()); err != nil {
							t.Error(err)
							return
						}
						s.peers = append(s.peers, c)
					}
				}
				if len(s.peers) > 1 {
					more--
				}
			}
		})
	}
	podtest.WaitUntil(t, "the chat is on", func() bool { return old.Hub.Load().Live == 2*pairs })
	start := time.Now()
	old.stop()
	took := time.Since(start)
	if took > window+patience/4 {
		t.Errorf("the drain took %s", took)
	}
	stranger.wantClose(wsapi.CodeResume)
	wg.Wait()

	all := map[uuid.UUID]map[uuid.UUID]bool{} // conversation -> acknowledged ids
	for _, s := range sides {
		if all[s.pair.Conversation] == nil {
			all[s.pair.Conversation] = map[uuid.UUID]bool{}
		}
		for _, id := range s.acked {
			all[s.pair.Conversation][id] = true
		}
	}
	for _, s := range sides {
		if len(s.peers) != 2 {
			t.Errorf("a client connected %d times", len(s.peers))
			continue
		}
		s.peers[0].wantClose(wsapi.CodeResume)
		told := s.peers[0].waitEvents("reconnect", 1)
		if len(told) != 1 || told[0].DeadlineMS != (window/4).Milliseconds() {
			t.Errorf("told %+v", told)
		}
		want := all[s.pair.Conversation]
		before := s.peers[0].durable()
		got := slices.Concat(before, s.peers[1].waitEvents("message", len(want)-len(before)))
		for i, e := range got {
			if e.Seq != int64(i+1) || !want[e.ID] {
				t.Fatalf("event %d has seq %d, acknowledged: %t", i, e.Seq, want[e.ID])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d events of %d messages", len(got), len(want))
		}
	}
}
