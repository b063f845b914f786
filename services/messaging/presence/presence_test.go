package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/messaging"
)

// The tests run in synctest bubbles: their time is virtual.

// world is what processes share, and what users are told.
type world struct {
	t     *testing.T
	start time.Time

	mu        sync.Mutex
	audiences map[uuid.UUID][]uuid.UUID
	failing   bool
	looks     int
	pods      []*pod
	// told holds, by receiver, what they were told; last is the newest by receiver
	// and user.
	told map[uuid.UUID][]string
	last map[[2]uuid.UUID]Status
	name map[uuid.UUID]string
}

type pod struct {
	*Tracker
	w    *world
	note chan *nats.Msg
	deaf atomic.Bool // loses every note, in both directions
	gone bool
}

func newWorld(t *testing.T, pods int) *world {
	t.Helper()
	w := &world{
		t: t, start: time.Now(), audiences: map[uuid.UUID][]uuid.UUID{},
		told: map[uuid.UUID][]string{}, last: map[[2]uuid.UUID]Status{}, name: map[uuid.UUID]string{},
	}
	for range pods {
		p := &pod{w: w, note: make(chan *nats.Msg, busBuffer)}
		p.Tracker = New(w, p, w, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		w.pods = append(w.pods, p)
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) stop() {
	for _, p := range w.pods {
		p.end()
	}
}

func (p *pod) end() {
	if !p.gone {
		p.gone = true
		if err := p.Stop(context.Background()); err != nil {
			p.w.t.Error(err)
		}
	}
}

// users makes users who all share a conversation.
func (w *world) users(names ...string) []uuid.UUID {
	var all []uuid.UUID
	for _, name := range names {
		id := uuid.New()
		w.name[id] = name
		all = append(all, id)
	}
	for _, id := range all {
		for _, other := range all {
			if other != id {
				w.audiences[id] = append(w.audiences[id], other)
			}
		}
	}
	return all
}

func (w *world) Audiences(_ context.Context, users []uuid.UUID) (map[uuid.UUID][]uuid.UUID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.failing {
		return nil, errors.New("the database is away")
	}
	out := map[uuid.UUID][]uuid.UUID{}
	for _, user := range users {
		out[user] = w.audiences[user]
	}
	return out, nil
}

// Signal implements Announcer: everyone is connected.
func (w *world) Signal(users []uuid.UUID, signal messaging.Signal) {
	var p payload
	if err := json.Unmarshal(signal.Payload, &p); err != nil || signal.Kind != messaging.KindPresence {
		w.t.Errorf("signal %s %s: %v", signal.Kind, signal.Payload, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Since(w.start).Truncate(time.Second)
	for _, user := range users {
		w.told[user] = append(w.told[user], fmt.Sprintf("%s %s %s", at, w.name[p.UserID], p.Status))
		w.last[[2]uuid.UUID{user, p.UserID}] = p.Status
	}
}

// Publish implements Peers: every process hears it, the sender too.
func (p *pod) Publish(data []byte) error {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, other := range p.w.pods {
		if !p.deaf.Load() && !other.deaf.Load() {
			select {
			case other.note <- &nats.Msg{Data: data}:
			default:
			}
		}
	}
	return nil
}

func (p *pod) Messages() <-chan *nats.Msg { return p.note }

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (p *pod) join(user uuid.UUID, s Status) *Place {
	place := p.Join(user)
	place.Announce(s)
	return place
}

func (w *world) want(user uuid.UUID, want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if diff := cmp.Diff(want, w.told[user]); diff != "" {
		w.t.Errorf("%s was told otherwise (-want +got):\n%s", w.name[user], diff)
	}
	w.told[user] = nil
}

// A second after whatever happens, everything that is told at once is told.
const soon = time.Second

func TestArrivalsAndDepartures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.stop()
		all := w.users("ann", "bob", "cid")
		ann, bob, cid := all[0], all[1], all[2]

		a := w.pods[0].join(ann, Online)
		pass(soon)
		w.want(bob, "0s ann online")
		w.want(ann)

		// Who comes hears of who is there, wherever that is, and is told of.
		w.pods[1].join(bob, Away)
		pass(2 * soon)
		w.want(bob, "1s ann online")
		w.want(ann, "2s bob away")
		w.want(cid, "0s ann online", "2s bob away")

		// Back within the grace: no noise.
		a.Leave()
		pass(Grace - soon)
		a = w.pods[0].join(ann, Online)
		pass(2 * Grace)
		w.want(cid)

		a.Leave()
		pass(Grace + soon)
		w.want(cid, "42s ann offline")
	})
}

// A client that moves from pod to pod is not offline meanwhile, in whichever
// order it comes and leaves.
func TestMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.stop()
		all := w.users("ann", "bob")
		a := w.pods[0].join(all[0], Online)
		pass(soon)
		b := w.pods[1].join(all[0], Online) // make before break
		a.Leave()
		pass(2 * Grace)
		b.Leave()
		pass(soon)
		w.pods[0].join(all[0], Online)
		pass(2 * Grace)
		w.want(all[1], "0s ann online")
	})
}

// A user is what their greatest place is, and the others don't say less.
func TestTheGreatestPlaceCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.stop()
		all := w.users("ann", "bob")
		laptop := w.pods[0].join(all[0], Online)
		pass(soon)
		phone := w.pods[1].join(all[0], Away)
		pass(Grace)
		laptop.Leave()
		pass(Grace)
		w.want(all[1], "0s ann online", "12s ann away")
		phone.Leave()
		pass(2 * Grace)
		w.want(all[1], "31s ann offline")
	})
}

func TestChangesAreCoalesced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.stop()
		all := w.users("ann", "bob")
		a := w.pods[0].join(all[0], Online)
		for i := range 200 { // ends away
			pass(50 * time.Millisecond)
			a.Announce([]Status{Online, Away}[i%2])
		}
		pass(Grace)
		w.mu.Lock()
		n, looks := len(w.told[all[1]]), w.looks
		w.mu.Unlock()
		if n > 6 || looks > 12 {
			t.Errorf("%d signals and %d looks at the store for 10 s of changes", n, looks)
		}
		if w.last[[2]uuid.UUID{all[1], all[0]}] != Away {
			t.Error("the last change was not told")
		}
	})
}

// The database away means later, and that nothing else waits.
func TestTheStoreIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.stop()
		all := w.users("ann", "bob")
		w.failing = true
		w.pods[0].join(all[0], Online)
		pass(30 * time.Second)
		if w.looks > 10 {
			t.Errorf("%d looks in 30 s at a store that is away", w.looks)
		}
		w.want(all[1])
		w.mu.Lock()
		w.failing = false
		w.mu.Unlock()
		pass(retry + soon)
		if w.last[[2]uuid.UUID{all[1], all[0]}] != Online {
			t.Error("not told after the store came back")
		}
	})
}

// What a pod says that knows too little, one that knows better corrects.
func TestCorrections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.stop()
		all := w.users("ann", "bob")
		a := w.pods[0].join(all[0], Online)
		w.pods[1].join(all[0], Online)
		pass(soon)
		w.pods[1].deaf.Store(true) // it doesn't hear that the other one asks
		a.Leave()
		pass(Grace - soon)
		w.pods[1].deaf.Store(false)
		pass(5 * soon)
		told := w.told[all[1]]
		if len(told) < 2 || w.last[[2]uuid.UUID{all[1], all[0]}] != Online {
			t.Errorf("told %q, want offline, and online again", told)
		}
	})
}

// A pod that ends tells at once of those who were not heard of elsewhere.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.stop()
		all := w.users("ann", "bob", "cid")
		a, b := w.pods[0].join(all[0], Online), w.pods[0].join(all[1], Online)
		pass(2 * soon)
		w.told[all[2]] = nil
		a.Leave()
		b.Leave()
		w.pods[1].join(all[0], Online)
		pass(soon)
		w.pods[0].end()
		synctest.Wait()
		w.want(all[2], "3s bob offline")
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	b := newBook(uuid.New())
	now := time.Now()
	for range maxLeft + 10 {
		p := &Place{user: uuid.New()}
		b.announce(p, Online, now)
		b.leave(p, now)
	}
	if len(b.users) > maxLeft || b.left != len(b.users) {
		t.Errorf("%d users are kept, %d counted", len(b.users), b.left)
	}
	for _, n := range b.out.take() {
		if n.size() > maxIDs {
			t.Errorf("a note of %d users", n.size())
		}
	}
	later := now.Add(Interval)
	var everyone []uuid.UUID
	for range MaxAudience {
		everyone = append(everyone, uuid.New())
	}
	audiences := map[uuid.UUID][]uuid.UUID{}
	for range perTick {
		p := &Place{user: uuid.New()}
		b.announce(p, Online, now)
		audiences[p.user] = everyone
	}
	users := make([]uuid.UUID, 0, perTick)
	for user := range audiences {
		users = append(users, user)
	}
	if got := len(b.tell(users, audiences, later)); got != maxSignals/MaxAudience {
		t.Errorf("%d users told in one step, want %d", got, maxSignals/MaxAudience)
	}
	if got := len(b.due(later, 2*perTick)); got != perTick-maxSignals/MaxAudience {
		t.Errorf("%d users are still due", got)
	}
}

// Whatever happens on three pods, once it is quiet everyone believes what is
// true of everyone else, and nothing is kept of those who left.
func TestEverythingSettles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { settles(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func settles(t *testing.T, random *rand.Rand) {
	t.Helper()
	w := newWorld(t, 3)
	defer w.stop()
	all := w.users("ann", "bob", "cid", "dan")
	var places []*Place
	for range 60 {
		pass(time.Duration(random.IntN(4000)) * time.Millisecond)
		if len(places) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(places))
			if random.IntN(2) == 0 {
				places[i].Announce(Status(1 + random.IntN(2)))
			} else {
				places[i].Leave()
				places = append(places[:i], places[i+1:]...)
			}
			continue
		}
		pod := w.pods[random.IntN(len(w.pods))]
		places = append(places, pod.join(all[random.IntN(len(all))], Status(1+random.IntN(2))))
	}
	pass(3 * Grace)
	truth := map[uuid.UUID]Status{}
	for _, p := range places {
		truth[p.user] = max(truth[p.user], p.status)
	}
	for _, user := range all {
		for _, other := range all {
			if got := w.last[[2]uuid.UUID{user, other}]; user != other && got != truth[other] {
				t.Errorf("%s believes that %s is %s, want %s; told %q", w.name[user], w.name[other], got, truth[other], w.told[user])
			}
		}
	}
	// Who comes now hears the same.
	w.last = map[[2]uuid.UUID]Status{}
	for _, user := range all {
		w.pods[0].join(user, Online)
	}
	pass(Grace)
	for _, user := range all {
		for _, other := range all {
			if user != other && w.last[[2]uuid.UUID{user, other}] != Online {
				t.Errorf("%s does not know of %s", w.name[user], w.name[other])
			}
		}
	}
	for _, p := range w.pods {
		if p.book.left != 0 {
			t.Errorf("%d of those who left are kept", p.book.left)
		}
	}
}

func FuzzDecodeNote(f *testing.F) {
	id := uuid.NewString()
	f.Add([]byte(`{"from":"` + id + `","told":[{"user":"` + id + `","status":"online"}],"lowers":[{"user":"` + id + `","status":"offline"}]}`))
	f.Add([]byte(`{"from":"` + id + `","holds":[{"user":"` + id + `","status":"away"}],"asks":[{"user":"` + id + `","of":["` + id + `"]}],"later":1}`))
	f.Add([]byte(`{"told":[{"status":"busy"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := decodeNote(data)
		if err != nil {
			return
		}
		b := newBook(uuid.New())
		now := time.Now()
		for _, a := range n.Asks {
			for _, user := range a.Of {
				b.announce(&Place{user: user}, Away, now)
			}
		}
		b.hear(n, now)
		for _, s := range append(append(n.Told, n.Lowers...), n.Holds...) {
			_ = s.Status.String()
		}
		again, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeNote(again); err != nil {
			t.Fatalf("%s is read as %s, which is not read: %v", data, again, err)
		}
	})
}
