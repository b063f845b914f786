package presence

import (
	"time"

	"github.com/google/uuid"
)

// Place is one connection on which a user announced themselves.
type Place struct {
	tracker *Tracker
	user    uuid.UUID
	status  Status // Offline before the first announcement, and after leaving
}

// entry is a user who has places here, or had until lately.
type entry struct {
	// places counts them by their status; none is Offline.
	places [len(names)]int
	// told is what the audience was told last, as far as this process knows;
	// toldAt is when it told them itself.
	told   Status
	toldAt time.Time
	// due is when the audience is to be told the status of the places; zero if
	// it need not be.
	due time.Time
	// settled is false while this process does not know at all what was told.
	settled bool
	// asking says that the user wants to know who is there, and askedAt when
	// they last did.
	asking  bool
	askedAt time.Time
}

// status is the greatest of the places'.
func (e *entry) status() Status {
	for s := Online; s > Offline; s-- {
		if e.places[s] > 0 {
			return s
		}
	}
	return Offline
}

// isHere says whether there is any place.
func (e *entry) isHere() bool { return e.status() != Offline }

// move takes a place from one status to another.
func (e *entry) move(p *Place, to Status) {
	if p.status != Offline {
		e.places[p.status]--
	}
	if p.status = to; to != Offline {
		e.places[to]++
	}
}

// book is what a process knows of presence, and what follows from it. It does
// nothing by itself and has no clock.
type book struct {
	users map[uuid.UUID]*entry
	left  int // entries without places
	out   outbox
}

// delivery is a status to tell.
type delivery struct {
	to     []uuid.UUID
	user   uuid.UUID
	status Status
}

func newBook(self uuid.UUID) *book {
	return &book{users: map[uuid.UUID]*entry{}, out: outbox{from: self}}
}

func (b *book) announce(p *Place, s Status, now time.Time) {
	e := b.users[p.user]
	if e == nil {
		e = &entry{}
		b.users[p.user] = e
		b.left++
	}
	before := e.status()
	if before == Offline {
		b.left--
	}
	e.move(p, s)
	e.asking = true
	if e.status() != before || e.status() != e.told && e.due.IsZero() {
		b.settle(p.user, e, now)
	}
}

func (b *book) leave(p *Place, now time.Time) {
	if p.status == Offline {
		return // it never announced, or has left before
	}
	e := b.users[p.user]
	before := e.status()
	e.move(p, Offline)
	if !e.isHere() {
		e.asking = false
		if b.left++; b.left > maxLeft {
			b.forget(p.user, e)
			return
		}
	}
	if e.status() != before {
		b.settle(p.user, e, now)
	}
}

// settle decides when the audience is to be told, after the status of the
// places, or what is known to be told, has changed.
func (b *book) settle(user uuid.UUID, e *entry, now time.Time) {
	status, hold := e.status(), time.Duration(0)
	switch status {
	case e.told:
		b.cancel(user, e)
		return
	case Away:
		hold = awayHold
	case Offline:
		hold = Grace
	case Online:
	}
	if hold > 0 {
		b.out.lowers(user, status)
	}
	if !e.settled {
		b.out.comes(user, status)
		hold = max(hold, comeHold)
	}
	e.due = now.Add(hold)
	if next := e.toldAt.Add(Interval); e.due.Before(next) {
		e.due = next
	}
}

// cancel leaves it to others to tell of the user, or there is nothing to tell.
func (b *book) cancel(user uuid.UUID, e *entry) {
	e.due = time.Time{}
	if !e.isHere() {
		b.forget(user, e)
	}
}

// forget removes an entry without places.
func (b *book) forget(user uuid.UUID, e *entry) {
	if b.users[user] == e {
		delete(b.users, user)
		b.left--
	}
}

// hear takes another process's note, and returns what is to be told at once.
func (b *book) hear(n note, now time.Time) []delivery {
	if n.From == b.out.from {
		return nil
	}
	for _, s := range n.Told {
		if e := b.users[s.User]; e != nil {
			b.learn(s.User, e, s.Status, now)
		}
	}
	for _, s := range n.Known {
		if e := b.users[s.User]; e != nil && !e.settled {
			b.learn(s.User, e, s.Status, now)
		}
	}
	for _, s := range n.Comes {
		e := b.users[s.User]
		if e == nil {
			continue
		}
		if e.told != Offline {
			b.out.known(s.User, e.told)
		}
		if s.Status > e.status() {
			b.cancel(s.User, e)
		}
	}
	for _, s := range n.Holds {
		if e := b.users[s.User]; e != nil && s.Status > e.status() {
			e.told, e.settled = s.Status, true
			b.cancel(s.User, e)
		}
	}
	for _, s := range n.Lowers {
		e := b.users[s.User]
		if e == nil || e.status() <= s.Status {
			continue
		}
		b.out.holds(s.User, e.status())
		if e.status() < e.told && e.due.IsZero() {
			b.settle(s.User, e, now) // who held more goes
		}
	}
	var answers []delivery
	for _, a := range n.Asks {
		answers = append(answers, b.answer(a.User, a.Of)...)
	}
	return answers
}

// learn takes what the audience was told by another process.
func (b *book) learn(user uuid.UUID, e *entry, told Status, now time.Time) {
	e.told, e.settled = told, true
	if told >= e.status() {
		b.cancel(user, e)
	} else {
		b.settle(user, e, now) // this process knows better
	}
}

// answer tells a user who is there of those whom they may know of. Whom the
// audience was not told of yet, they will hear of with it.
func (b *book) answer(user uuid.UUID, of []uuid.UUID) []delivery {
	var answers []delivery
	for _, other := range of {
		if e := b.users[other]; e != nil && e.isHere() && e.told != Offline {
			answers = append(answers, delivery{to: []uuid.UUID{user}, user: other, status: e.told})
		}
	}
	return answers
}

func (e *entry) isDue(now time.Time) bool { return !e.due.IsZero() && !now.Before(e.due) }

func (e *entry) asksNow(now time.Time) bool {
	return e.asking && !now.Before(e.askedAt.Add(Interval))
}

// due returns users whose audience is needed now, at most limit.
func (b *book) due(now time.Time, limit int) []uuid.UUID {
	var users []uuid.UUID
	for user, e := range b.users {
		if len(users) == limit {
			break
		}
		if e.isDue(now) || e.asksNow(now) {
			users = append(users, user)
		}
	}
	return users
}

// tell returns what is to be told of the users, and to those among them who
// asked. Users for whom the bound leaves no room stay due.
func (b *book) tell(users []uuid.UUID, audiences map[uuid.UUID][]uuid.UUID, now time.Time) []delivery {
	var out []delivery
	room := maxSignals
	for _, user := range users {
		e, audience := b.users[user], audiences[user]
		if e == nil {
			continue // settled meanwhile
		}
		if room -= len(audience); room < 0 {
			break
		}
		if e.asksNow(now) {
			e.asking, e.askedAt = false, now
			out = append(out, b.answer(user, audience)...)
			if len(audience) > 0 {
				b.out.asks(user, audience)
			}
		}
		if !e.isDue(now) {
			continue
		}
		e.due = time.Time{}
		if status := e.status(); status != e.told {
			e.told, e.toldAt, e.settled = status, now, true
			b.out.told(user, status)
			if len(audience) > 0 {
				out = append(out, delivery{to: audience, user: user, status: status})
			}
		}
		if !e.isHere() {
			b.forget(user, e)
		}
	}
	return out
}

// postpone puts off what was due of the users.
func (b *book) postpone(users []uuid.UUID, now time.Time) {
	for _, user := range users {
		e := b.users[user]
		if e == nil {
			continue
		}
		if !e.due.IsZero() {
			e.due = now.Add(retry)
		}
		if e.asking {
			e.askedAt = now.Add(retry - Interval)
		}
	}
}

// hurry makes those due who left and are not offline yet.
func (b *book) hurry(now time.Time) {
	for _, e := range b.users {
		if !e.isHere() {
			e.due = now
		}
	}
}
