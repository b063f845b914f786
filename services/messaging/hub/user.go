package hub

import (
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// maxEarly is how many items of one user may wait for the one before them.
// What comes beyond is read from the store.
const maxEarly = 64

// user is one with connections here.
type user struct {
	id          uuid.UUID
	unsubscribe func()

	mu    sync.Mutex
	links []*Link // few; a map for each user would be most of its memory
	// head is the newest offset that every live link has been given; it means
	// nothing while there is no live link.
	head int64
	// seen is the newest offset that is known to exist.
	seen int64
	// early holds items beyond a gap.
	early map[int64]messaging.Item
}

func newUser(id uuid.UUID, unsubscribe func()) *user {
	return &user{id: id, unsubscribe: unsubscribe}
}

// count, add and remove keep the user's links; remove says how many are left.

func (u *user) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.links)
}

func (u *user) add(l *Link) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.links = append(u.links, l)
}

func (u *user) remove(l *Link) (left int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.links, l); i >= 0 {
		u.links = slices.Delete(u.links, i, i+1)
	}
	return len(u.links)
}

// see notes that an offset exists; under mu.
func (u *user) see(offset int64) { u.seen = max(u.seen, offset) }

// hasLive says whether any link is live; under mu.
func (u *user) hasLive() bool {
	for _, l := range u.links {
		if l.caughtUp {
			return true
		}
	}
	return false
}

// behind says whether live links miss something that is known to exist.
func (u *user) behind() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.hasLive() && u.head < u.seen
}

// place returns the live links' offset; ok is false if there are none.
func (u *user) place() (head int64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.head, u.hasLive()
}

// turnLive makes a link live if it has everything that is known to exist, and
// says whether it has.
func (u *user) turnLive(l *Link) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.hasLive() {
		u.head, u.early = l.pos, nil
	}
	if l.pos < u.seen || l.pos < u.head {
		return false
	}
	// Where this link is ahead of live ones, they are behind what is seen; they
	// catch up, and this one is not given again what it has.
	u.see(l.pos)
	l.caughtUp = true
	return true
}

// accept gives live links the items that come next, in whatever order they
// arrive, each once, and counts what it gave. It says whether a gap is left;
// offsets up to head are known to exist. It keeps no part of the slice.
func (u *user) accept(items []messaging.Item, head int64, given *tally) (gap bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.see(head)
	alive := u.hasLive()
	for i := 0; i < len(items); {
		item := items[i]
		next := i + 1
		switch {
		case !alive || item.Offset <= u.head:
		case item.Offset == u.head+1:
			for next < len(items) && items[next].Offset == items[next-1].Offset+1 {
				next++
			}
			u.deliver(items[i:next], given)
			u.deliverEarly(given)
		case len(u.early) < maxEarly:
			if u.early == nil {
				u.early = map[int64]messaging.Item{}
			}
			u.early[item.Offset] = item
		}
		u.see(items[next-1].Offset)
		i = next
	}
	return alive && u.head < u.seen
}

func (u *user) deliverEarly(given *tally) {
	var next []messaging.Item
	for at := u.head + 1; ; at++ {
		item, ok := u.early[at]
		if !ok {
			break
		}
		delete(u.early, at)
		next = append(next, item)
	}
	if len(next) > 0 {
		u.deliver(next, given)
	}
}

// deliver gives items that follow one another, the first after head.
func (u *user) deliver(items []messaging.Item, given *tally) {
	first, last := items[0].Offset, items[len(items)-1].Offset
	u.head = last
	for at := first; at <= last && len(u.early) > 0; at++ {
		delete(u.early, at)
	}
	for _, l := range u.links {
		if !l.caughtUp || l.pos >= last {
			continue
		}
		missed := items[max(l.pos+1-first, 0):]
		l.wire.Deliver(missed)
		l.pos = last
		given.add(missed)
	}
}

// signal gives live links an ephemeral signal.
func (u *user) signal(signal messaging.Signal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.links {
		if l.caughtUp {
			l.wire.Signal(signal)
		}
	}
}
