// Package store keeps conversations, messages and streams in PostgreSQL.
package store

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the messaging schema's.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Store implements messaging.Store, and what delivery reads.
type Store struct {
	pool       *pgxpool.Pool
	transactor *postgres.Transactor
	queries    *db.Queries
	now        func() time.Time
}

// New stores in the pool's schema; now is the clock.
func New(pool *pgxpool.Pool, now func() time.Time) *Store {
	return &Store{pool: pool, transactor: &postgres.Transactor{Pool: pool}, queries: db.New(pool), now: now}
}

// Head implements messaging.Store.
func (s *Store) Head(ctx context.Context, conversation, user uuid.UUID) (int64, error) {
	head, err := s.queries.HeadForMember(ctx, db.HeadForMemberParams{ID: conversation, UserID: user})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, messaging.ErrNoConversation
	}
	if err != nil {
		return 0, failed("read the head of conversation "+conversation.String(), err)
	}
	return head, nil
}

// Conversation implements messaging.Store.
func (s *Store) Conversation(ctx context.Context, id, user uuid.UUID) (messaging.Conversation, error) {
	row, err := s.queries.ConversationOfMember(ctx, db.ConversationOfMemberParams{ID: id, UserID: user, MaxUnread: messaging.MaxUnread})
	if errors.Is(err, pgx.ErrNoRows) {
		return messaging.Conversation{}, messaging.ErrNoConversation
	}
	if err != nil {
		return messaging.Conversation{}, failed("read conversation "+id.String(), err)
	}
	members, err := s.members(ctx, []uuid.UUID{id})
	if err != nil {
		return messaging.Conversation{}, err
	}
	return conversationOf(db.ConversationsOfMemberRow(row), members[id]), nil
}

func conversationOf(row db.ConversationsOfMemberRow, members []messaging.Member) messaging.Conversation {
	c := messaging.Conversation{
		ID: row.ID, Kind: messaging.ConversationKind(row.Kind), Title: row.Title, Members: members,
		LastSeq: row.Head, Unread: row.Unread, Blocked: row.Blocked, CreatedAt: row.CreatedAt,
	}
	if row.TaskID != nil {
		c.TaskID = *row.TaskID
	}
	return c
}

// Conversations implements messaging.Store.
func (s *Store) Conversations(ctx context.Context, query messaging.ConversationQuery) ([]messaging.Conversation, error) {
	before := uuid.Max // after every other
	if query.Before != nil {
		before = *query.Before
	}
	rows, err := s.queries.ConversationsOfMember(ctx, db.ConversationsOfMemberParams{
		UserID: query.UserID, Before: before, TaskID: query.TaskID, Unread: query.Unread, MaxUnread: messaging.MaxUnread,
		MaxConversations: int32(query.Limit), //nolint:gosec // G115: pages are small
	})
	if err != nil {
		return nil, failed("list conversations", err)
	}
	ids := make([]uuid.UUID, 0, len(rows))
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	members, err := s.members(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]messaging.Conversation, 0, len(rows))
	for _, row := range rows {
		out = append(out, conversationOf(row, members[row.ID]))
	}
	return out, nil
}

// Unread implements messaging.Store.
func (s *Store) Unread(ctx context.Context, user uuid.UUID) (messaging.Unread, error) {
	row, err := s.queries.UnreadOfMember(ctx, db.UnreadOfMemberParams{
		UserID: user, MaxConversations: messaging.MaxUnreadConversations, MaxUnread: messaging.MaxUnread,
	})
	if err != nil {
		return messaging.Unread{}, failed("count unread messages", err)
	}
	return messaging.Unread{Conversations: row.Conversations, Messages: row.Messages}, nil
}

func (s *Store) members(ctx context.Context, conversations []uuid.UUID) (map[uuid.UUID][]messaging.Member, error) {
	rows, err := s.queries.MembersOf(ctx, conversations)
	if err != nil {
		return nil, failed("read members", err)
	}
	return membersOf(rows, len(conversations)), nil
}

// membersOf gives each of some conversations its members.
func membersOf(rows []db.Member, conversations int) map[uuid.UUID][]messaging.Member {
	out := make(map[uuid.UUID][]messaging.Member, conversations)
	for _, row := range rows {
		out[row.ConversationID] = append(out[row.ConversationID], messaging.Member{
			UserID: row.UserID, Role: messaging.Role(row.Role), ReadSeq: row.ReadSeq,
		})
	}
	return out
}

// Messages implements messaging.Store.
func (s *Store) Messages(ctx context.Context, conversation uuid.UUID, before int64, limit int) ([]messaging.Message, error) {
	rows, err := s.queries.MessagesBefore(ctx, db.MessagesBeforeParams{
		ConversationID: conversation, Before: before, MaxMessages: int32(limit), //nolint:gosec // G115: pages are small
	})
	if err != nil {
		return nil, failed("read messages of "+conversation.String(), err)
	}
	out := make([]messaging.Message, 0, len(rows))
	for _, row := range rows {
		out = append(out, messaging.Message{
			ConversationID: conversation, Seq: row.Seq, ID: row.ID, ClientID: row.ClientID,
			SenderID: row.SenderID, Body: row.Body, SentAt: row.SentAt,
		})
	}
	return out, nil
}

// MarkRead implements messaging.Store.
func (s *Store) MarkRead(ctx context.Context, conversation, user uuid.UUID, seq int64) ([]messaging.Item, error) {
	var written []messaging.Item
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		q := s.queries.WithTx(tx)
		moved, err := q.RaiseReadSeq(ctx, db.RaiseReadSeqParams{Seq: seq, ConversationID: conversation, UserID: user})
		if err != nil || moved == 0 {
			return err
		}
		members, err := q.MembersOf(ctx, []uuid.UUID{conversation})
		if err != nil {
			return err
		}
		items, err := messaging.ReceiptItems(conversation, user, seq, userIDs(members))
		if err != nil {
			return err
		}
		written, err = appendItems(ctx, q, items)
		return err
	})
	if err != nil {
		return nil, failed("mark "+conversation.String()+" as read", err)
	}
	return written, nil
}

func userIDs(members []db.Member) []uuid.UUID {
	out := make([]uuid.UUID, 0, len(members))
	for _, m := range members {
		out = append(out, m.UserID)
	}
	return out
}

// appendItems gives the items their offsets and writes them. It returns them as
// they are kept: PostgreSQL gives JSON back in another form, and what is
// delivered now must not differ from what is replayed. A transaction calls it
// once, as the last that locks anything: it locks every stream that it needs, in
// the order of user ids.
func appendItems(ctx context.Context, q *db.Queries, items []messaging.Item) ([]messaging.Item, error) {
	if len(items) == 0 {
		return nil, nil
	}
	var add db.AppendEntriesParams
	for i, item := range items {
		add.Places = append(add.Places, int32(i))
		add.UserIds = append(add.UserIds, item.UserID)
		add.Kinds = append(add.Kinds, string(item.Kind))
		add.Payloads = append(add.Payloads, string(item.Payload))
	}
	rows, err := q.AppendEntries(ctx, add)
	if err != nil {
		return nil, fmt.Errorf("append stream items: %w", err)
	}
	written := slices.Clone(items)
	for _, row := range rows {
		written[row.Place].Offset, written[row.Place].Payload = row.Offset, json.RawMessage(row.Payload)
	}
	for i := range written[1:] {
		if items[i+1].SharesPayload(items[i]) {
			written[i+1].Payload = written[i].Payload
		}
	}
	return written, nil
}

// failed says what failed, and tells apart what a later try may cure.
func failed(operation string, err error) error {
	return fmt.Errorf("%s: %w", operation, postgres.Classify(err))
}

// sortedKeys returns a map's ids in the order that PostgreSQL has for them.
func sortedKeys[V any](m map[uuid.UUID]V) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(m), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}
