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
	reads   int // of single streams
	resumes int
	slow    time.Duration
	hole    int64 // an offset that is not there
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

// setSlow has each look take time.
func (s *fakeStore) setSlow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = d
}

func (s *fakeStore) Resume(_ context.Context, places []messaging.Place, limit int) ([]messaging.Resumption, error) {
	s.mu.Lock()
	slow := s.slow
	s.mu.Unlock()
	time.Sleep(slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumes++
	out := make([]messaging.Resumption, len(places))
	for i, p := range places {
		items, tail := s.streams[p.UserID], s.tails[p.UserID]
		out[i].Position = messaging.Position{Head: int64(len(items)), Tail: tail}
		if p.Offset >= tail && p.Offset < int64(len(items)) {
			items = items[p.Offset:]
			out[i].Items = s.page(items, limit)
		}
	}
	return out, s.fail
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
	return s.page(items, limit), nil
}

func (s *fakeStore) page(items []messaging.Item, limit int) []messaging.Item {
	page := slices.DeleteFunc(slices.Clone(items), func(item messaging.Item) bool { return item.Offset == s.hole })
	return page[:min(limit, len(page))]
}

// fakeBus is one process's connection to a bus. What it publishes reaches the
// other ones.
type fakeBus struct {
	others []*fakeBus

	mu         sync.Mutex
	messages   chan *nats.Msg
	subscribed map[uuid.UUID]int
	down       bool
}

// newFakeBus connects to the bus that the others are on.
func newFakeBus(others ...*fakeBus) *fakeBus {
	b := &fakeBus{others: others, messages: make(chan *nats.Msg, 16), subscribed: map[uuid.UUID]int{}}
	for _, o := range others {
		o.others = append(o.others, b)
	}
	return b
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

func (b *fakeBus) SubscribeMany() error { return nil }

func (b *fakeBus) Publish(user uuid.UUID, data []byte) error {
	return b.send(subjects.User(user), data, func(o *fakeBus) bool { return o.subscribed[user] > 0 })
}

func (b *fakeBus) PublishMany(data []byte) error {
	return b.send(subjects.Many(), data, func(*fakeBus) bool { return true })
}

func (b *fakeBus) send(subject string, data []byte, wanted func(*fakeBus) bool) error {
	if !b.Connected() {
		return errors.New("the bus is down")
	}
	for _, o := range b.others {
		o.mu.Lock()
		if !o.down && wanted(o) {
			select {
			case o.messages <- &nats.Msg{Subject: subject, Data: bytes.Clone(data)}:
			default: // as NATS does
			}
		}
		o.mu.Unlock()
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

	// room, if set, is closed when there is room.
	room chan struct{}
	// strict wires want the payloads of fakeStore.
	strict bool

	mu      sync.Mutex
	offsets []int64
	wrong   []string
	signals []messaging.Signal
	movedAt time.Time
	ends    []Reason
	started time.Time
}

func (w *fakeWire) Deliver(items []messaging.Item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, item := range items {
		w.offsets = append(w.offsets, item.Offset)
		if want := fmt.Sprintf(`{"n":%d}`, item.Offset); w.strict && string(item.Payload) != want {
			w.wrong = append(w.wrong, string(item.Payload))
		}
	}
}

func (w *fakeWire) Signal(signal messaging.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals = append(w.signals, signal)
}

func (w *fakeWire) Room(ctx context.Context) error {
	if w.room != nil {
		select {
		case <-w.room:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

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
	// elsewhere is another process's connection to the bus.
	elsewhere *fakeBus
}

func newWorld(t *testing.T, options Options) world {
	t.Helper()
	w := world{store: newFakeStore(), bus: newFakeBus()}
	w.elsewhere = newFakeBus(w.bus)
	w.start(t, options)
	return w
}

// otherProcess is the hub of the other process.
func (w world) otherProcess(t *testing.T) world {
	t.Helper()
	other := world{store: w.store, bus: w.elsewhere, elsewhere: w.bus}
	other.start(t, Options{})
	return other
}

func (w *world) start(t *testing.T, options Options) {
	t.Helper()
	w.Hub = New(w.store, w.bus, options, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
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

// arrive is what another process publishes, of the release before.
func (w world) arrive(t *testing.T, items ...messaging.Item) {
	t.Helper()
	var n news
	for _, item := range items {
		n.Items = append(n.Items, busItem{item.Offset, item.Kind, item.Payload})
	}
	data, err := messaging.EncodeJSON(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.elsewhere.Publish(items[0].UserID, data); err != nil {
		t.Fatal(err)
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

// overflow sends until something does not fit, however fast the hub takes it.
func (w world) overflow() {
	for {
		select {
		case w.bus.messages <- &nats.Msg{Subject: subjects.User(uuid.New())}:
		default:
			return
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
		if n := len(wire.got()); n != resumePage {
			t.Errorf("%d items before the store is needed", n)
		}
		time.Sleep(5 * time.Second)
		if n := len(wire.got()); n != 250 {
			t.Errorf("%d items after the store is back", n)
		}
	})
}

// What is dropped while a client takes its replay ends it: it never gets a part.
func TestAReplayThatIsNoLongerKeptEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		w.store.add(user, 500)
		wire := &fakeWire{room: make(chan struct{})}
		link, err := w.Admit(wire)
		if err != nil {
			t.Fatal(err)
		}
		wire.link = link
		large := bytes.Repeat([]byte(" "), maxChunk)
		for i := range w.store.streams[user] {
			item := &w.store.streams[user][i]
			item.Payload = append(append(json.RawMessage(`{`), large...), item.Payload[1:]...)
		}
		var from int64
		if at, err := link.Attach(t.Context(), user, uuid.New(), &from); err != nil || !at.Recovered {
			t.Fatal(at, err)
		}
		link.Start()
		synctest.Wait()
		w.store.mu.Lock()
		w.store.tails[user] = 400
		w.store.mu.Unlock()
		close(wire.room)
		synctest.Wait()
		got := wire.got()
		if len(got) != resumePage || got[0] != 1 || got[len(got)-1] != resumePage {
			t.Errorf("got %v", got)
		}
		if diff := cmp.Diff([]Reason{Behind}, wire.ends); diff != "" {
			t.Error(diff)
		}
	})
}

// Items of a moment at midnight are of two days, the later of two may go first:
// what is before the hole is delivered, nothing beyond it, and the client learns
// of it when it resumes.
func TestAReplayWithAHoleEndsBeforeIt(t *testing.T) {
	t.Parallel()
	for name, hole := range map[string]int64{"on the first page": 3, "on a later page": resumePage + 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				user := uuid.New()
				w.store.add(user, 500)
				w.store.hole = hole
				var from int64
				wire, at := w.connect(t, user, &from)
				if !at.Recovered {
					t.Errorf("attached %+v", at)
				}
				synctest.Wait()
				if got := wire.got(); int64(len(got)) != hole-1 {
					t.Errorf("%d items, want those before %d", len(got), hole)
				}
				if diff := cmp.Diff([]Reason{Behind}, wire.ends); diff != "" {
					t.Error(diff)
				}
				before := hole - 1
				if _, again := w.connect(t, user, &before); again.Recovered || again.Offset != 500 {
					t.Errorf("resumed at the hole: %+v", again)
				}
			})
		})
	}
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
