package hub

import (
	"context"

	"github.com/marketplane/marketplane/services/messaging"
)

// Links that attach are looked up together: what arrives while one look at the
// store runs goes into the next. So after a drop of thousands a link costs a
// fraction of a round trip, and a single one waits for nobody.

const (
	// maxLookups is how many links may wait; more wait to wait, as long as their
	// clients do.
	maxLookups = 1024
	// lookupBatch is how many links one look is for. Times resumePage it bounds
	// what is read at once.
	lookupBatch = 64
	// resumePage is how many missed items are read with the look.
	resumePage = 16
)

// lookup is a link's question where its place leads.
type lookup struct {
	place messaging.Place
	// answer holds one, so that nobody waits for who has left.
	answer chan<- answer
}

type answer struct {
	found messaging.Resumption
	err   error
}

// resume asks where a place leads.
func (h *Hub) resume(ctx context.Context, place messaging.Place) (messaging.Resumption, error) {
	got := make(chan answer, 1)
	select {
	case h.lookups <- lookup{place, got}:
	case <-ctx.Done():
		return messaging.Resumption{}, ctx.Err()
	case <-h.ctx.Done():
		return messaging.Resumption{}, errStopping
	}
	select {
	case a := <-got:
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
			h.lookUpTogether(h.waiting(first))
		}
	}
}

// waiting adds the lookups that wait already.
func (h *Hub) waiting(first lookup) []lookup {
	batch := []lookup{first}
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

func (h *Hub) lookUpTogether(batch []lookup) {
	places := make([]messaging.Place, 0, len(batch))
	for _, l := range batch {
		places = append(places, l.place)
	}
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	found, err := h.store.Resume(ctx, places, resumePage)
	for i, l := range batch {
		a := answer{err: err}
		if err == nil {
			a.found = found[i]
		}
		l.answer <- a
	}
}
