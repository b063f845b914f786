package notify

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// refused is a notification that the back end refused while it may take others.
// It is set aside, so that it does not hold them up. The place that is written
// stays before it until it is taken or given up, so that it is not forgotten
// with the process; those who were notified meanwhile are written down one by
// one.
type refused struct {
	Notification
	look Look
	from Place // the look's, when it was sent first
	// tries counts them, and next is when to try again.
	tries int
	next  time.Time
	never bool // as the last answer says
	// alone counts the times that it was refused after others had been taken, and
	// taken is how many were by the last time: then it is not the back end.
	alone, taken int
}

// recipient is who notifications are set aside for: a newer one of the same
// conversation takes the place of an older one.
type recipient struct{ conversation, user uuid.UUID }

func recipientOf(n Notification) recipient { return recipient{n.ConversationID, n.UserID} }

// isAside says whether the recipient hears of it by one that was refused.
func (w *Worker) isAside(n Notification) bool {
	r := w.aside[recipientOf(n)]
	return r != nil && r.Seq >= n.Seq
}

// setAside keeps a refused notification for another try. givenUp says that there
// will be none; ok is false if it can't be kept, since too many are.
func (w *Worker) setAside(n Notification, why *RefusalError, which Look) (givenUp, ok bool) {
	to, never := recipientOf(n), why.Verdict == Never
	r := w.aside[to]
	if r == nil {
		if never && len(w.aside) >= maxAside {
			return true, true
		}
		if !never && w.unclear() >= maxUnclear {
			return false, false
		}
		r = &refused{look: which, from: w.looks[which].place, taken: w.taken}
		w.aside[to] = r
		if !never { // of those that never will be taken the end is told
			w.log.Warn("a notification waits for another try", "reason", why, "user", n.UserID, "conversation", n.ConversationID, "seq", n.Seq)
		}
	}
	r.Notification, r.never = n, never
	r.next = time.Now().Add(min(minBackoff<<min(r.tries, 6), maxBackoff))
	r.tries++
	if w.taken > r.taken {
		r.alone, r.taken = r.alone+1, w.taken
	}
	if never && r.tries >= neverTries || !never && r.tries >= unclearTries && r.alone >= aloneTries {
		delete(w.aside, to)
		return true, true
	}
	return false, true
}

// unclear counts those for which the back end may be to blame.
func (w *Worker) unclear() int {
	count := 0
	for _, r := range w.aside {
		if !r.never {
			count++
		}
	}
	return count
}

// retry sends again what was set aside for long enough.
func (w *Worker) retry(ctx context.Context, now time.Time) error {
	var again [2][]Notification
	for to, r := range w.aside {
		if now.Sub(r.SentAt) > maxAge {
			w.giveUp(r.Notification, "it is too old")
			delete(w.aside, to)
		} else if !time.Now().Before(r.next) {
			again[r.look] = append(again[r.look], r.Notification)
		}
	}
	for which, all := range again {
		for some := range slices.Chunk(all, perCheck) {
			absent, err := w.absentOf(ctx, some)
			if err != nil {
				return err
			}
			for _, n := range some {
				if !slices.ContainsFunc(absent, func(m Notification) bool { return recipientOf(m) == recipientOf(n) }) {
					delete(w.aside, recipientOf(n)) // came back, or read it
				}
			}
			if err := w.sendAll(ctx, Look(which), absent); err != nil {
				return err
			}
		}
	}
	return nil
}

// safe is up to where nothing of a look is open, if it has come to at.
func (w *Worker) safe(which Look, at Place) Place {
	for _, r := range w.aside {
		if r.look == which && r.from.compare(at) < 0 {
			at = r.from
		}
	}
	return at
}

func (p Place) compare(q Place) int {
	return cmp.Or(p.At.Compare(q.At), bytes.Compare(p.Conversation[:], q.Conversation[:]), cmp.Compare(p.Seq, q.Seq))
}
