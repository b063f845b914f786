package hub

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// admit takes in a wire, whose link is the test's to attach.
func (w world) admit(t *testing.T, wire *fakeWire) *Link {
	t.Helper()
	link, err := w.Admit(wire)
	if err != nil {
		t.Fatal(err)
	}
	wire.link = link
	return link
}

// However far links come, and however they go: the hub holds nothing of them.
func TestLinksLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, w world, user, session uuid.UUID, from *int64, wire *fakeWire) *Link {
		t.Helper()
		link := w.admit(t, wire)
		if _, err := link.Attach(t.Context(), user, session, from); err != nil {
			t.Fatal(err)
		}
		link.Start()
		return link
	}
	ways := map[string]func(t *testing.T, w world){
		"before it is authenticated": func(t *testing.T, w world) {
			t.Helper()
			w.admit(t, &fakeWire{}).Leave()
		},
		"after an attach that failed": func(t *testing.T, w world) {
			t.Helper()
			link := w.admit(t, &fakeWire{})
			w.store.setFailure(errors.New("away"))
			if _, err := link.Attach(t.Context(), uuid.New(), uuid.New(), nil); err == nil {
				t.Error("attached without a store")
			}
			w.store.setFailure(nil)
			link.Leave()
		},
		"after a look that was not waited for": func(t *testing.T, w world) {
			t.Helper()
			w.store.setSlow(time.Second)
			defer w.store.setSlow(0)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			link := w.admit(t, &fakeWire{})
			if _, err := link.Attach(ctx, uuid.New(), uuid.New(), nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("attach: %v", err)
			}
			time.Sleep(2 * time.Second)
			link.Leave()
		},
		"after a look that was begun too late": func(t *testing.T, w world) {
			t.Helper()
			time.Sleep(lookupPause)
			w.store.setSlow(time.Second)
			defer w.store.setSlow(0)
			var others sync.WaitGroup
			for range resumers { // are kept busy
				other := w.admit(t, &fakeWire{})
				others.Go(func() {
					if _, err := other.Attach(t.Context(), uuid.New(), uuid.New(), nil); err != nil {
						t.Error(err)
					}
					other.Leave()
				})
				synctest.Wait()
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			link, user := w.admit(t, &fakeWire{}), uuid.New()
			if _, err := link.Attach(ctx, user, uuid.New(), nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("attach: %v", err)
			}
			if _, err := link.Attach(t.Context(), user, uuid.New(), nil); err != nil { // in its turn after the first
				t.Error(err)
			}
			link.Start()
			others.Wait()
			link.Leave()
		},
		"attached": func(t *testing.T, w world) {
			t.Helper()
			link := w.admit(t, &fakeWire{})
			if _, err := link.Attach(t.Context(), uuid.New(), uuid.New(), nil); err != nil {
				t.Fatal(err)
			}
			link.Leave()
		},
		"live": func(t *testing.T, w world) {
			t.Helper()
			start(t, w, uuid.New(), uuid.New(), nil, &fakeWire{}).Leave()
		},
		"within a replay": func(t *testing.T, w world) {
			t.Helper()
			user, from := uuid.New(), int64(0)
			w.store.add(user, 2*pageSize)
			link := start(t, w, user, uuid.New(), &from, &fakeWire{room: make(chan struct{})})
			synctest.Wait()
			link.Leave()
		},
		"with a gap": func(t *testing.T, w world) {
			t.Helper()
			user := uuid.New()
			link := start(t, w, user, uuid.New(), nil, &fakeWire{})
			w.arrive(t, w.store.add(user, 3)[2])
			link.Leave()
		},
		"in another session": func(t *testing.T, w world) {
			t.Helper()
			link := start(t, w, uuid.New(), uuid.New(), nil, &fakeWire{})
			link.Rebind(uuid.New())
			link.Leave()
		},
		"with its session": func(t *testing.T, w world) {
			t.Helper()
			session := uuid.New()
			start(t, w, uuid.New(), session, nil, &fakeWire{})
			w.EndSession(session) // the wire leaves
			synctest.Wait()
		},
		"one of two": func(t *testing.T, w world) {
			t.Helper()
			user, session := uuid.New(), uuid.New()
			one := start(t, w, user, session, nil, &fakeWire{})
			two := start(t, w, user, session, nil, &fakeWire{})
			one.Leave()
			two.Leave()
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{})
				defer w.stop(t)
				for range 20 {
					way(t, w)
				}
				time.Sleep(3 * tick) // of the bubble's time: what is due is done
				synctest.Wait()
				w.wantEmpty(t)
			})
		})
	}
}

// wantEmpty fails unless nothing of any link is left.
func (w world) wantEmpty(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range map[string]int{
		"links": len(w.links), "users": len(w.users), "sessions": len(w.sessions), "fresh users": len(w.fresh),
		"pending": w.counts[pending], "live": w.counts[live], "draining": w.counts[draining],
		"users to fill": len(w.fills.queued) + len(w.fills.waiting), "lookups": len(w.lookups), "replays": len(w.replays), "gaps": len(w.gaps),
	} {
		if n != 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
	w.bus.mu.Lock()
	defer w.bus.mu.Unlock()
	for _, n := range w.bus.subscribed {
		if n != 0 {
			t.Fatalf("a user is subscribed to %d times", n)
		}
	}
}
