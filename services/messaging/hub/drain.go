package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// pace spreads the moves of a drain. Pure: it knows no clock.
type pace struct {
	// total is how many links are to be told.
	total int
	// span is the time over which they are told, and patience how long each
	// then has to leave by itself. Together they are the drain's window.
	span, patience time.Duration
}

// maxPatience is what a client needs at most to connect elsewhere and resume.
const maxPatience = 10 * time.Second

func newPace(total int, window time.Duration) pace {
	patience := min(window/4, maxPatience)
	return pace{total: total, span: window - patience, patience: patience}
}

// due is how many links must have been told when elapsed of the span is over.
// The first is told at once, and the last at the span's end.
func (p pace) due(elapsed time.Duration) int {
	if p.span <= 0 || elapsed >= p.span {
		return p.total
	}
	return min(p.total, 1+int(float64(p.total)*float64(elapsed)/float64(p.span)))
}

// step is the time between two looks at due.
func (p pace) step() time.Duration {
	const shortest, longest = 5 * time.Millisecond, 250 * time.Millisecond
	if p.total == 0 {
		return longest
	}
	return min(max(p.span/time.Duration(p.total), shortest), longest)
}

// errNotEmpty says that connections were left when the time was over.
var errNotEmpty = errors.New("connections are left")

// drain makes every connection move, and returns when none is left. When ctx
// ends first, it ends those that are left, and returns an error.
func (h *Hub) drain(ctx context.Context) error {
	waiting := h.beginDrain()
	p := newPace(len(waiting), h.options.Window)
	h.log.Info("draining", "connections", p.total, "window", h.options.Window.String())

	type told struct {
		link     *Link
		deadline time.Time
	}
	var moving []told
	start := time.Now()
	ticker := time.NewTicker(p.step())
	defer ticker.Stop()
	for n := 0; ; {
		now := time.Now()
		for due := p.due(now.Sub(start)); n < due; n++ {
			l := waiting[n]
			if h.startMove(l) {
				// A little spread, so that those of one step don't arrive together.
				l.wire.Move(rand.N(p.step()), p.patience) //nolint:gosec // G404: jitter needs no secrecy
				moving = append(moving, told{l, now.Add(p.patience)})
			}
		}
		for len(moving) > 0 && !now.Before(moving[0].deadline) {
			if h.present(moving[0].link) {
				moving[0].link.wire.End(Drained)
			}
			moving = moving[1:]
		}
		select {
		case <-h.empty:
			h.log.Info("drained", "took_ms", time.Since(start).Milliseconds())
			return nil
		case <-ctx.Done():
			return h.abandon()
		case <-ticker.C:
		}
	}
}

// beginDrain takes no more connections, ends those that are not authenticated,
// and returns the others.
func (h *Hub) beginDrain() []*Link {
	h.mu.Lock()
	if h.stopping { // a second stop waits for the first one's end
		h.mu.Unlock()
		return nil
	}
	h.stopping = true
	var strangers, waiting []*Link
	for l := range h.links {
		if l.state == pending {
			strangers = append(strangers, l)
		} else {
			waiting = append(waiting, l)
		}
	}
	if len(h.links) == 0 {
		close(h.empty)
	}
	h.mu.Unlock()
	for _, l := range strangers {
		l.wire.End(Drained)
	}
	return waiting
}

// startMove counts a link as draining; false if it is gone.
func (h *Hub) startMove(l *Link) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.gone {
		return false
	}
	h.count(l, draining)
	return true
}

func (h *Hub) present(l *Link) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return !l.gone
}

// abandon ends what is left, without waiting.
func (h *Hub) abandon() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for l := range h.links {
		l.wire.End(Drained)
	}
	h.log.Warn("stopped before the drain was over", "connections", len(h.links))
	return errNotEmpty
}
