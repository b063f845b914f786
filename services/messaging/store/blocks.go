package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Block implements messaging.Blocklist.
func (s *Store) Block(ctx context.Context, block messaging.Block) error {
	err := s.changeBlock(ctx, block.BlockerID, block.BlockedID, func(q *db.Queries) error {
		made, err := q.InsertBlock(ctx, db.InsertBlockParams{
			ID: block.ID, BlockerID: block.BlockerID, BlockedID: block.BlockedID, CreatedAt: block.CreatedAt,
		})
		if err != nil || made == 0 {
			return err
		}
		count, err := q.CountBlocks(ctx, block.BlockerID)
		if err == nil && count > messaging.MaxBlocks {
			err = messaging.ErrTooManyBlocks
		}
		return err
	})
	if err != nil {
		return failed("block a user for "+block.BlockerID.String(), err)
	}
	return nil
}

// Unblock implements messaging.Blocklist.
func (s *Store) Unblock(ctx context.Context, blocker, blocked uuid.UUID) error {
	err := s.changeBlock(ctx, blocker, blocked, func(q *db.Queries) error {
		return q.DeleteBlock(ctx, db.DeleteBlockParams{BlockerID: blocker, BlockedID: blocked})
	})
	if err != nil {
		return failed("unblock a user for "+blocker.String(), err)
	}
	return nil
}

// changeBlock makes a change between two users, and the flags of their
// conversations follow. All that they share are locked, not those of two alone:
// a third who leaves meanwhile makes one more.
func (s *Store) changeBlock(ctx context.Context, blocker, blocked uuid.UUID, change func(q *db.Queries) error) error {
	return s.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := s.queries.WithTx(tx)
		users := map[uuid.UUID]struct{}{blocker: {}, blocked: {}}
		if err := q.LockUsers(ctx, sortedKeys(users)); err != nil {
			return fmt.Errorf("lock the two: %w", err)
		}
		if err := change(q); err != nil {
			return err
		}
		shared, err := q.SharedConversations(ctx, db.SharedConversationsParams{UserID: blocker, OtherID: blocked})
		if err != nil || len(shared) == 0 {
			return err
		}
		if _, err := q.LockConversations(ctx, shared); err != nil {
			return fmt.Errorf("lock their conversations: %w", err)
		}
		return q.RefreshBlocked(ctx, shared)
	})
}

// Blocks implements messaging.Blocklist.
func (s *Store) Blocks(ctx context.Context, blocker, before uuid.UUID, limit int) ([]messaging.Block, error) {
	rows, err := s.queries.BlocksOf(ctx, db.BlocksOfParams{
		BlockerID: blocker, Before: before, MaxBlocks: int32(limit), //nolint:gosec // G115: pages are small
	})
	if err != nil {
		return nil, failed("list blocks", err)
	}
	out := make([]messaging.Block, 0, len(rows))
	for _, row := range rows {
		out = append(out, messaging.Block{ID: row.ID, BlockerID: blocker, BlockedID: row.BlockedID, CreatedAt: row.CreatedAt})
	}
	return out, nil
}
