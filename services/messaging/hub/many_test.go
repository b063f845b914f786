package hub

import (
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// One message to many users is one on the bus, and each gets it at an offset of
// its own, wherever it is connected; few users get one each.
func TestWhatManyGetIsSentOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ members, wantOnBus int }{
		"a pair":               {2, 2},
		"few":                  {manyFrom - 1, manyFrom - 1},
		"many":                 {manyFrom, 1},
		"a large conversation": {200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				listener := newFakeBus(w.bus, w.elsewhere)
				other := w.otherProcess(t)
				defer other.stop(t)

				payload := json.RawMessage(`{"text":"hello"}`)
				var wires []*fakeWire
				var items []messaging.Item
				for i := range tt.members {
					user := uuid.New()
					listener.subscribed[user]++
					w.store.add(user, i%3) // they are not all at one offset
					wire, _ := []world{w, other}[i%2].connect(t, user, nil)
					w.store.add(user, 1)
					wires = append(wires, wire)
					items = append(items, messaging.Item{UserID: user, Offset: int64(i%3) + 1, Kind: messaging.KindMessage, Payload: payload})
				}
				w.Announce(items)
				synctest.Wait()
				for i, wire := range wires {
					if diff := cmp.Diff([]int64{int64(i%3) + 1}, wire.got()); diff != "" {
						t.Errorf("member %d: %s", i, diff)
					}
				}
				if n := len(listener.messages); n != tt.wantOnBus {
					t.Errorf("%d messages on the bus, want %d", n, tt.wantOnBus)
				}
				if w.store.reads != 0 {
					t.Errorf("the store was read %d times", w.store.reads)
				}
			})
		})
	}
}

// A batch's items come in the order of its messages; a user who is in several
// conversations gets them in the order of its stream.
func TestABatchIsDeliveredInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user, other := uuid.New(), uuid.New()
		wire, _ := w.connect(t, user, nil)
		wire.strict = true
		var batch []messaging.Item
		for _, item := range w.store.add(user, 5) {
			batch = append(batch, item, messaging.Item{UserID: other, Offset: item.Offset, Kind: item.Kind, Payload: item.Payload})
		}
		w.Announce(batch)
		wire.want(t, 1, 2, 3, 4, 5)
		if len(wire.wrong) > 0 {
			t.Errorf("another item's payload: %v", wire.wrong)
		}
	})
}

func TestSignalsReachEveryoneOnce(t *testing.T) {
	t.Parallel()
	for name, members := range map[string]int{"few": 3, "many": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				other := w.otherProcess(t)
				defer other.stop(t)
				var users []uuid.UUID
				var wires []*fakeWire
				for i := range members {
					user := uuid.New()
					wire, _ := []world{w, other}[i%2].connect(t, user, nil)
					users, wires = append(users, user), append(wires, wire)
				}
				stranger, _ := w.connect(t, uuid.New(), nil)
				signal := messaging.Signal{Kind: messaging.KindPresence, Payload: json.RawMessage(`{"status":"online"}`)}
				w.Signal(users, signal)
				synctest.Wait()
				for i, wire := range wires {
					if diff := cmp.Diff([]messaging.Signal{signal}, wire.signals); diff != "" {
						t.Errorf("member %d: %s", i, diff)
					}
				}
				if len(stranger.signals) > 0 {
					t.Error("a stranger heard of it")
				}
			})
		})
	}
}

// What many should have got and the bus did not take is told when it is back.
func TestWhatManyMissedIsToldLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		other := w.otherProcess(t)
		defer other.stop(t)
		var items []messaging.Item
		var wires []*fakeWire
		for range manyFrom {
			user := uuid.New()
			wire, _ := w.connect(t, user, nil)
			wires = append(wires, wire)
			items = append(items, w.store.add(user, 1)...)
		}
		payload := items[0].Payload
		for i := range items {
			items[i].Payload = payload
		}
		w.elsewhere.setDown(true)
		other.Announce(items)
		w.elsewhere.setDown(false)
		other.BusReconnected()
		time.Sleep(tick / 4)
		for _, wire := range wires {
			if !slices.Equal(wire.got(), []int64{1}) {
				t.Errorf("got %v", wire.got())
			}
		}
	})
}

// Who attaches alone waits for nobody, and those who attach one after the other, in
// a moment, are looked up together.
func TestLinksThatAttachSoonAfterOthersAreLookedUpTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		attach := func() time.Duration {
			start := time.Now()
			link, err := w.Admit(&fakeWire{})
			if err == nil {
				_, err = link.Attach(t.Context(), uuid.New(), uuid.New(), nil)
			}
			if err != nil {
				t.Error(err)
				return 0
			}
			defer link.Leave()
			return time.Since(start)
		}
		for range resumers {
			if took := attach(); took != 0 {
				t.Errorf("waited %s for nobody", took)
			}
		}
		const links = 10
		var all sync.WaitGroup
		for range links {
			all.Go(func() {
				if took := attach(); took > lookupPause {
					t.Errorf("waited %s", took)
				}
			})
			time.Sleep(100 * time.Microsecond)
		}
		all.Wait()
		if w.store.resumes > 2*resumers {
			t.Errorf("%d looks for %d links, want at most %d", w.store.resumes, links+resumers, 2*resumers)
		}
	})
}

// Thousands that attach at once are a few looks at the store.
func TestLinksThatAttachTogetherAreLookedUpTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		w.store.setSlow(10 * time.Millisecond)
		const links = 1000
		start := time.Now()
		done := make(chan *fakeWire, links)
		for range links {
			user := uuid.New()
			w.store.add(user, 3)
			go func() {
				wire := &fakeWire{}
				link, err := w.Admit(wire)
				if err != nil {
					t.Error(err)
				}
				wire.link = link
				from := int64(1)
				if at, err := link.Attach(t.Context(), user, uuid.New(), &from); err != nil || !at.Recovered {
					t.Errorf("%+v, %v", at, err)
				}
				link.Start()
				done <- wire
			}()
		}
		for range links {
			wire := <-done
			if diff := cmp.Diff([]int64{2, 3}, wire.got()); diff != "" {
				t.Fatal(diff)
			}
		}
		if most := links/lookupBatch + 2*resumers; w.store.resumes > most {
			t.Errorf("%d looks, want at most %d", w.store.resumes, most)
		}
		if took, most := time.Since(start), (links/lookupBatch/resumers+2)*10*time.Millisecond+lookupPause; took > most {
			t.Errorf("took %s, want at most %s", took, most)
		}
		if w.store.reads != 0 {
			t.Errorf("%d more reads", w.store.reads)
		}
	})
}
