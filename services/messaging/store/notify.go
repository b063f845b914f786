package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/messaging/notify"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Notifier implements notify.Store.
type Notifier struct{ store *Store }

// Notifier is what notifications need of the store.
func (s *Store) Notifier() Notifier { return Notifier{s} }

// State implements notify.Store.
func (n Notifier) State(ctx context.Context) (notify.State, error) {
	row, err := n.store.queries.NotifierState(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		if err := n.store.queries.MakeNotifier(ctx, uuid.Nil); err != nil {
			return notify.State{}, failed("begin with notifications", err)
		}
		row, err = n.store.queries.NotifierState(ctx)
	}
	if err != nil {
		return notify.State{}, failed("read how far notifications are", err)
	}
	state := notify.State{
		Held: row.Held, Now: row.Now,
		Places: [2]notify.Place{
			notify.Soon: {At: row.SoonAt, Conversation: row.SoonConversation, Seq: row.SoonSeq},
			notify.Late: {At: row.LateAt, Conversation: row.LateConversation, Seq: row.LateSeq},
		},
	}
	if row.Holder != nil {
		state.Holder = *row.Holder
	}
	return state, nil
}

// Hold implements notify.Store.
func (n Notifier) Hold(ctx context.Context, holder uuid.UUID, lease time.Duration) error {
	rows, err := n.store.queries.HoldNotifier(ctx, db.HoldNotifierParams{Holder: holder, Seconds: lease.Seconds()})
	return guarded("hold notifications", rows, err)
}

// guarded is the result of a write that only the holder may make.
func guarded(operation string, rows int64, err error) error {
	if err != nil {
		return failed(operation, err)
	}
	if rows == 0 {
		return fmt.Errorf("%s: %w", operation, notify.ErrLost)
	}
	return nil
}

// Record implements notify.Store.
func (n Notifier) Record(ctx context.Context, holder uuid.UUID, lease time.Duration, sent []notify.Notification) error {
	record := db.RecordNotifiedParams{}
	for _, s := range sent {
		record.ConversationIds = append(record.ConversationIds, s.ConversationID)
		record.UserIds = append(record.UserIds, s.UserID)
		record.Seqs = append(record.Seqs, s.Seq)
	}
	err := postgres.InTx(ctx, n.store.pool, func(tx pgx.Tx) error {
		q := n.store.queries.WithTx(tx)
		rows, err := q.HoldNotifier(ctx, db.HoldNotifierParams{Holder: holder, Seconds: lease.Seconds()})
		if err := guarded("hold notifications", rows, err); err != nil {
			return err
		}
		return q.RecordNotified(ctx, record)
	})
	if err != nil {
		return failed("record who was notified", err)
	}
	return nil
}

// Move implements notify.Store.
func (n Notifier) Move(ctx context.Context, holder uuid.UUID, lease time.Duration, look notify.Look, to notify.Place) error {
	params := db.MoveNotifierSoonParams{
		Holder: holder, Seconds: lease.Seconds(), At: to.At, Conversation: to.Conversation, Seq: to.Seq,
	}
	var (
		rows int64
		err  error
	)
	if look == notify.Soon {
		rows, err = n.store.queries.MoveNotifierSoon(ctx, params)
	} else {
		rows, err = n.store.queries.MoveNotifierLate(ctx, db.MoveNotifierLateParams(params))
	}
	return guarded("move on with notifications", rows, err)
}

// Release implements notify.Store.
func (n Notifier) Release(ctx context.Context, holder uuid.UUID) error {
	if err := n.store.queries.ReleaseNotifier(ctx, holder); err != nil {
		return failed("release notifications", err)
	}
	return nil
}

// Messages implements notify.Store.
func (n Notifier) Messages(ctx context.Context, after notify.Place, until time.Time, limit int) ([]notify.Message, error) {
	rows, err := n.store.queries.MessagesByTime(ctx, db.MessagesByTimeParams{
		AfterAt: after.At, AfterConversation: after.Conversation, AfterSeq: after.Seq, Until: until,
		MaxMessages: int32(limit), //nolint:gosec // G115: batches are small
	})
	if err != nil {
		return nil, failed("read messages to notify of", err)
	}
	out := make([]notify.Message, 0, len(rows))
	for _, row := range rows {
		out = append(out, notify.Message(row))
	}
	return out, nil
}

// Members implements notify.Store.
func (n Notifier) Members(ctx context.Context, conversations []uuid.UUID) ([]notify.Member, error) {
	rows, err := n.store.queries.MembersToNotify(ctx, conversations)
	if err != nil {
		return nil, failed("read members to notify", err)
	}
	out := make([]notify.Member, 0, len(rows))
	for _, row := range rows {
		out = append(out, notify.Member(row))
	}
	return out, nil
}

// CountUnread implements notify.Store.
func (n Notifier) CountUnread(ctx context.Context, of []notify.Notification) error {
	params := db.CountUnreadToNotifyParams{MaxUnread: notify.MaxUnread}
	for i := range of {
		of[i].Unread = 0
		params.Places = append(params.Places, int32(i))
		params.ConversationIds = append(params.ConversationIds, of[i].ConversationID)
		params.UserIds = append(params.UserIds, of[i].UserID)
	}
	rows, err := n.store.queries.CountUnreadToNotify(ctx, params)
	if err != nil {
		return failed("count unread messages", err)
	}
	for _, row := range rows {
		of[row.Place].Unread = int(row.Unread)
	}
	return nil
}
