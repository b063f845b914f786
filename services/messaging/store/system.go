package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// writeSystem writes into the conversations of tasks that their status changed.
// Sender is uuid.Nil, and client_id the event's id: what makes a client's message
// the same message makes the system's, too. It goes past blocks.
func (s *Store) writeSystem(ctx context.Context, q *db.Queries, all []event) error {
	wanted := map[uuid.UUID]struct{}{}
	for _, e := range all {
		if e.speaks() {
			wanted[e.conversation] = struct{}{}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	ids := sortedKeys(wanted)
	locked, err := q.LockConversations(ctx, ids)
	if err != nil {
		return fmt.Errorf("lock conversations: %w", err)
	}
	heads := make(map[uuid.UUID]int64, len(locked))
	for _, c := range locked {
		heads[c.ID] = c.Head
	}
	rows, err := q.MembersOf(ctx, ids)
	if err != nil {
		return fmt.Errorf("read members: %w", err)
	}
	members := make(map[uuid.UUID][]uuid.UUID, len(ids))
	for _, row := range rows {
		members[row.ConversationID] = append(members[row.ConversationID], row.UserID)
	}
	sent, err := sentBefore(ctx, q, all)
	if err != nil {
		return err
	}
	insert := db.InsertMessagesParams{SentAt: s.now().UTC().Truncate(time.Microsecond)}
	for i := range all {
		e := &all[i]
		if !e.speaks() || sent[e.id] {
			continue
		}
		body, err := messaging.ChangeBody(e.changed())
		if err != nil {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make a message id: %w", err)
		}
		heads[e.conversation]++
		m := messaging.Message{
			ConversationID: e.conversation, Seq: heads[e.conversation], ID: id, ClientID: e.id, Body: body, SentAt: insert.SentAt,
		}
		e.told = messaging.MessageItems(m, members[e.conversation])
		insert.ConversationIds = append(insert.ConversationIds, m.ConversationID)
		insert.Seqs = append(insert.Seqs, m.Seq)
		insert.Ids = append(insert.Ids, m.ID)
		insert.SenderIds = append(insert.SenderIds, m.SenderID)
		insert.ClientIds = append(insert.ClientIds, m.ClientID)
		insert.Bodies = append(insert.Bodies, string(m.Body))
	}
	if len(insert.Ids) == 0 {
		return nil
	}
	if err := q.InsertMessages(ctx, insert); err != nil {
		return fmt.Errorf("insert system messages: %w", err)
	}
	set := db.SetConversationHeadsParams{Ids: ids}
	for _, id := range ids {
		set.Heads = append(set.Heads, heads[id])
	}
	if err := q.SetConversationHeads(ctx, set); err != nil {
		return fmt.Errorf("move conversation heads: %w", err)
	}
	return nil
}

// speaks says whether the system writes about the event.
func (e *event) speaks() bool { return e.change != nil && e.conversation != uuid.Nil }

// sentBefore marks the events, by id, about which the system has written already.
func sentBefore(ctx context.Context, q *db.Queries, all []event) (map[uuid.UUID]bool, error) {
	var find db.SystemMessagesSentParams
	for _, e := range all {
		if e.speaks() {
			find.ConversationIds = append(find.ConversationIds, e.conversation)
			find.ClientIds = append(find.ClientIds, e.id)
		}
	}
	ids, err := q.SystemMessagesSent(ctx, find)
	if err != nil {
		return nil, fmt.Errorf("find system messages written before: %w", err)
	}
	sent := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		sent[id] = true
	}
	return sent, nil
}
