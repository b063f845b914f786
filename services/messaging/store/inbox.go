package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Inbox gives the other services' events their effect on conversations and
// streams. It is used by one consumer of the event log, which calls Handle and
// After in turn.
type Inbox struct {
	announce func([]messaging.Item)
	queries  *db.Queries
	items    []messaging.Item // of the batch that is being committed
}

// NewInbox tells of its effects through announce, once they are committed.
func (s *Store) NewInbox(announce func([]messaging.Item)) *Inbox {
	return &Inbox{announce: announce, queries: s.queries}
}

// Types are the event types that matter here.
func (*Inbox) Types() []string {
	return []string{events.TypeOfferMade, events.TypeTaskChanged, events.TypeSessionEnded}
}

// Handle gives events their effect in tx.
func (in *Inbox) Handle(ctx context.Context, tx pgx.Tx, records []events.Record) error {
	in.items = nil
	q := in.queries.WithTx(tx)
	var items []messaging.Item
	for _, record := range records {
		news, err := handle(ctx, q, record)
		if err != nil {
			return fmt.Errorf("event %s (%s): %w", record.ID, record.Type, err)
		}
		items = append(items, news...)
	}
	written, err := appendItems(ctx, q, items)
	if err != nil {
		return err
	}
	in.items = written
	return nil
}

// After tells of what Handle did, once it is committed.
func (in *Inbox) After() {
	in.announce(in.items)
	in.items = nil
}

func handle(ctx context.Context, q *db.Queries, record events.Record) ([]messaging.Item, error) {
	switch record.Type {
	case events.TypeOfferMade:
		var e events.OfferMade
		if err := json.Unmarshal(record.Data, &e); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		return openConversation(ctx, q, e)
	case events.TypeTaskChanged:
		var e events.TaskChanged
		if err := json.Unmarshal(record.Data, &e); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		return tellChange(ctx, q, e)
	case events.TypeSessionEnded:
		var e events.SessionEnded
		if err := json.Unmarshal(record.Data, &e); err != nil {
			return nil, fmt.Errorf("decode: %w", err)
		}
		return messaging.SessionItems(e.UserID, e.SessionID, e.Reason)
	default:
		return nil, nil
	}
}

// openConversation makes the pair's conversation, if there is none yet.
func openConversation(ctx context.Context, q *db.Queries, e events.OfferMade) ([]messaging.Item, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make a conversation id: %w", err)
	}
	made, err := q.InsertConversation(ctx, db.InsertConversationParams{ID: id, TaskID: e.TaskID, TaskerID: e.TaskerID, Title: e.Title})
	if err != nil {
		return nil, fmt.Errorf("open a conversation: %w", err)
	}
	if made == 0 {
		if id, err = q.ConversationOfPair(ctx, db.ConversationOfPairParams{TaskID: e.TaskID, TaskerID: e.TaskerID}); err != nil {
			return nil, fmt.Errorf("find the conversation: %w", err)
		}
	} else {
		for user, role := range map[uuid.UUID]messaging.Role{e.ClientID: messaging.RoleClient, e.TaskerID: messaging.RoleTasker} {
			if err := q.InsertMember(ctx, db.InsertMemberParams{ConversationID: id, UserID: user, Role: string(role)}); err != nil {
				return nil, fmt.Errorf("add a member: %w", err)
			}
		}
	}
	return messaging.OfferItems(messaging.OfferMade{
		TaskID: e.TaskID, OfferID: e.OfferID, ClientID: e.ClientID, TaskerID: e.TaskerID, Title: e.Title, ConversationID: id,
	})
}

func tellChange(ctx context.Context, q *db.Queries, e events.TaskChanged) ([]messaging.Item, error) {
	change := messaging.TaskChanged{
		TaskID: e.TaskID, ClientID: e.ClientID, TaskerID: e.TaskerID, ActorID: e.ActorID,
		From: e.From, To: e.To, Title: e.Title, Version: e.Version,
	}
	if e.TaskerID != nil {
		id, err := q.ConversationOfPair(ctx, db.ConversationOfPairParams{TaskID: e.TaskID, TaskerID: *e.TaskerID})
		switch {
		case err == nil:
			change.ConversationID = &id
		case !errors.Is(err, pgx.ErrNoRows):
			return nil, fmt.Errorf("find the conversation: %w", err)
		}
	}
	return messaging.ChangeItems(change)
}
