package hub

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// cutBus is a process's own connection to the bus, which breaks.
type cutBus struct {
	*fakeBus
	cut bool
}

func (b *cutBus) Publish(user uuid.UUID, data []byte) error {
	if b.cut {
		return errors.New("cut off")
	}
	return b.fakeBus.Publish(user, data)
}

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

		connection := &cutBus{fakeBus: w.elsewhere, cut: true}
		other := New(w.store, connection, Options{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		other.Announce(w.store.add(user, 2))
		other.Announce(w.store.add(user, 1))
		other.BusReconnected() // and lost again
		wire.want(t)
		connection.cut = false
		other.BusReconnected()
		time.Sleep(tick / 4)
		wire.want(t, 1, 2, 3)
		other.BusReconnected()
		if n := len(other.missed.take()); n != 0 {
			t.Errorf("%d heads are told for ever", n)
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
