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
	store    *Store
	announce func([]messaging.Item)
	items    []messaging.Item // of the batch that is being committed
}

// NewInbox tells of its effects through announce, once they are committed.
func (s *Store) NewInbox(announce func([]messaging.Item)) *Inbox {
	return &Inbox{store: s, announce: announce}
}

// Types are the event types that matter here.
func (*Inbox) Types() []string {
	return []string{events.TypeOfferMade, events.TypeTaskChanged, events.TypeSessionEnded}
}

// Handle gives events their effect in tx. It goes over them step by step, and
// not one by one, since locks are taken in one order.
func (in *Inbox) Handle(ctx context.Context, tx pgx.Tx, records []events.Record) error {
	in.items = nil
	q := in.store.queries.WithTx(tx)
	decoded := make([]event, len(records))
	for i, record := range records {
		var err error
		if decoded[i], err = decodeEvent(record); err != nil {
			return named(record, err)
		}
	}
	if err := lockOffers(ctx, q, decoded); err != nil {
		return err
	}
	for i := range decoded {
		if err := decoded[i].prepare(ctx, q); err != nil {
			return named(records[i], err)
		}
	}
	if err := in.store.writeSystem(ctx, q, decoded); err != nil {
		return err
	}
	var items []messaging.Item
	for i := range decoded {
		news, err := decoded[i].news()
		if err != nil {
			return named(records[i], err)
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

func named(record events.Record, err error) error {
	return fmt.Errorf("event %s (%s): %w", record.ID, record.Type, err)
}

// event is one that is being handled: one of offer, change and session is set.
type event struct {
	id      uuid.UUID
	offer   *events.OfferMade
	change  *events.TaskChanged
	session *events.SessionEnded

	// conversation is the pair's, uuid.Nil if there is none.
	conversation uuid.UUID
	// told are the items of the message that the system wrote about it.
	told []messaging.Item
}

func decodeEvent(record events.Record) (event, error) {
	e := event{id: record.ID}
	var data any
	switch record.Type {
	case events.TypeOfferMade:
		e.offer = new(events.OfferMade)
		data = e.offer
	case events.TypeTaskChanged:
		e.change = new(events.TaskChanged)
		data = e.change
	case events.TypeSessionEnded:
		e.session = new(events.SessionEnded)
		data = e.session
	default:
		return e, nil
	}
	if err := json.Unmarshal(record.Data, data); err != nil {
		return e, fmt.Errorf("decode: %w", err)
	}
	return e, nil
}

// lockOffers holds the users between whom conversations may begin: one of them
// may block the other at this moment.
func lockOffers(ctx context.Context, q *db.Queries, all []event) error {
	users := map[uuid.UUID]struct{}{}
	for _, e := range all {
		if e.offer != nil {
			users[e.offer.ClientID], users[e.offer.TaskerID] = struct{}{}, struct{}{}
		}
	}
	if len(users) == 0 {
		return nil
	}
	if err := q.LockUsers(ctx, sortedKeys(users)); err != nil {
		return fmt.Errorf("lock the users of offers: %w", err)
	}
	return nil
}

// prepare finds or opens the event's conversation.
func (e *event) prepare(ctx context.Context, q *db.Queries) (err error) {
	switch {
	case e.offer != nil:
		e.conversation, err = openConversation(ctx, q, *e.offer)
	case e.change != nil && e.change.TaskerID != nil:
		e.conversation, err = q.ConversationOfPair(ctx, db.ConversationOfPairParams{TaskID: e.change.TaskID, TaskerID: *e.change.TaskerID})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find the conversation: %w", err)
		}
	}
	return err
}

// news are the event's items, once it is prepared and what the system says of it
// is written.
func (e *event) news() ([]messaging.Item, error) {
	switch {
	case e.offer != nil:
		o := e.offer
		return messaging.OfferItems(messaging.OfferMade{
			TaskID: o.TaskID, OfferID: o.OfferID, ClientID: o.ClientID, TaskerID: o.TaskerID, Title: o.Title, ConversationID: e.conversation,
		})
	case e.change != nil:
		items, err := messaging.ChangeItems(e.changed())
		return append(items, e.told...), err
	case e.session != nil:
		return messaging.SessionItems(e.session.UserID, e.session.SessionID, e.session.Reason)
	default:
		return nil, nil
	}
}

func (e *event) changed() messaging.TaskChanged {
	c := e.change
	changed := messaging.TaskChanged{
		TaskID: c.TaskID, ClientID: c.ClientID, TaskerID: c.TaskerID, ActorID: c.ActorID,
		From: c.From, To: c.To, Title: c.Title, Version: c.Version,
	}
	if e.conversation != uuid.Nil {
		changed.ConversationID = &e.conversation
	}
	return changed
}

// openConversation makes the pair's conversation, if there is none yet.
func openConversation(ctx context.Context, q *db.Queries, e events.OfferMade) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.Nil, fmt.Errorf("make a conversation id: %w", err)
	}
	made, err := q.InsertTaskConversation(ctx, db.InsertTaskConversationParams{ID: id, TaskID: e.TaskID, TaskerID: e.TaskerID, Title: e.Title})
	if err != nil {
		return uuid.Nil, fmt.Errorf("open a conversation: %w", err)
	}
	if made == 0 {
		if id, err = q.ConversationOfPair(ctx, db.ConversationOfPairParams{TaskID: e.TaskID, TaskerID: e.TaskerID}); err != nil {
			return uuid.Nil, fmt.Errorf("find the conversation: %w", err)
		}
		return id, nil
	}
	err = q.InsertMembers(ctx, db.InsertMembersParams{
		ConversationID: id,
		UserIds:        []uuid.UUID{e.ClientID, e.TaskerID},
		Roles:          []string{string(messaging.RoleClient), string(messaging.RoleTasker)},
	})
	if err != nil {
		return uuid.Nil, fmt.Errorf("add the members: %w", err)
	}
	if err := q.RefreshBlocked(ctx, []uuid.UUID{id}); err != nil {
		return uuid.Nil, fmt.Errorf("see who blocks whom: %w", err)
	}
	return id, nil
}
