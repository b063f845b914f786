package hub

import (
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
	links map[*Link]struct{}
	// head is the newest offset that every live link has been given; it means
	// nothing while there is no live link.
	head int64
	// seen is the newest offset that is known to exist.
	seen int64
	// early holds items beyond a gap.
	early map[int64]messaging.Item
}

func newUser(id uuid.UUID, unsubscribe func()) *user {
	return &user{id: id, unsubscribe: unsubscribe, links: map[*Link]struct{}{}}
}

// see notes that an offset exists; under mu.
func (u *user) see(offset int64) { u.seen = max(u.seen, offset) }

// hasLive says whether any link is live; under mu.
func (u *user) hasLive() bool {
	for l := range u.links {
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

// delivered counts items given to links, by kind.
type delivered map[messaging.Kind]int

func tally(items []messaging.Item) delivered {
	out := delivered{}
	for _, item := range items {
		out[item.Kind]++
	}
	return out
}

// accept gives live links the items that come next, in whatever order they
// arrive, each once. It says whether a gap is left; offsets up to head are known
// to exist.
func (u *user) accept(items []messaging.Item, head int64) (out delivered, gap bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.see(head)
	out = delivered{}
	alive := u.hasLive()
	for _, item := range items {
		u.see(item.Offset)
		switch {
		case !alive || item.Offset <= u.head:
		case item.Offset == u.head+1:
			u.deliver(item, out)
			u.deliverEarly(out)
		case len(u.early) < maxEarly:
			if u.early == nil {
				u.early = map[int64]messaging.Item{}
			}
			u.early[item.Offset] = item
		}
	}
	return out, alive && u.head < u.seen
}

func (u *user) deliverEarly(out delivered) {
	for len(u.early) > 0 {
		item, ok := u.early[u.head+1]
		if !ok {
			return
		}
		delete(u.early, item.Offset)
		u.deliver(item, out)
	}
}

func (u *user) deliver(item messaging.Item, out delivered) {
	u.head = item.Offset
	delete(u.early, item.Offset)
	for l := range u.links {
		if l.caughtUp && l.pos < item.Offset {
			l.wire.Deliver(item)
			l.pos = item.Offset
			out[item.Kind]++
		}
	}
}
