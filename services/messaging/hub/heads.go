package hub

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// tick is how often the hub looks whose heads are due for comparison.
	tick = time.Second
	// rounds is after how many ticks every user's head has been compared once.
	rounds = 30
	// headsPerQuery bounds one query.
	headsPerQuery = 1000
)

// compareAll asks for a comparison of every head, now.
func (h *Hub) compareAll() {
	select {
	case h.compare <- struct{}{}:
	default: // one is asked for already
	}
}

// compareHeads finds what the bus has lost without leaving a gap: the newest
// items. It compares a user's head one to two seconds after an attach, every
// 30 seconds, spread, and every second while the bus is down.
func (h *Hub) compareHeads() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var attached map[*user]struct{}
	for round := 0; ; round++ {
		select {
		case <-h.ctx.Done():
			return
		case <-h.compare:
			h.compareThese(h.usersWhere(func(*user) bool { return true }))
		case <-ticker.C:
			all := !h.bus.Connected()
			due := h.usersWhere(func(u *user) bool {
				_, isDue := attached[u]
				return all || isDue || int(u.id[15])%rounds == round%rounds
			})
			attached = h.takeFresh()
			h.compareThese(due)
		}
	}
}

func (h *Hub) usersWhere(wanted func(*user) bool) []*user {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []*user
	for _, u := range h.users {
		if wanted(u) {
			out = append(out, u)
		}
	}
	return out
}

func (h *Hub) takeFresh() map[*user]struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := h.fresh
	h.fresh = map[*user]struct{}{}
	return taken
}

func (h *Hub) compareThese(users []*user) {
	for len(users) > 0 {
		n := min(len(users), headsPerQuery)
		h.compareSome(users[:n])
		users = users[n:]
	}
}

func (h *Hub) compareSome(users []*user) {
	ids := make([]uuid.UUID, 0, len(users))
	for _, u := range users {
		ids = append(ids, u.id)
	}
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	heads, err := h.store.Heads(ctx, ids)
	if err != nil {
		if h.ctx.Err() == nil {
			h.metrics.dropped.WithLabelValues("heads_not_read").Inc()
			h.log.Warn("stream heads not compared; trying on", "users", len(ids), "error", err)
		}
		// They are due again, soon.
		h.mu.Lock()
		for _, u := range users {
			if h.users[u.id] == u {
				h.fresh[u] = struct{}{}
			}
		}
		h.mu.Unlock()
		return
	}
	for _, u := range users {
		u.mu.Lock()
		u.see(heads[u.id])
		u.mu.Unlock()
		if u.behind() {
			h.fills.add(u)
		}
	}
}

// fill reads from the store what users' live links miss.
func (h *Hub) fill() {
	for {
		u, ok := h.fills.take()
		if !ok {
			return
		}
		h.fillOne(u)
	}
}

func (h *Hub) fillOne(u *user) {
	if u.behind() {
		h.metrics.gaps.Inc()
	}
	for u.behind() {
		head, ok := u.place()
		if !ok {
			return
		}
		items, err := h.read(h.ctx, u.id, head)
		if err != nil {
			if h.ctx.Err() == nil {
				h.metrics.filled.WithLabelValues("unavailable").Inc()
				h.log.Warn("a gap is not filled; trying on", "user", u.id, "offset", head, "error", err)
				h.mu.Lock()
				if h.users[u.id] == u {
					h.fresh[u] = struct{}{}
				}
				h.mu.Unlock()
			}
			return
		}
		if items = unbroken(items, head); len(items) == 0 {
			// Trimmed before it was delivered: only a new start helps.
			h.metrics.filled.WithLabelValues("not_kept").Inc()
			h.log.Warn("a gap can't be filled", "user", u.id, "offset", head)
			h.endAll(u)
			return
		}
		h.metrics.filled.WithLabelValues("ok").Inc()
		var given tally
		u.accept(items, 0, &given)
		h.metrics.countDelivered(&given)
	}
}

// endAll makes a user's live links resume.
func (h *Hub) endAll(u *user) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.links {
		l.wire.End(Behind)
	}
}

// fillQueue holds users, each at most once, so it is bounded by their number.
type fillQueue struct {
	mu      *sync.Mutex
	changed *sync.Cond
	waiting []*user
	queued  map[*user]struct{}
	closed  bool
}

func newFillQueue() fillQueue {
	mu := &sync.Mutex{}
	return fillQueue{mu: mu, changed: sync.NewCond(mu), queued: map[*user]struct{}{}}
}

func (q *fillQueue) add(u *user) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.queued[u]; ok || q.closed {
		return
	}
	q.queued[u] = struct{}{}
	q.waiting = append(q.waiting, u)
	q.changed.Signal()
}

func (q *fillQueue) take() (*user, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.changed.Wait()
	}
	if q.closed {
		return nil, false
	}
	u := q.waiting[0]
	q.waiting = q.waiting[1:]
	delete(q.queued, u)
	return u, true
}

func (q *fillQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
