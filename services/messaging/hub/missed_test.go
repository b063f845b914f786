package hub

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/marketplane/marketplane/services/messaging"
)

// What one process writes while it alone is cut off from the bus reaches the
// others' clients when it is back, not with the next comparison.
func TestWhatCouldNotBePublishedIsToldLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		wire, _ := w.connect(t, user, nil)
		time.Sleep(time.Minute + tick/4) // between two comparisons

		other := w.otherProcess(t)
		defer other.stop(t)
		w.elsewhere.setDown(true)
		other.Announce(w.store.add(user, 2))
		other.Announce(w.store.add(user, 1))
		other.BusReconnected() // and lost again
		wire.want(t)
		w.elsewhere.setDown(false)
		other.BusReconnected()
		time.Sleep(tick / 4)
		wire.want(t, 1, 2, 3)
		other.BusReconnected()
		if n := len(other.missed.take()); n != 0 {
			t.Errorf("%d heads are told for ever", n)
		}
	})
}

func TestWhatTheBusDoesNotTakeIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		w.bus.setDown(true)
		user := uuid.New()
		w.Announce(w.store.add(user, 2))
		w.Signal([]uuid.UUID{user}, messaging.Signal{Kind: messaging.KindTyping, Payload: json.RawMessage(`{}`)})
		for reason, want := range map[string]float64{itemNotPublished: 2, signalNotPublished: 1} {
			if got := testutil.ToFloat64(w.metrics.dropped.WithLabelValues(reason)); got != want {
				t.Errorf("%s: %v, want %v", reason, got, want)
			}
		}
	})
}

func TestMissedHeadsAreBounded(t *testing.T) {
	t.Parallel()
	m := missed{heads: map[uuid.UUID]int64{}}
	first := uuid.New()
	m.add(first, 2)
	m.add(first, 1)
	for range 2 * maxMissed {
		m.add(uuid.New(), 1)
	}
	m.add(first, 3)
	heads := m.take()
	if len(heads) != maxMissed || heads[first] != 3 {
		t.Errorf("%d heads, the first at %d", len(heads), heads[first])
	}
}
