package hub

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestResumesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		w.store.add(user, 5)
		w.store.tails[user] = 2
		head, behind, gone := int64(5), int64(3), int64(1)
		w.connect(t, user, nil)
		for range 2 {
			w.connect(t, user, &head)
		}
		for range 3 {
			w.connect(t, user, &behind)
		}
		for range 4 {
			w.connect(t, user, &gone)
		}
		want := `
# HELP marketplane_messaging_resumes_total Authenticated connections, by where they go on from (store: they had missed something; bus: nothing) and by result: fresh (no cursor), recovered, not_recovered.
# TYPE marketplane_messaging_resumes_total counter
marketplane_messaging_resumes_total{result="fresh",source="bus"} 1
marketplane_messaging_resumes_total{result="not_recovered",source="bus"} 4
marketplane_messaging_resumes_total{result="recovered",source="bus"} 2
marketplane_messaging_resumes_total{result="recovered",source="store"} 3
`
		if err := testutil.CollectAndCompare(w.metrics.resumes, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

// What is only late is no gap; what the bus lost is one, and one read closes it.
func TestGapsAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		defer w.stop(t)
		user := uuid.New()
		wire, _ := w.connect(t, user, nil)
		items := w.store.add(user, 5)
		w.arrive(t, items[1])
		w.arrive(t, items[0])
		time.Sleep(100 * time.Millisecond) // of the bubble's time
		wire.want(t, 1, 2)
		if n := testutil.ToFloat64(w.metrics.gaps); n != 0 {
			t.Errorf("%v gaps where an item was late", n)
		}
		w.arrive(t, items[4])
		time.Sleep(100 * time.Millisecond)
		wire.want(t, 1, 2, 3, 4, 5)
		if n := testutil.ToFloat64(w.metrics.gaps); n != 1 {
			t.Errorf("%v gaps, want 1", n)
		}
		if n := testutil.ToFloat64(w.metrics.filled.WithLabelValues("ok")); n != 1 {
			t.Errorf("%v reads closed a gap, want 1", n)
		}
	})
}
