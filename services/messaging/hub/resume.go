package hub

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// Links that attach are looked up together: what arrives while one look at the
// store runs, and for a moment after it, goes into the next. So after a drop of
// thousands a link costs a fraction of a round trip to the store and of a write to
// the bus, and a single one waits for nobody.

const (
	// maxLookups is how many links may wait; more wait to wait, as long as their
	// clients do.
	maxLookups = 1024
	// lookupBatch is how many links one look is for. Times resumePage it bounds
	// what is read at once.
	lookupBatch = 64
	// lookupPause is how long more are waited for, after a look.
	lookupPause = 3 * time.Millisecond
	// resumePage is how many missed items are read with the look.
	resumePage = 16
)

// lookup has a link join its user, and asks where its place leads.
type lookup struct {
	link    *Link
	session uuid.UUID
	place   messaging.Place
	// answer holds one, so that nobody waits for who has left.
	answer chan answer
	left   bool // nobody wants the answer any more; under hub.mu
}

type answer struct {
	found messaging.Resumption
	err   error
}

// resume has a lookup answered.
func (h *Hub) resume(ctx context.Context, l *lookup) (messaging.Resumption, error) {
	select {
	case h.lookups <- l:
	case <-ctx.Done():
		return messaging.Resumption{}, ctx.Err()
	case <-h.ctx.Done():
		return messaging.Resumption{}, errStopping
	}
	select {
	case a := <-l.answer:
		return a.found, a.err
	case <-ctx.Done():
		return messaging.Resumption{}, ctx.Err()
	case <-h.ctx.Done():
		return messaging.Resumption{}, errStopping
	}
}

// lookUp answers lookups until the hub ends.
func (h *Hub) lookUp() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case first := <-h.lookups:
			batch := h.waiting(first)
			h.lookUpTogether(batch)
			if len(batch) == lookupBatch {
				continue // a crowd needs no time to gather
			}
		}
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(lookupPause):
		}
	}
}

// waiting adds the lookups that wait already.
func (h *Hub) waiting(first *lookup) []*lookup {
	batch := []*lookup{first}
	for len(batch) < lookupBatch {
		select {
		case l := <-h.lookups:
			batch = append(batch, l)
		default:
			return batch
		}
	}
	return batch
}

// lookUpTogether subscribes first, and then looks where the streams are: what is
// written in between is seen twice rather than not at all.
func (h *Hub) lookUpTogether(batch []*lookup) {
	joined, places := batch[:0], make([]messaging.Place, 0, len(batch))
	for _, l := range batch {
		if err := h.join(l); err != nil {
			l.answer <- answer{err: err}
			continue
		}
		joined, places = append(joined, l), append(places, l.place)
	}
	if len(joined) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	found, err := h.store.Resume(ctx, places, resumePage)
	for i, l := range joined {
		a := answer{err: err}
		if err == nil {
			a.found = found[i]
		}
		l.answer <- a
	}
}
