package notify

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestWhoIsNotified(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.start()
		pass(time.Second)
		conversation, members := w.conversation(4)
		names := map[uuid.UUID]string{members[0]: "sender", members[1]: "absent", members[2]: "reader", members[3]: "connected"}
		w.connect(members[3], true)
		w.send(conversation, members[0])
		w.send(conversation, members[0])
		w.markRead(conversation, members[2], 2)

		pass(soonLag - 2*poll)
		if got := w.taken(); got != nil {
			t.Errorf("notified before a commit must be over: %v", got)
		}
		pass(5 * poll)
		if diff := cmp.Diff([]string{"absent: 2, 2 unread"}, texts(w.taken(), names)); diff != "" {
			t.Errorf("first look (-want +got):\n%s", diff)
		}
		// The connection was dead, as it turns out, and someone writes again.
		w.connect(members[3], false)
		w.send(conversation, members[1])
		pass(lateLag)
		want := []string{"connected: 3, 3 unread", "reader: 3, 1 unread", "sender: 3, 1 unread"}
		if diff := cmp.Diff(want, texts(w.taken(), names)); diff != "" {
			t.Errorf("second message (-want +got):\n%s", diff)
		}
		pass(10 * time.Minute)
		if got := w.taken(); got != nil {
			t.Errorf("notified once more: %v", got)
		}
	})
}

// Whose connection breaks without a word is notified at the second look.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.start()
		pass(time.Second)
		conversation, members := w.conversation(2)
		w.connect(members[1], true)
		w.send(conversation, members[0])
		pass(soonLag + 30*time.Second)
		w.connect(members[1], false)
		pass(lateLag - soonLag - 31*time.Second)
		if got := w.taken(); got != nil {
			t.Errorf("notified early: %v", got)
		}
		pass(5 * time.Second)
		if got := w.taken(); len(got) != 1 || got[0].UserID != members[1] || got[0].Seq != 1 {
			t.Errorf("notified of %v", got)
		}
	})
}

// The system's own messages are everyone's.
func TestSystemMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.start()
		pass(time.Second)
		conversation, _ := w.conversation(2)
		w.send(conversation, uuid.Nil)
		pass(soonLag + 5*time.Second)
		if got := w.taken(); len(got) != 2 || got[0].From != uuid.Nil {
			t.Errorf("notified: %v", got)
		}
	})
}

// Without the bus nobody is known to be connected, and everyone is told.
func TestTheBusIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.busErr = errAway
		w.start()
		pass(time.Second)
		conversation, members := w.conversation(2)
		w.connect(members[1], true)
		w.send(conversation, members[0])
		pass(soonLag + 5*time.Second)
		if got := w.taken(); len(got) != 1 {
			t.Errorf("notified: %v", got)
		}
	})
}

// A back end or a store that is away for an hour costs nothing but time.
func TestOutages(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ begin, end func(*world) }{
		"the webhook": {
			func(w *world) { w.answer = func(Notification) error { return errAway } },
			func(w *world) { w.answer = nil },
		},
		"the webhook is too busy": {
			func(w *world) {
				w.answer = func(Notification) error { return &RefusalError{Status: 503, Verdict: NotNow, RetryAfter: time.Hour} }
			},
			func(w *world) { w.answer = nil },
		},
		"the webhook is broken": {
			func(w *world) {
				w.answer = func(Notification) error { return &RefusalError{Status: 500, Verdict: Unclear} }
			},
			func(w *world) { w.answer = nil },
		},
		"the webhook hangs": {
			func(w *world) { w.takes = time.Hour },
			func(w *world) { w.takes = 0 },
		},
		"the store": {
			func(w *world) { w.storeErr = errAway },
			func(w *world) { w.storeErr = nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				w.start()
				w.start()
				pass(time.Minute)
				w.set(func() { tt.begin(w) })
				want := map[string]bool{}
				for range 60 {
					conversation, members := w.conversation(2)
					m := w.send(conversation, members[0])
					want[Notification{UserID: members[1], ConversationID: conversation, Seq: m.Seq}.ID()] = true
					pass(time.Minute)
				}
				if got := w.taken(); got != nil {
					t.Errorf("taken meanwhile: %v", got)
				}
				if limit := 60 * 60 / 20 * perRecord; w.asked > limit {
					t.Errorf("%d requests in an hour", w.asked)
				}
				w.set(func() { tt.end(w) })
				pass(2*maxBackoff + lateLag)
				for _, n := range w.taken() {
					if !want[n.ID()] {
						t.Errorf("%s is notified twice, or for nothing", n.ID())
					}
					delete(want, n.ID())
				}
				if len(want) > 0 {
					t.Errorf("%d were lost", len(want))
				}
			})
		})
	}
}

// What the back end refuses, and nothing else, is tried some more times and given
// up; it holds up nobody.
func TestSomeAreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refusal RefusalError
		tries   int
		within  time.Duration
	}{
		"for good":    {RefusalError{Status: 422, Verdict: Never}, neverTries, 10 * time.Second},
		"who knows":   {RefusalError{Status: 500, Verdict: Unclear}, unclearTries, 5 * time.Minute},
		"at any look": {RefusalError{Status: 422, Verdict: Never}, neverTries, lateLag + 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				unwanted, them := w.conversation(2)
				tries := 0
				w.answer = func(n Notification) error {
					if n.ConversationID == unwanted {
						tries++
						return &tt.refusal
					}
					return nil
				}
				first := w.start()
				pass(time.Second)
				if name == "at any look" {
					w.connect(them[1], true) // and it turns out to be dead
					defer time.AfterFunc(soonLag+20*time.Second, func() { w.connect(them[1], false) }).Stop()
				}
				others := map[uuid.UUID]bool{}
				for range 50 {
					conversation, members := w.conversation(2)
					w.send(conversation, members[0])
					others[conversation] = true
					if len(others) == 25 {
						w.send(unwanted, them[0])
					}
				}
				pass(soonLag + 2*poll)
				for _, n := range w.taken() {
					delete(others, n.ConversationID)
				}
				if len(others) > 0 {
					t.Errorf("%d others wait", len(others))
				}
				// Those who come later are not held up, either.
				conversation, members := w.conversation(2)
				w.send(conversation, members[0])
				pass(soonLag + 2*poll)
				if got := w.taken(); len(got) != 1 {
					t.Errorf("%d who came later were notified", len(got))
				}
				for range 3 {
					conversation, members := w.conversation(2)
					w.send(conversation, members[0])
					pass(tt.within / 3)
				}
				pass(soonLag)
				if got := len(w.taken()); tries != tt.tries || got != 3 {
					t.Errorf("%d tries, want %d; %d others", tries, tt.tries, got)
				}
				// Once all is settled, another process has nothing to do anew.
				first.cancel()
				<-first.done
				w.start()
				pass(2 * lateLag)
				if tries != tt.tries || w.taken() != nil {
					t.Errorf("%d tries in the end", tries)
				}
			})
		})
	}
}

// Where everything is refused, the back end is to blame: nothing is given up.
// What was set aside is not forgotten when another process takes over.
func TestAllAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.answer = func(Notification) error { return &RefusalError{Status: 500, Verdict: Unclear} }
		first := w.start()
		pass(time.Second)
		want := map[uuid.UUID]bool{}
		for range 3 * maxUnclear {
			conversation, members := w.conversation(2)
			w.send(conversation, members[0])
			want[conversation] = true
			pass(time.Minute)
		}
		pass(6 * time.Hour)
		if asked := w.asked; asked > 7*60*2*(maxUnclear+perRecord) {
			t.Errorf("%d requests in 7 hours", asked)
		}
		first.kill()
		w.start()
		pass(time.Hour)
		w.set(func() { w.answer = nil })
		pass(2*maxBackoff + idle)
		for _, n := range w.taken() {
			if !want[n.ConversationID] {
				t.Errorf("%s is notified twice", n.ID())
			}
			delete(want, n.ConversationID)
		}
		if len(want) > 0 {
			t.Errorf("%d were lost", len(want))
		}
	})
}

// However many are refused for good, they are bounded, and the work goes on.
func TestManyAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.answer = func(n Notification) error {
			if n.ConversationID[0]%8 != 0 {
				return &RefusalError{Status: 410, Verdict: Never}
			}
			return nil
		}
		p := w.start()
		pass(time.Second)
		want := 0
		for range 5 * maxAside {
			conversation, members := w.conversation(2)
			w.send(conversation, members[0])
			if conversation[0]%8 == 0 {
				want++
			}
		}
		pass(soonLag + time.Minute)
		if got := len(w.taken()); got != want {
			t.Errorf("%d were notified, want %d", got, want)
		}
		if n := len(p.worker.aside); n != 0 {
			t.Errorf("%d are still set aside", n)
		}
	})
}

func TestOldMessagesAreLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		first := w.start()
		pass(time.Minute)
		first.cancel()
		<-first.done
		for range 10 { // once a day
			conversation, members := w.conversation(2)
			w.send(conversation, members[0])
			pass(24 * time.Hour)
		}
		w.start()
		pass(time.Hour)
		if got := w.taken(); len(got) != 2 {
			t.Errorf("%d notifications after ten days, want those of less than three days ago", len(got))
		}
	})
}

// A process that is told to stop hands over at once, one that is killed after its
// lease; no message is lost, and what was under way comes again with its id.
func TestTakingOver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end     func(*process)
		within  time.Duration
		doubles int
	}{
		"stopped": {func(p *process) { p.cancel(); <-p.done }, idle + 2*poll, 0},
		"killed":  {(*process).kill, lease + idle + 2*poll, perRecord},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				first := w.start()
				pass(2 * poll)
				w.start()
				var conversations int
				for range 100 {
					conversation, members := w.conversation(2)
					w.send(conversation, members[0])
					conversations++
				}
				w.set(func() { w.takes = 500 * time.Millisecond })
				pass(soonLag + 4*poll) // in the midst of it
				tt.end(first)
				had := w.taken()
				if len(had) == 0 || len(had) >= conversations {
					t.Fatalf("%d were sent before", len(had))
				}
				w.set(func() { w.takes = 0 })
				pass(tt.within)
				ids := map[string]int{}
				for _, n := range append(had, w.taken()...) {
					ids[n.ID()]++
				}
				doubles := 0
				for _, n := range ids {
					doubles += n - 1
				}
				if len(ids) != conversations || doubles > tt.doubles {
					t.Errorf("%d of %d were notified, and %d twice", len(ids), conversations, doubles)
				}
			})
		})
	}
}

// Whatever fails, only the holder sends (see process.Send), nothing is lost, and
// nobody is notified of what they had read long before.
func TestAnythingMayFail(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { anythingFails(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func anythingFails(t *testing.T, random *rand.Rand) {
	t.Helper()
	w := newWorld(t)
	defer w.stop()
	for range 3 {
		w.start()
	}
	pass(time.Second)
	want := map[member]int64{}
	type place struct {
		id      uuid.UUID
		members []uuid.UUID
	}
	var places []place
	for range 20 {
		id, members := w.conversation(2 + random.IntN(4))
		places = append(places, place{id, members})
	}
	for range 300 {
		pass(time.Duration(random.IntN(3000)) * time.Millisecond)
		p := places[random.IntN(len(places))]
		switch random.IntN(12) {
		case 0:
			w.set(func() { w.takes = time.Duration(random.IntN(12_000)) * time.Millisecond })
		case 1:
			err := []error{nil, errAway, &RefusalError{Status: 500, Verdict: Unclear}}[random.IntN(3)]
			w.set(func() { w.answer = func(Notification) error { return err } })
		case 2:
			err := []error{nil, nil, errAway}[random.IntN(3)]
			w.set(func() { w.storeErr = err })
		case 3:
			err := []error{nil, errAway}[random.IntN(2)]
			w.set(func() { w.busErr = err })
		case 4:
			if victim := w.workers[random.IntN(len(w.workers))]; victim.alive(t.Context()) == nil {
				victim.kill()
				w.start()
			}
		default:
			sender := random.IntN(len(p.members))
			m := w.send(p.id, p.members[sender])
			for i, user := range p.members {
				if i != sender {
					want[member{p.id, user}] = m.Seq
				}
			}
		}
	}
	w.set(func() { w.answer, w.storeErr, w.takes = nil, nil, 0 })
	pass(10 * time.Minute)
	got := map[member]int64{}
	for _, n := range w.taken() {
		m := member{n.ConversationID, n.UserID}
		got[m] = max(got[m], n.Seq)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(member{})); diff != "" {
		t.Errorf("the newest message that each was notified of (-want +got):\n%s", diff)
	}
}
