package wheel

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// Random timers are scheduled, put off and cancelled; each fires once, in the
// tick after its time, and never before.
func TestTimersFireInTheirTick(t *testing.T) {
	t.Parallel()
	const tick = 10 * time.Millisecond
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	now := time.Unix(0, 0)
	w := New(tick, func() time.Time { return now })
	const timers = 300
	var (
		all   [timers]Timer
		want  [timers]time.Time // zero while it does not run
		fired int
	)
	for i := range all {
		all[i].Init(func() {
			fired++
			if want[i].IsZero() || now.Before(want[i]) {
				t.Fatalf("timer %d fired at %s, want %s", i, now, want[i])
			}
			want[i] = time.Time{}
		})
	}
	for range 20_000 {
		i := random.IntN(timers)
		switch random.IntN(4) {
		case 0:
			w.Cancel(&all[i])
			want[i] = time.Time{}
		case 1:
			now = now.Add(time.Duration(random.Int64N(int64(3 * tick))))
			if random.IntN(200) == 0 {
				now = now.Add(7 * time.Second) // the process was suspended for more than a round
			}
			w.advance()
			for i, due := range want {
				if !due.IsZero() && now.Sub(due) >= tick {
					t.Fatalf("timer %d is late by %s", i, now.Sub(due))
				}
			}
		default:
			d := time.Duration(random.Int64N(int64(12 * time.Second)))
			w.Schedule(&all[i], d)
			want[i] = now.Add(d)
		}
	}
	if fired < 1000 {
		t.Errorf("only %d timers fired", fired)
	}
}

func TestATimerThatFiresMaySchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := New(DefaultTick, time.Now)
		if err := w.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var timer Timer
		fired := make(chan time.Duration)
		start, n := time.Now(), 0
		timer.Init(func() {
			if n++; n < 3 {
				w.Schedule(&timer, time.Second)
				return
			}
			fired <- time.Since(start)
		})
		w.Schedule(&timer, 0)
		if took := <-fired; took < 2*time.Second || took > 2*time.Second+3*DefaultTick {
			t.Errorf("fired after %s", took)
		}
		for range 2 {
			if err := w.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkScheduleAndCancel(b *testing.B) {
	w := New(DefaultTick, time.Now)
	timers := make([]Timer, 15_000)
	for i := range timers {
		timers[i].Init(func() {})
		w.Schedule(&timers[i], 25*time.Second)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t := &timers[i%len(timers)]
		w.Schedule(t, 25*time.Second)
	}
}
