// Package wheel is a hashed timing wheel (Varghese and Lauck, 1987): many
// timers, most of which are put off or stopped before they fire, at the price
// of one goroutine and one lock. A timer fires late by up to a tick, and never
// early. It knows nothing of what its timers are for.
package wheel

import (
	"context"
	"sync"
	"time"
)

const (
	// DefaultTick is short beside what connections wait for: seconds.
	DefaultTick = 50 * time.Millisecond
	// slots times a tick is one round. Timers of later rounds are passed over
	// once a round each.
	slots = 512
)

// Wheel runs timers. Make it with New, and Start it.
type Wheel struct {
	tick  time.Duration
	now   func() time.Time
	start time.Time

	mu      sync.Mutex
	slots   [slots]Timer // each the head of a ring
	current int64        // ticks that have been handled

	stopOnce sync.Once
	stop     chan struct{}
	done     chan struct{}
}

// Timer is one timer of one wheel, embedded in what it is for. Init it first.
type Timer struct {
	fire       func()
	next, prev *Timer // nil while it does not run
	due        int64  // in ticks
}

// Init sets what is called when the timer fires: on the wheel's own goroutine,
// so it must not block.
func (t *Timer) Init(fire func()) { t.fire = fire }

// New makes a wheel with a tick; now is the clock.
func New(tick time.Duration, now func() time.Time) *Wheel {
	w := &Wheel{tick: tick, now: now, start: now(), stop: make(chan struct{}), done: make(chan struct{})}
	for i := range w.slots {
		head := &w.slots[i]
		head.next, head.prev = head, head
	}
	return w
}

// Start begins to turn.
func (w *Wheel) Start(context.Context) error {
	go func() {
		defer close(w.done)
		ticker := time.NewTicker(w.tick)
		defer ticker.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-ticker.C:
				w.advance()
			}
		}
	}()
	return nil
}

// Stop ends a wheel that was started; what still runs on it never fires. It is
// safe to call twice.
func (w *Wheel) Stop(ctx context.Context) error {
	w.stopOnce.Do(func() { close(w.stop) })
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Schedule makes the timer fire once after d; if it runs already, then instead
// of that.
func (w *Wheel) Schedule(t *Timer, d time.Duration) {
	due := int64((w.now().Sub(w.start) + d + w.tick - 1) / w.tick)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.unlink()
	t.due = max(due, w.current+1)
	head := &w.slots[t.due%slots]
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
}

// Cancel stops a timer. It may be firing at this moment: whoever cancels
// compares its own state then.
func (w *Wheel) Cancel(t *Timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.unlink()
}

// unlink needs the wheel's mu.
func (t *Timer) unlink() {
	if t.next != nil {
		t.prev.next, t.next.prev = t.next, t.prev
		t.next, t.prev = nil, nil
	}
}

// advance fires what is due.
func (w *Wheel) advance() {
	for _, t := range w.take() {
		t.fire()
	}
}

// take takes what is due off the wheel. After a long pause of the process every
// slot is looked at once.
func (w *Wheel) take() []*Timer {
	now := int64(w.now().Sub(w.start) / w.tick)
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []*Timer
	for i := range min(now-w.current, slots) {
		head := &w.slots[(w.current+1+i)%slots]
		for t := head.next; t != head; {
			next := t.next
			if t.due <= now {
				t.unlink()
				due = append(due, t)
			}
			t = next
		}
	}
	w.current = max(w.current, now)
	return due
}
