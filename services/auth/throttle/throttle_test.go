package throttle

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newTest(burst int, every time.Duration) (*Throttle, *clock) {
	c := &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return New(burst, every, c.now), c
}

func TestBurstThenRate(t *testing.T) {
	th, c := newTest(3, 10*time.Second)
	for i := range 3 {
		if _, ok := th.Take("a"); !ok {
			t.Fatalf("attempt %d of the burst refused", i)
		}
	}
	wait, ok := th.Take("a")
	if ok || wait != 10*time.Second {
		t.Fatalf("over the burst: wait %s, ok %t; want 10s, false", wait, ok)
	}
	if _, ok := th.Take("b"); !ok {
		t.Error("another key pays for it")
	}
	c.at = c.at.Add(wait - 1)
	if wait, ok := th.Take("a"); ok || wait != 1 {
		t.Errorf("a moment early: wait %s, ok %t", wait, ok)
	}
	c.at = c.at.Add(1)
	if _, ok := th.Take("a"); !ok {
		t.Error("refused after the wait that was told")
	}
	if _, ok := th.Take("a"); ok {
		t.Error("more than one after one period")
	}
	// Never for ever.
	c.at = c.at.Add(time.Hour)
	for i := range 3 {
		if _, ok := th.Take("a"); !ok {
			t.Fatalf("attempt %d refused after an hour's rest", i)
		}
	}
}

func TestReturn(t *testing.T) {
	th, _ := newTest(2, time.Second)
	for range 100 {
		if _, ok := th.Take("a"); !ok {
			t.Fatal("attempts that were returned count")
		}
		th.Return("a")
	}
	if len(th.full) != 0 {
		t.Errorf("%d keys at rest are held", len(th.full))
	}
	th.Return("never taken")
	th.Return("never taken")
	for range 2 {
		th.Take("never taken")
	}
	if _, ok := th.Take("never taken"); ok {
		t.Error("returning makes a bucket deeper")
	}
}

func TestManyAtOnce(t *testing.T) {
	th, _ := newTest(10, time.Minute)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, ok := th.Take("a"); ok {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 10 {
		t.Errorf("%d got through at once, want 10", taken.Load())
	}
}

func TestKeysAreBounded(t *testing.T) {
	th, c := newTest(1, time.Second)
	th.max = 50
	for i := range 1000 {
		if _, ok := th.Take(strconv.Itoa(i)); !ok {
			t.Fatalf("key %d refused", i)
		}
		c.at = c.at.Add(10 * time.Millisecond)
		if len(th.full) > th.max {
			t.Fatalf("%d keys held, want at most %d", len(th.full), th.max)
		}
	}
}
