package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Write writes a batch of drafts in one transaction. Drafts that must be
// refused get a fault of their own in their outcome, and don't hinder the
// others. The items are the members' news.
//
// An error means that nothing is known to be written. It is of kind
// Unavailable where a later try may do, even if the commit itself may have
// happened: the drafts' ClientIDs make the next try find what is there. Any
// other error is a draft's own fault, which smaller batches will find.
func (s *Store) Write(ctx context.Context, drafts []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
	b := &batch{drafts: drafts, sentAt: s.now().UTC().Truncate(time.Microsecond)}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		return b.write(ctx, s.queries.WithTx(tx))
	})
	if err != nil {
		return nil, nil, classifyWrite(err)
	}
	return b.outcomes, b.items, nil
}

// classifyWrite is postgres.Classify, except that everything which is no
// answer of the database, such as a connection that broke during the commit,
// is temporary too.
func classifyWrite(err error) error {
	err = postgres.Classify(err)
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return fmt.Errorf("write messages: %w", err)
	}
	var answer *pgconn.PgError
	switch {
	case !errors.As(err, &answer):
		return fmt.Errorf("write messages: %w", fault.New(fault.Unavailable, "database_unavailable",
			"The service can't reach its data right now. Try again in a moment.").After(time.Second).Because(err))
	case answer.Code[:2] == "22": // data exception: a value in a body
		return messaging.ErrBodyRefused.Because(err)
	default:
		return fmt.Errorf("write messages: %w", err)
	}
}

// key is what makes a message the same message.
type key struct{ conversation, sender, client uuid.UUID }

func keyOf(d messaging.Draft) key { return key{d.ConversationID, d.SenderID, d.ClientID} }

// batch is one group commit at work.
type batch struct {
	drafts   []messaging.Draft
	sentAt   time.Time
	outcomes []commit.Outcome
	items    []messaging.Item
	blocked  map[uuid.UUID]bool // conversations in which nobody may send
}

func (b *batch) write(ctx context.Context, q *db.Queries) error {
	b.outcomes, b.items = make([]commit.Outcome, len(b.drafts)), nil
	wanted := map[uuid.UUID]struct{}{}
	for _, d := range b.drafts {
		wanted[d.ConversationID] = struct{}{}
	}
	locked, err := q.LockConversations(ctx, sortedKeys(wanted))
	if err != nil {
		return fmt.Errorf("lock conversations: %w", err)
	}
	heads := make(map[uuid.UUID]int64, len(locked))
	b.blocked = make(map[uuid.UUID]bool, len(locked))
	for _, c := range locked {
		heads[c.ID], b.blocked[c.ID] = c.Head, c.Blocked
	}
	// After the lock: a member who is removed meanwhile writes and gets nothing.
	members, err := b.members(ctx, q)
	if err != nil {
		return err
	}
	admitted := make([]int, 0, len(b.drafts))
	for i, d := range b.drafts {
		if !slices.Contains(members[d.ConversationID], d.SenderID) {
			b.outcomes[i].Err = messaging.ErrNoConversation
			continue
		}
		admitted = append(admitted, i)
	}
	if len(admitted) == 0 {
		return nil
	}
	fresh, err := b.dropDuplicates(ctx, q, admitted)
	if err != nil || len(fresh) == 0 {
		return err
	}
	return b.insert(ctx, q, fresh, heads, members)
}

// members returns the members of every conversation in the batch.
func (b *batch) members(ctx context.Context, q *db.Queries) (map[uuid.UUID][]uuid.UUID, error) {
	ids := map[uuid.UUID]struct{}{}
	for _, d := range b.drafts {
		ids[d.ConversationID] = struct{}{}
	}
	rows, err := q.MembersOf(ctx, sortedKeys(ids))
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	out := make(map[uuid.UUID][]uuid.UUID, len(ids))
	for _, row := range rows {
		out[row.ConversationID] = append(out[row.ConversationID], row.UserID)
	}
	return out, nil
}

// dropDuplicates answers the drafts that are written already, refuses those
// that may not be, and returns the indexes of the others.
func (b *batch) dropDuplicates(ctx context.Context, q *db.Queries, indexes []int) ([]int, error) {
	find := db.FindSentParams{}
	for _, i := range indexes {
		d := b.drafts[i]
		find.Places = append(find.Places, int32(i)) //nolint:gosec // G115: batches are small
		find.ConversationIds = append(find.ConversationIds, d.ConversationID)
		find.SenderIds = append(find.SenderIds, d.SenderID)
		find.ClientIds = append(find.ClientIds, d.ClientID)
		find.Bodies = append(find.Bodies, string(d.Body))
	}
	rows, err := q.FindSent(ctx, find)
	if err != nil {
		return nil, fmt.Errorf("find messages sent before: %w", err)
	}
	sent := make(map[int]bool, len(rows))
	for _, row := range rows {
		i := int(row.Place)
		sent[i] = true
		if row.SameBody {
			b.outcomes[i].Sent = messaging.Sent{ID: row.ID, Seq: row.Seq, SentAt: row.SentAt, Duplicate: true}
		} else {
			b.outcomes[i].Err = messaging.ErrClientIDReused
		}
	}
	fresh := make([]int, 0, len(indexes))
	for _, i := range indexes {
		switch {
		case sent[i]:
		case b.blocked[b.drafts[i].ConversationID]:
			b.outcomes[i].Err = messaging.ErrConversationBlocked
		default:
			fresh = append(fresh, i)
		}
	}
	return fresh, nil
}

// insert writes the drafts at the given indexes. Their conversations are
// locked, and heads holds their newest seqs.
func (b *batch) insert(ctx context.Context, q *db.Queries, indexes []int, heads map[uuid.UUID]int64, members map[uuid.UUID][]uuid.UUID) error {
	insert := db.InsertMessagesParams{SentAt: b.sentAt}
	first := map[key]int{} // of the drafts with one key in one batch, the first counts
	moved := map[uuid.UUID]struct{}{}
	var items []messaging.Item
	for _, i := range indexes {
		d := b.drafts[i]
		if j, ok := first[keyOf(d)]; ok {
			b.outcomes[i] = b.repeated(j, d)
			continue
		}
		first[keyOf(d)] = i
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make a message id: %w", err)
		}
		heads[d.ConversationID]++
		moved[d.ConversationID] = struct{}{}
		m := messaging.Message{
			ConversationID: d.ConversationID, Seq: heads[d.ConversationID], ID: id, ClientID: d.ClientID,
			SenderID: d.SenderID, Body: d.Body, SentAt: b.sentAt,
		}
		b.outcomes[i].Sent = messaging.Sent{ID: id, Seq: m.Seq, SentAt: m.SentAt}
		insert.ConversationIds = append(insert.ConversationIds, m.ConversationID)
		insert.Seqs = append(insert.Seqs, m.Seq)
		insert.Ids = append(insert.Ids, m.ID)
		insert.SenderIds = append(insert.SenderIds, m.SenderID)
		insert.ClientIds = append(insert.ClientIds, m.ClientID)
		insert.Bodies = append(insert.Bodies, string(m.Body))
		news, err := messaging.MessageItems(m, members[d.ConversationID])
		if err != nil {
			return err
		}
		items = append(items, news...)
	}
	if err := q.InsertMessages(ctx, insert); err != nil {
		return fmt.Errorf("insert messages: %w", err)
	}
	set := db.SetConversationHeadsParams{Ids: sortedKeys(moved)}
	for _, id := range set.Ids {
		set.Heads = append(set.Heads, heads[id])
	}
	if err := q.SetConversationHeads(ctx, set); err != nil {
		return fmt.Errorf("move conversation heads: %w", err)
	}
	var err error
	b.items, err = appendItems(ctx, q, items)
	return err
}

// repeated answers a draft that repeats the one at index j of its own batch.
func (b *batch) repeated(j int, d messaging.Draft) commit.Outcome {
	if !bytes.Equal(b.drafts[j].Body, d.Body) {
		return commit.Outcome{Err: messaging.ErrClientIDReused}
	}
	sent := b.outcomes[j].Sent
	sent.Duplicate = true
	return commit.Outcome{Sent: sent}
}
