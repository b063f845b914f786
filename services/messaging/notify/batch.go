package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// notify notifies everyone who is to be of the messages. It returns nil when it
// need not be called with them again: each was notified, or is set aside.
func (w *Worker) notify(ctx context.Context, which Look, messages []Message) error {
	if len(messages) == 0 {
		return nil
	}
	var conversations []uuid.UUID
	seen := map[uuid.UUID]bool{}
	for _, m := range messages {
		if !seen[m.ConversationID] {
			seen[m.ConversationID] = true
			conversations = append(conversations, m.ConversationID)
		}
	}
	members, err := w.store.Members(ctx, conversations)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(slices.DeleteFunc(due(messages, members), w.isAside), perCheck) {
		if some, err = w.absentOf(ctx, some); err != nil {
			return err
		}
		if err := w.sendAll(ctx, which, some); err != nil {
			return err
		}
	}
	return nil
}

// sendAll sends, with a write after each few.
func (w *Worker) sendAll(ctx context.Context, which Look, all []Notification) error {
	for few := range slices.Chunk(all, perRecord) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.send(ctx, which, few); err != nil {
			return err
		}
	}
	return nil
}

// due makes a notification for each member of each conversation who has not
// read others' messages, nor was notified of them.
func due(messages []Message, members []Member) []Notification {
	byConversation := map[uuid.UUID][]Member{}
	for _, m := range members {
		byConversation[m.ConversationID] = append(byConversation[m.ConversationID], m)
	}
	places := map[recipient]int{}
	var all []Notification
	for _, m := range messages {
		for _, to := range byConversation[m.ConversationID] {
			if to.UserID == m.SenderID || m.Seq <= to.KnownSeq {
				continue
			}
			r := recipient{m.ConversationID, to.UserID}
			place, ok := places[r]
			if !ok {
				place = len(all)
				places[r] = place
				all = append(all, Notification{UserID: to.UserID, ConversationID: m.ConversationID})
			}
			if n := &all[place]; m.Seq > n.Seq {
				n.Seq, n.MessageID, n.From, n.SentAt = m.Seq, m.ID, m.SenderID, m.SentAt
			}
		}
	}
	return all
}

// absentOf leaves those who have no connection, and counts what they have not
// read. If it can't be known who is connected, all are taken to be absent: a
// notification too many is better than silence.
func (w *Worker) absentOf(ctx context.Context, all []Notification) ([]Notification, error) {
	users := make([]uuid.UUID, 0, len(all))
	for _, n := range all {
		users = append(users, n.UserID)
	}
	checking, cancel := context.WithTimeout(ctx, checkTimeout)
	absent, err := w.reach.Absent(checking, users)
	cancel()
	left := slices.Clone(all)
	if err != nil {
		w.log.Debug("notifying without knowing who is connected", "error", err) // the bus is away; its metric tells
	} else {
		left = slices.DeleteFunc(left, func(n Notification) bool { return !absent[n.UserID] })
	}
	if len(left) == 0 {
		return nil, nil
	}
	if err := w.store.CountUnread(ctx, left); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(left, func(n Notification) bool { return n.Unread == 0 }), nil // read meanwhile
}

// send sends a few, and writes down which were taken, or given up. Its error
// says that some are neither, nor set aside.
func (w *Worker) send(ctx context.Context, which Look, few []Notification) error {
	if began := time.Now(); w.heldUntil.Sub(began) < perRecord/parallel*sendTimeout {
		if err := w.store.Hold(ctx, w.self, lease); err != nil {
			return err
		}
		w.prolonged(began)
	}
	var (
		errs    = w.request(ctx, few)
		done    []Notification
		failure error
	)
	for i, n := range few {
		if errs[i] == nil {
			w.sent.WithLabelValues("sent").Inc()
			w.taken++
			delete(w.aside, recipientOf(n))
			done = append(done, n)
		}
	}
	for i, n := range few { // now that it is known whether others were taken
		err := errs[i]
		if err == nil {
			continue
		}
		w.sent.WithLabelValues("failed").Inc()
		var refusal *RefusalError
		if errors.As(err, &refusal) && refusal.Verdict != NotNow {
			givenUp, ok := w.setAside(n, refusal, which)
			if givenUp {
				w.giveUp(n, refusal.Error())
				done = append(done, n)
			}
			if ok {
				continue
			}
		}
		failure = fmt.Errorf("send a notification: %w", err)
	}
	if len(done) > 0 {
		// Also when the process stops: what was taken is not to be sent again.
		recording, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		began := time.Now()
		if err := w.store.Record(recording, w.self, lease, done); err != nil {
			return err
		}
		w.prolonged(began)
	}
	return failure
}

func (w *Worker) giveUp(n Notification, why string) {
	w.sent.WithLabelValues("given_up").Inc()
	w.log.Error("a notification is given up", "reason", why, "user", n.UserID, "conversation", n.ConversationID, "seq", n.Seq)
}

// request sends, several at a time, and returns an error or nil for each. What is
// under way when ctx ends may finish, if it does soon; nothing goes on longer
// than the lease.
func (w *Worker) request(ctx context.Context, few []Notification) []error {
	sending, cancel := context.WithDeadline(context.WithoutCancel(ctx), w.heldUntil)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		late := time.AfterFunc(finishTimeout, cancel)
		context.AfterFunc(sending, func() { late.Stop() })
	})()
	errs := make([]error, len(few))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, n := range few {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			one, cancel := context.WithTimeout(sending, sendTimeout)
			defer cancel()
			errs[i] = w.sender.Send(one, n)
		})
	}
	wg.Wait()
	return errs
}
