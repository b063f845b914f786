package hub

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// state is a link's, as it is counted.
type state int

const (
	pending state = iota
	live
	draining
)

// Link is a connection's place in the hub. Its owner calls Attach, Start and
// Leave, in this order and not at the same time.
type Link struct {
	hub  *Hub
	wire Wire

	// Under hub.mu:
	state   state
	gone    bool
	user    *user
	session uuid.UUID

	// Under user.mu once the link is caught up; until then only its owner and
	// its replay, which don't overlap, touch them:
	caughtUp bool
	pos      int64 // the offset of the newest item that the wire was given

	page   []messaging.Item   // of the replay: what Attach has read
	cancel context.CancelFunc // ends the replay, once there is one
	replay chan struct{}      // closed when it has ended
}

// Attachment says where a link begins in its user's stream.
type Attachment struct {
	Offset int64
	// Recovered says that everything after the asked offset follows.
	Recovered bool
}

// Attach makes the link one of a user's and a session's. With an offset, it
// begins there if everything since is kept; else at the stream's head. Nothing
// is delivered before Start.
func (l *Link) Attach(ctx context.Context, id, session uuid.UUID, from *int64) (Attachment, error) {
	h := l.hub
	look := &lookup{
		link: l, session: session, place: messaging.Place{UserID: id, Offset: -1}, answer: make(chan answer, 1),
	}
	if from != nil {
		look.place.Offset = *from
	}
	found, err := h.resume(ctx, look)
	if err != nil {
		h.mu.Lock()
		look.left = true
		if !l.gone && l.user != nil {
			h.part(l)
			l.user = nil
		}
		h.mu.Unlock()
		return Attachment{}, fmt.Errorf("attach: %w", err)
	}
	at := Attachment{Offset: found.Position.Head}
	source, result := sourceBus, "fresh"
	if from != nil {
		result = "not_recovered"
		if recovers(*from, found) {
			at, result = Attachment{Offset: *from, Recovered: true}, "recovered"
			l.page = unbroken(found.Items, *from)
			if len(l.page) > 0 {
				source = sourceStore
			}
		}
	}
	h.metrics.resumes.WithLabelValues(source, result).Inc()
	l.pos = at.Offset
	l.user.mu.Lock()
	l.user.see(found.Position.Head)
	l.user.mu.Unlock()
	return at, nil
}

// recovers says whether everything after an offset is kept.
func recovers(from int64, found messaging.Resumption) bool {
	if from < found.Position.Tail || from > found.Position.Head {
		return false
	}
	return from == found.Position.Head || len(unbroken(found.Items, from)) > 0
}

// unbroken returns the first of a page's items, those that follow an offset and
// one another. A day's items go together, and those of a moment at midnight are
// of two days: the later of two may go first.
func unbroken(page []messaging.Item, after int64) []messaging.Item {
	for i, item := range page {
		if item.Offset != after+1+int64(i) {
			return page[:i]
		}
	}
	return page
}

// Rebind moves an attached link to another session of its user.
func (l *Link) Rebind(session uuid.UUID) {
	h := l.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.gone || l.user == nil {
		return
	}
	h.unbind(l)
	h.bind(l, session)
}

// Start delivers what follows the attachment's offset, and then what is new.
func (l *Link) Start() {
	// Most have missed little: that needs no goroutine, and no wait for room.
	if page := l.page; len(page) > 0 && len(page) == len(chunk(page)) {
		l.page = nil
		l.give(page)
	}
	if len(l.page) == 0 && l.user.turnLive(l) {
		return
	}
	ctx, cancel := context.WithCancel(l.hub.ctx)
	l.cancel, l.replay = cancel, make(chan struct{})
	l.hub.wg.Go(func() {
		defer close(l.replay)
		defer cancel()
		l.hub.catchUp(ctx, l)
	})
}

// Leave takes the link out of the hub; nothing reaches its wire afterwards. It
// is safe to call twice.
func (l *Link) Leave() {
	l.hub.leave(l)
	if l.cancel != nil {
		l.cancel()
		<-l.replay
	}
}

// join makes a link one of its user's, if it is still there.
func (h *Hub) join(look *lookup) error {
	l, id := look.link, look.place.UserID
	h.mu.Lock()
	defer h.mu.Unlock()
	if look.left || l.gone || h.stopping {
		return errStopping
	}
	u := h.users[id]
	if u != nil && u.count() >= h.options.MaxLinksOfUser {
		return errUserFull
	}
	if u == nil {
		unsubscribe, err := h.bus.Subscribe(id)
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		u = newUser(id, unsubscribe)
		h.users[id] = u
	}
	u.add(l)
	l.user = u
	h.bind(l, look.session)
	h.fresh[u] = struct{}{}
	h.count(l, live)
	return nil
}

// bind, unbind and count need hub.mu.

func (h *Hub) bind(l *Link, session uuid.UUID) {
	l.session = session
	h.sessions[session] = append(h.sessions[session], l)
}

func (h *Hub) unbind(l *Link) {
	left := slices.DeleteFunc(h.sessions[l.session], func(other *Link) bool { return other == l })
	if len(left) == 0 {
		delete(h.sessions, l.session)
		return
	}
	h.sessions[l.session] = left
}

func (h *Hub) count(l *Link, s state) {
	h.counts[l.state]--
	l.state = s
	h.counts[s]++
}

func (h *Hub) leave(l *Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.gone {
		return
	}
	if l.user != nil {
		h.part(l)
	}
	l.gone = true
	delete(h.links, l)
	h.counts[l.state]--
	if h.stopping && len(h.links) == 0 {
		close(h.empty)
	}
}

// part undoes join; under hub.mu.
func (h *Hub) part(l *Link) {
	u := l.user
	h.unbind(l)
	if u.remove(l) == 0 {
		u.unsubscribe()
		delete(h.users, u.id)
		delete(h.fresh, u)
	}
	h.count(l, pending)
}

// catchUp reads a link's missed items from the store, at its client's pace,
// until it is live.
func (h *Hub) catchUp(ctx context.Context, l *Link) {
	page := l.page
	l.page = nil
	for {
		for len(page) > 0 {
			if err := l.wire.Room(ctx); err != nil {
				return // the wire has ended
			}
			some := chunk(page)
			l.give(some)
			page = page[len(some):]
		}
		if l.user.turnLive(l) {
			return
		}
		var err error
		if page, err = h.replay(ctx, l.user.id, l.pos); err != nil {
			if ctx.Err() != nil {
				return
			}
			h.log.Warn("a replay waits for the store", "user", l.user.id, "offset", l.pos, "error", err)
			if !pause(ctx, tick) {
				return
			}
			continue
		}
		if page = unbroken(page, l.pos); len(page) == 0 {
			// Trimmed meanwhile: never a partial recovery.
			h.log.Warn("a replay is no longer possible", "user", l.user.id, "offset", l.pos)
			l.wire.End(Behind)
			return
		}
	}
}

// replay reads a page, when it is its turn.
func (h *Hub) replay(ctx context.Context, id uuid.UUID, after int64) ([]messaging.Item, error) {
	select {
	case h.replays <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.replays }()
	return h.read(ctx, id, after)
}

// maxChunk bounds what is given to a wire that has room, in bytes of payloads: a
// wire that has room for one of the largest messages has room for it.
const maxChunk = 16 << 10

// chunk returns the first of a page's items, as many as go out together.
func chunk(page []messaging.Item) []messaging.Item {
	size := 0
	for i, item := range page {
		if size += len(item.Payload); size > maxChunk && i > 0 {
			return page[:i]
		}
	}
	return page
}

// give delivers items of a replay.
func (l *Link) give(items []messaging.Item) {
	var given tally
	given.add(items)
	l.wire.Deliver(items)
	l.pos = items[len(items)-1].Offset
	l.hub.metrics.countDelivered(&given)
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (h *Hub) read(ctx context.Context, id uuid.UUID, after int64) ([]messaging.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return h.store.ItemsAfter(ctx, id, after, pageSize)
}
