package messaging

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// MaxBlocks is how many others a user may block.
const MaxBlocks = 1000

// Block says that a user wants nothing from another: in a conversation of these
// two, neither can send, and no signal passes between them anywhere. What was
// written stays readable.
type Block struct {
	// ID is a UUIDv7: newer blocks have greater ones.
	ID        uuid.UUID
	BlockerID uuid.UUID
	BlockedID uuid.UUID
	CreatedAt time.Time
}

// ErrTooManyBlocks is a Store's answer to the block beyond MaxBlocks.
var ErrTooManyBlocks = fault.New(fault.Conflict, "too_many_blocks",
	"You block 1,000 users. Unblock one to block another.")

var errBlockSelf = fault.New(fault.Invalid, "user_id_invalid", "You can't block yourself.")

// Blocklist is the part of a Store that says who wants nothing from whom.
type Blocklist interface {
	// Block has no effect if the block is there; ErrTooManyBlocks.
	Block(ctx context.Context, block Block) error
	// Unblock has no effect if there is no block.
	Unblock(ctx context.Context, blocker, blocked uuid.UUID) error
	// Blocks lists a user's with an id below before, newest first.
	Blocks(ctx context.Context, blocker, before uuid.UUID, limit int) ([]Block, error)
}

// Block blocks another user. Whether there is such a user is not known here.
func (s *Service) Block(ctx context.Context, user, other uuid.UUID) error {
	switch other {
	case uuid.Nil:
		return errUserID
	case user:
		return errBlockSelf
	}
	if err := s.allow(user); err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make a block id: %w", err)
	}
	return s.store.Block(ctx, Block{ID: id, BlockerID: user, BlockedID: other, CreatedAt: s.now().UTC().Truncate(time.Microsecond)})
}

// Unblock lifts the user's block of another, if there is one.
func (s *Service) Unblock(ctx context.Context, user, other uuid.UUID) error {
	if err := s.allow(user); err != nil {
		return err
	}
	return s.store.Unblock(ctx, user, other)
}

// Blocks lists those that the user made, newest first, after before unless that
// is nil.
func (s *Service) Blocks(ctx context.Context, user uuid.UUID, before *uuid.UUID, limit int) ([]Block, error) {
	end := uuid.Max // after every other
	if before != nil {
		end = *before
	}
	return s.store.Blocks(ctx, user, end, limit)
}
