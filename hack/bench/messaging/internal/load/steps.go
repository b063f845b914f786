package load

import (
	"errors"
	"fmt"
	"time"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/wire"
)

// patience is how long the last answers may take when everything was sent.
const patience = 20 * time.Second

// connect opens a connection for every user that has none.
func (l *load) connect(step plan.Step) error {
	var waiting []*conn
	for i := range l.conns {
		if c := &l.conns[i]; c.fd < 0 {
			waiting = append(waiting, c)
		}
	}
	pace := newPace(step.Rate)
	open, started := 0, 0
	l.onOpen = func() { open++ }
	limit := step.InFlight
	if limit == 0 {
		limit = len(waiting)
	}
	deadline := time.Now().Add(pace.lasts(len(waiting)) + 2*time.Minute)
	return l.until(deadline, "connections", func(now time.Time) (bool, time.Duration) {
		for started < len(waiting) && started-open < limit && pace.due(now) {
			if at := pace.next(); step.Rate > 0 {
				record(l.late, now.Sub(at))
			}
			if err := l.openFor(waiting[started], step); err != nil {
				l.fail(err)
				return true, 0
			}
			started++
		}
		if started == len(waiting) || started-open >= limit {
			return open == len(waiting), patience // an answer ends the wait
		}
		return false, pace.wait(now)
	})
}

func (l *load) openFor(c *conn, step plan.Step) error {
	c.connected, c.upgraded, c.ready, c.opening = false, false, false, true
	c.missing, c.opened = step.Missed, time.Now().UnixNano()
	c.session.Keep = true
	if l.job.Upgrade != "" {
		return l.poll(c)
	}
	target := c.user % len(l.targets)
	if err := l.loop.open(c, plan.Address(c.user), l.targets[target]); err != nil {
		return err
	}
	l.loop.write(c, l.requests[target])
	return nil
}

// hold waits.
func (l *load) hold(step plan.Step) error {
	end := time.Now().Add(step.Lasting)
	return l.until(end.Add(patience), "waiting", func(now time.Time) (bool, time.Duration) {
		return !now.Before(end), end.Sub(now)
	})
}

// next is the user who sends next, and how many members the user's conversation
// has. It goes through the conversations, and in each through those who send, on
// from where the last step ended, so that nobody sends more often than need be:
// a server may tell of somebody's typing once in a while only.
func (l *load) next(step plan.Step) (user, members int) {
	senders := l.job.Members
	if step.Members > 0 {
		senders = min(senders, step.Members)
	}
	conversations := l.job.Conversations()
	conversation := l.position % conversations
	members = min(l.job.Members, l.job.Users-conversation*l.job.Members)
	user = conversation*l.job.Members + l.position/conversations%senders%members
	l.position++
	return user, members
}

// connectedOf is how many members of a user's conversation are connected.
func (l *load) connectedOf(user, members int) int {
	first := user / l.job.Members * l.job.Members
	n := 0
	for i := first; i < first+members; i++ {
		if l.conns[i].fd >= 0 {
			n++
		}
	}
	return n
}

// send sends at a fixed rate, and waits until all is acknowledged and delivered
// to everyone who is connected.
func (l *load) send(step plan.Step) error {
	return l.steadily(step, func(at time.Time) {
		user, members := l.next(step)
		l.result.Wanted += l.connectedOf(user, members)
		l.message(user, at)
	}, func() (bool, string) {
		return len(l.flight) == 0 && l.result.Delivered >= l.result.Wanted,
			fmt.Sprintf("of %d messages %d were not acknowledged, of %d deliveries %d came", l.result.Done, len(l.flight), l.result.Wanted, l.result.Delivered)
	})
}

// quiet is how long nothing must come for the rest to count as dropped.
const quiet = time.Second

// typing tells of typing at a fixed rate, and waits until all others know, or no
// more is to come: a server may drop what is not stored.
func (l *load) typing(step plan.Step) error {
	var (
		came int
		at   = time.Now()
	)
	return l.steadily(step, func(time.Time) {
		user, members := l.next(step)
		l.result.Wanted += l.connectedOf(user, members) - 1
		l.payload = l.protocol.AppendTyping(l.payload[:0], l.conversations[user/l.job.Members])
		l.write(&l.conns[user], wire.Text, l.payload)
	}, func() (bool, string) {
		if l.result.Delivered != came {
			came, at = l.result.Delivered, time.Now()
		}
		return came >= l.result.Wanted || time.Since(at) > quiet, ""
	})
}

// steadily does something at a fixed rate whether or not answers come (an open
// loop), for as long as the step says, and then waits until settled.
func (l *load) steadily(step plan.Step, act func(at time.Time), settled func() (bool, string)) error {
	if step.Rate <= 0 {
		return errors.New("it needs a rate")
	}
	pace := newPace(step.Rate)
	end := pace.begin.Add(step.Lasting)
	state := ""
	err := l.until(end.Add(patience), "the last answers", func(now time.Time) (bool, time.Duration) {
		for pace.due(now) && pace.peek().Before(end) {
			at := pace.next()
			record(l.late, now.Sub(at))
			l.result.Done++
			act(at)
		}
		if pace.peek().Before(end) {
			return false, pace.wait(now)
		}
		var done bool
		done, state = settled()
		return done, patience
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, state)
	}
	return nil
}

// exchange has each pair talk as fast as it can.
func (l *load) exchange(step plan.Step) error {
	if l.job.Members != 2 || l.job.Users%2 != 0 {
		return errors.New("it needs pairs")
	}
	end := time.Now().Add(step.Lasting)
	inTime := 0
	l.onAck = func(user int, now time.Time) {
		if now.Before(end) {
			inTime++
			l.result.Done++
			l.message(user^1, now)
		}
	}
	now := time.Now()
	for user := 0; user < l.job.Users; user += 2 {
		l.result.Done++
		l.message(user, now)
	}
	err := l.until(end.Add(patience), "the last answers", func(now time.Time) (bool, time.Duration) {
		return now.After(end) && len(l.flight) == 0 && l.result.Delivered >= 2*l.result.Done, patience
	})
	if err != nil {
		return fmt.Errorf("%w: of %d messages %d were not acknowledged, of %d deliveries %d came",
			err, l.result.Done, len(l.flight), 2*l.result.Done, l.result.Delivered)
	}
	l.result.Acked = inTime
	return nil
}

// drop closes the connections of all but the first members of each conversation.
func (l *load) drop(step plan.Step) error {
	for i := range l.conns {
		if c := &l.conns[i]; c.fd >= 0 && i%l.job.Members >= step.Members {
			l.loop.drop(c)
			l.result.Done++
		}
	}
	return nil
}

// pace says when the next of many things is due. A rate of 0 means at once.
type pace struct {
	begin time.Time
	each  time.Duration
	n     int
}

func newPace(rate float64) *pace {
	p := &pace{begin: time.Now()}
	if rate > 0 {
		p.each = time.Duration(float64(time.Second) / rate)
	}
	return p
}

// peek is when the next one is due.
func (p *pace) peek() time.Time { return p.begin.Add(time.Duration(p.n) * p.each) }

func (p *pace) due(now time.Time) bool { return !now.Before(p.peek()) }

// next takes the next one.
func (p *pace) next() time.Time {
	at := p.peek()
	p.n++
	return at
}

// wait is how long until the next one; long if all are due at once.
func (p *pace) wait(now time.Time) time.Duration {
	if p.each == 0 {
		return patience
	}
	return p.peek().Sub(now)
}

func (p *pace) lasts(n int) time.Duration { return time.Duration(n) * p.each }
