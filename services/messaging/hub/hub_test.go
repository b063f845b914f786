package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging"
)

// The tests run in synctest bubbles: their time is virtual, and Wait returns
// when nothing more happens.

var subjects = events.SubjectsOf("test")

// fakeStore holds streams in memory.
type fakeStore struct {
	mu      sync.Mutex
	streams map[uuid.UUID][]messaging.Item
	tails   map[uuid.UUID]int64
	fail    error
	reads   int
}

func newFakeStore() *fakeStore {
	return &fakeStore{streams: map[uuid.UUID][]messaging.Item{}, tails: map[uuid.UUID]int64{}}
}

func (s *fakeStore) add(user uuid.UUID, n int) []messaging.Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []messaging.Item
	for range n {
		offset := int64(len(s.streams[user]) + 1)
		item := messaging.Item{UserID: user, Offset: offset, Kind: messaging.KindMessage, Payload: json.RawMessage(fmt.Sprintf(`{"n":%d}`, offset))}
		s.streams[user] = append(s.streams[user], item)
		out = append(out, item)
	}
	return out
}

func (s *fakeStore) setFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *fakeStore) Position(_ context.Context, user uuid.UUID) (messaging.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return messaging.Position{Head: int64(len(s.streams[user])), Tail: s.tails[user]}, s.fail
}

func (s *fakeStore) Heads(_ context.Context, users []uuid.UUID) (map[uuid.UUID]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[uuid.UUID]int64{}
	for _, u := range users {
		out[u] = int64(len(s.streams[u]))
	}
	return out, s.fail
}

func (s *fakeStore) ItemsAfter(_ context.Context, user uuid.UUID, offset int64, limit int) ([]messaging.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.fail != nil {
		return nil, s.fail
	}
	items := s.streams[user][min(int(max(offset, s.tails[user])), len(s.streams[user])):]
	return slices.Clone(items[:min(limit, len(items))]), nil
}

// fakeBus brings what the test publishes to one hub.
type fakeBus struct {
	mu         sync.Mutex
	messages   chan *nats.Msg
	subscribed map[uuid.UUID]int
	down       bool
}

func newFakeBus() *fakeBus {
	return &fakeBus{messages: make(chan *nats.Msg, 16), subscribed: map[uuid.UUID]int{}}
}

func (b *fakeBus) Subscribe(user uuid.UUID) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribed[user]++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.subscribed[user]--
	}, nil
}

func (b *fakeBus) Publish(user uuid.UUID, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return errors.New("the bus is down")
	}
	if b.subscribed[user] > 0 {
		select {
		case b.messages <- &nats.Msg{Subject: subjects.User(user), Data: data}:
		default: // as NATS does
		}
	}
	return nil
}

func (b *fakeBus) Messages() <-chan *nats.Msg { return b.messages }

func (b *fakeBus) Connected() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.down
}

func (b *fakeBus) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// fakeWire records what it gets, and leaves a while after it is asked to.
type fakeWire struct {
	link *Link
	// leavesAfter is how long after Move the client is gone; 0: never by itself.
	leavesAfter time.Duration

	mu      sync.Mutex
	offsets []int64
	signals int
	movedAt time.Time
	ends    []Reason
	started time.Time
}

func (w *fakeWire) Deliver(item messaging.Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offsets = append(w.offsets, item.Offset)
}

func (w *fakeWire) Signal(messaging.Typing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals++
}

func (w *fakeWire) Room(ctx context.Context) error { return ctx.Err() }

func (w *fakeWire) SessionEnded(json.RawMessage) {}

func (w *fakeWire) Move(time.Duration, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.movedAt = time.Now()
	if w.leavesAfter > 0 {
		time.AfterFunc(w.leavesAfter, w.link.Leave)
	}
}

func (w *fakeWire) End(reason Reason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, reason)
	if len(w.ends) == 1 {
		go w.link.Leave()
	}
}

func (w *fakeWire) got() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.offsets)
}

// world is a hub and what it stands on.
type world struct {
	*Hub
	store *fakeStore
	bus   *fakeBus
}

func newWorld(t *testing.T, options Options) world {
	t.Helper()
	w := world{store: newFakeStore(), bus: newFakeBus()}
	w.Hub = New(w.store, w.bus, options, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w world) stop(t *testing.T) {
	t.Helper()
	if err := w.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func (w world) connect(t *testing.T, user uuid.UUID, from *int64) (*fakeWire, Attachment) {
	t.Helper()
	wire := &fakeWire{started: time.Now()}
	link, err := w.Admit(wire)
	if err != nil {
		t.Fatal(err)
	}
	wire.link = link
	at, err := link.Attach(t.Context(), user, uuid.New(), from)
	if err != nil {
		t.Fatal(err)
	}
	link.Start()
	return wire, at
}

// arrive is what another process publishes.
func (w world) arrive(t *testing.T, items ...messaging.Item) {
	t.Helper()
	messages, err := encodeItems(items)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range messages {
		if err := w.bus.Publish(items[0].UserID, data); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
}

func (w *fakeWire) want(t *testing.T, offsets ...int64) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(offsets, w.got()); diff != "" {
		t.Error(diff)
	}
}

func TestItemsAreDeliveredInOrderAndOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		wire, _ := w.connect(t, user, nil)
		items := w.store.add(user, 5)
		w.arrive(t, items[1])
		w.arrive(t, items[0])
		w.arrive(t, items[3], items[2], items[0])
		w.Announce(items[3:])
		wire.want(t, 1, 2, 3, 4, 5)
		if w.store.reads != 0 {
			t.Errorf("the store was read %d times for what was only late", w.store.reads)
		}
	})
}

func TestAGapIsFilledFromTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		wire, _ := w.connect(t, user, nil)
		items := w.store.add(user, 300)
		w.arrive(t, items[299])
		wire.want(t)
		time.Sleep(100 * time.Millisecond)
		if got := wire.got; len(got()) != 300 || !slices.IsSorted(got()) {
			t.Errorf("got %d items", len(got()))
		}
	})
}

func TestTheLastItemIsFoundThoughItsPublishIsLost(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		// lose happens after the connection is live for a minute.
		lose      func(w world)
		wantAfter time.Duration
	}{
		"silently":                  {lose: func(world) {}, wantAfter: rounds * tick},
		"because the bus is down":   {lose: func(w world) { w.bus.setDown(true) }, wantAfter: 2 * tick},
		"and the bus is back":       {lose: func(w world) { w.BusReconnected() }, wantAfter: time.Millisecond},
		"while the store is away":   {lose: func(w world) { w.bus.setDown(true); w.recoverAfter(5 * time.Second) }, wantAfter: 8 * time.Second},
		"as the channel overflowed": {lose: func(w world) { w.overflow() }, wantAfter: time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				user := uuid.New()
				wire, _ := w.connect(t, user, nil)
				time.Sleep(time.Minute)
				w.store.add(user, 1)
				tt.lose(w)
				time.Sleep(tt.wantAfter)
				wire.want(t, 1)
			})
		})
	}
}

func (w world) recoverAfter(d time.Duration) {
	w.store.setFailure(errors.New("away"))
	time.AfterFunc(d, func() { w.store.setFailure(nil) })
}

func (w world) overflow() {
	for range 2 * cap(w.bus.messages) {
		select {
		case w.bus.messages <- &nats.Msg{Subject: subjects.User(uuid.New())}:
		default:
		}
	}
}

func TestASecondAfterAConnectWhatWasMissedMeanwhileIsFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		time.Sleep(10*time.Minute + 300*time.Millisecond)
		wire, _ := w.connect(t, user, nil)
		w.store.add(user, 1)
		time.Sleep(2 * tick)
		wire.want(t, 1)
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	offset := func(n int64) *int64 { return &n }
	tests := map[string]struct {
		from *int64
		want Attachment
		got  []int64
	}{
		"without a cursor":     {want: Attachment{Offset: 5}},
		"at the head":          {from: offset(5), want: Attachment{Offset: 5, Recovered: true}},
		"behind":               {from: offset(3), want: Attachment{Offset: 3, Recovered: true}, got: []int64{4, 5}},
		"at the tail":          {from: offset(2), want: Attachment{Offset: 2, Recovered: true}, got: []int64{3, 4, 5}},
		"no longer kept":       {from: offset(1), want: Attachment{Offset: 5}},
		"from the future":      {from: offset(6), want: Attachment{Offset: 5}},
		"not a cursor of ours": {from: offset(-1), want: Attachment{Offset: 5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				user := uuid.New()
				w.store.add(user, 5)
				w.store.tails[user] = 2
				wire, at := w.connect(t, user, tt.from)
				if diff := cmp.Diff(tt.want, at); diff != "" {
					t.Error(diff)
				}
				w.arrive(t, w.store.add(user, 1)...)
				wire.want(t, append(tt.got, 6)...)
			})
		})
	}
}

func TestAReplayWaitsForTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		w.store.add(user, 250)
		link, err := w.Admit(&fakeWire{})
		if err != nil {
			t.Fatal(err)
		}
		wire := link.wire.(*fakeWire)
		wire.link = link
		var from int64
		if _, err := link.Attach(t.Context(), user, uuid.New(), &from); err != nil {
			t.Fatal(err)
		}
		w.recoverAfter(3 * time.Second)
		link.Start()
		wire.want(t)
		time.Sleep(5 * time.Second)
		if n := len(wire.got()); n != 250 {
			t.Errorf("%d items after the store is back", n)
		}
	})
}

func TestAnAttachThatFailsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		wire := &fakeWire{}
		link, err := w.Admit(wire)
		if err != nil {
			t.Fatal(err)
		}
		w.store.setFailure(errors.New("away"))
		if _, err := link.Attach(t.Context(), user, uuid.New(), nil); err == nil {
			t.Fatal("attached without a store")
		}
		if load := w.Load(); load.Pending != 1 || load.Live != 0 || w.bus.subscribed[user] != 0 {
			t.Errorf("load %+v, %d subscriptions", load, w.bus.subscribed[user])
		}
		w.store.setFailure(nil)
		if _, err := link.Attach(t.Context(), user, uuid.New(), nil); err != nil {
			t.Fatal(err)
		}
		link.Start()
		w.arrive(t, w.store.add(user, 1)...)
		wire.want(t, 1)
		link.Leave()
		link.Leave()
		if load := w.Load(); load.Live != 0 || w.bus.subscribed[user] != 0 || len(w.users) != 0 || len(w.sessions) != 0 {
			t.Errorf("after leaving: load %+v, %d subscriptions", load, w.bus.subscribed[user])
		}
	})
}

func TestDrainTellsEveryoneAtAnEvenPace(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		leavesAfter time.Duration
		wantAtMost  time.Duration
		wantEnds    int
	}{
		"clients that move":            {leavesAfter: time.Second, wantAtMost: 10 * time.Second},
		"clients that don't":           {wantAtMost: 12*time.Second + 10*time.Millisecond, wantEnds: 1},
		"clients that take their time": {leavesAfter: 2900 * time.Millisecond, wantAtMost: 12 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const connections = 90
				w := newWorld(t, Options{Window: 12 * time.Second})
				var wires []*fakeWire
				for range connections {
					wire, _ := w.connect(t, uuid.New(), nil)
					wire.leavesAfter = tt.leavesAfter
					wires = append(wires, wire)
				}
				stranger := &fakeWire{}
				link, err := w.Admit(stranger)
				if err != nil {
					t.Fatal(err)
				}
				stranger.link = link
				start := time.Now()
				w.stop(t)
				if took := time.Since(start); took > tt.wantAtMost {
					t.Errorf("the drain took %s, want at most %s", took, tt.wantAtMost)
				}
				perSecond := map[int]int{}
				for _, wire := range wires {
					if wire.movedAt.IsZero() {
						t.Fatal("a connection was not told")
					}
					perSecond[int(wire.movedAt.Sub(start)/time.Second)]++
					if len(wire.ends) != tt.wantEnds {
						t.Errorf("ended %d times, want %d", len(wire.ends), tt.wantEnds)
					}
				}
				for second := range 9 {
					if n := perSecond[second]; n < 9 || n > 11 {
						t.Errorf("%d connections were told in second %d, want 10", n, second)
					}
				}
				if len(stranger.ends) != 1 || !stranger.movedAt.IsZero() {
					t.Errorf("an unauthenticated connection: %+v", stranger.ends)
				}
				if _, err := w.Admit(&fakeWire{}); !errors.Is(err, errStopping) {
					t.Errorf("a connection to a stopped hub: %v", err)
				}
			})
		})
	}
}

func TestDrainEndsAtOnceWhenNobodyIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Window: time.Hour})
		start := time.Now()
		w.stop(t)
		w.stop(t) // a second stop does no harm
		if took := time.Since(start); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}

func TestTheHubIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxLinks: 2})
		defer w.stop(t)
		first, _ := w.connect(t, uuid.New(), nil)
		w.connect(t, uuid.New(), nil)
		if _, err := w.Admit(&fakeWire{}); !errors.Is(err, errFull) {
			t.Errorf("a connection too many: %v", err)
		}
		first.link.Leave()
		w.connect(t, uuid.New(), nil)
	})
}

func TestBusMessagesStaySmall(t *testing.T) {
	t.Parallel()
	user := uuid.New()
	payload, err := json.Marshal(map[string]string{"text": string(make([]byte, 5000))})
	if err != nil {
		t.Fatal(err)
	}
	var items []messaging.Item
	for i := range 40 {
		items = append(items, messaging.Item{UserID: user, Offset: int64(i + 1), Kind: messaging.KindMessage, Payload: payload})
	}
	messages, err := encodeItems(items)
	if err != nil {
		t.Fatal(err)
	}
	var got []messaging.Item
	for _, data := range messages {
		if len(data) > maxBusMessage+4096 {
			t.Errorf("a message of %d bytes", len(data))
		}
		some, _, err := decodeNews(user, data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, some...)
	}
	if !slices.EqualFunc(items, got, func(a, b messaging.Item) bool {
		return a.Offset == b.Offset && a.UserID == b.UserID && a.Kind == b.Kind && bytes.Equal(a.Payload, b.Payload)
	}) {
		t.Error("what is decoded is not what was encoded")
	}
	if len(messages) < 2 {
		t.Errorf("%d bytes in %d messages", 40*len(payload), len(messages))
	}
}

func TestBusMessagesThatAreNoNewsAreRefused(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"no JSON":           `{`,
		"no payload":        `{"items":[{"offset":1,"kind":"message"}]}`,
		"null for payload":  `{"items":[{"offset":1,"kind":"message","payload":null}]}`,
		"array for payload": `{"items":[{"offset":1,"kind":"message","payload":[]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if items, _, err := decodeNews(uuid.New(), []byte(data)); err == nil {
				t.Errorf("taken as %v", items)
			}
		})
	}
}
