package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Open implements messaging.Membership.
func (s *Store) Open(ctx context.Context, c messaging.Conversation, opener uuid.UUID) ([]messaging.Item, error) {
	var written []messaging.Item
	err := s.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := s.queries.WithTx(tx)
		users := map[uuid.UUID]struct{}{}
		insert := db.InsertMembersParams{ConversationID: c.ID}
		for _, m := range c.Members {
			users[m.UserID] = struct{}{}
			insert.UserIds = append(insert.UserIds, m.UserID)
			insert.Roles = append(insert.Roles, string(m.Role))
		}
		if err := q.LockUsers(ctx, sortedKeys(users)); err != nil {
			return err
		}
		if err := q.InsertSupportConversation(ctx, db.InsertSupportConversationParams{ID: c.ID, Title: c.Title, CreatedAt: c.CreatedAt}); err != nil {
			return err
		}
		if err := q.InsertMembers(ctx, insert); err != nil {
			return err
		}
		if err := q.RefreshBlocked(ctx, []uuid.UUID{c.ID}); err != nil {
			return err
		}
		items, err := messaging.OpenedItems(c, opener)
		if err != nil {
			return err
		}
		written, err = appendItems(ctx, q, items)
		return err
	})
	if err != nil {
		return nil, failed("open conversation "+c.ID.String(), err)
	}
	return written, nil
}

// ChangeMembers implements messaging.Membership.
func (s *Store) ChangeMembers(ctx context.Context, conversation, user uuid.UUID, decide func(messaging.Conversation) (*messaging.MemberChange, error)) ([]messaging.Item, error) {
	var written []messaging.Item
	err := s.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := s.queries.WithTx(tx)
		// A newcomer may make it a conversation of two. If a member leaves, and two
		// stay, a block of theirs waits for the conversation's own lock.
		if err := q.LockUsers(ctx, []uuid.UUID{user}); err != nil {
			return err
		}
		c, err := lockConversation(ctx, q, conversation)
		if err != nil {
			return err
		}
		change, err := decide(c)
		if err != nil || change == nil {
			return err
		}
		if err := changeMember(ctx, q, conversation, *change); err != nil {
			return err
		}
		if err := q.RefreshBlocked(ctx, []uuid.UUID{conversation}); err != nil {
			return err
		}
		items, err := messaging.MemberItems(c, *change)
		if err != nil {
			return err
		}
		written, err = appendItems(ctx, q, items)
		return err
	})
	if err != nil {
		return nil, failed("change the members of conversation "+conversation.String(), err)
	}
	return written, nil
}

// lockConversation returns a conversation as it stays until the transaction
// ends, or ErrNoConversation.
func lockConversation(ctx context.Context, q *db.Queries, id uuid.UUID) (messaging.Conversation, error) {
	ids := []uuid.UUID{id}
	if _, err := q.LockConversations(ctx, ids); err != nil {
		return messaging.Conversation{}, fmt.Errorf("lock it: %w", err)
	}
	row, err := q.ConversationByID(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return messaging.Conversation{}, messaging.ErrNoConversation
	}
	if err != nil {
		return messaging.Conversation{}, fmt.Errorf("read it: %w", err)
	}
	members, err := q.MembersOf(ctx, ids)
	if err != nil {
		return messaging.Conversation{}, fmt.Errorf("read its members: %w", err)
	}
	return conversationOf(db.ConversationsOfMemberRow{
		ID: row.ID, Kind: row.Kind, TaskID: row.TaskID, Title: row.Title,
		Head: row.Head, Blocked: row.Blocked, CreatedAt: row.CreatedAt,
	}, membersOf(members, 1)[id]), nil
}

func changeMember(ctx context.Context, q *db.Queries, conversation uuid.UUID, change messaging.MemberChange) error {
	m := change.Member
	if change.Removed {
		return q.DeleteMember(ctx, db.DeleteMemberParams{ConversationID: conversation, UserID: m.UserID})
	}
	return q.InsertMembers(ctx, db.InsertMembersParams{
		ConversationID: conversation, UserIds: []uuid.UUID{m.UserID}, Roles: []string{string(m.Role)}, ReadSeq: m.ReadSeq,
	})
}

// Audience implements messaging.Store.
func (s *Store) Audience(ctx context.Context, conversation, user uuid.UUID) ([]uuid.UUID, error) {
	users, err := s.queries.AudienceOf(ctx, db.AudienceOfParams{ConversationID: conversation, UserID: user})
	if err != nil {
		return nil, failed("read the audience in "+conversation.String(), err)
	}
	if len(users) == 0 {
		return nil, messaging.ErrNoConversation
	}
	others := users[:0]
	for _, other := range users {
		if other != user {
			others = append(others, other)
		}
	}
	return others, nil
}
