package httpapi

import (
	"context"
	"time"

	"github.com/google/uuid"
)

type blocksOutput struct{ Body BlockList }

// BlockList is a part of a list of blocks.
type BlockList struct {
	Items      []Block `json:"items" nullable:"false"`
	NextCursor string  `json:"next_cursor,omitempty" doc:"Absent in the last part."`
}

// Block is the JSON of a block.
type Block struct {
	UserID    uuid.UUID `json:"user_id" doc:"Whom you block."`
	CreatedAt time.Time `json:"created_at"`
}

func (h handlers) blocks(ctx context.Context, in *PageInput) (*blocksOutput, error) {
	list := cursorList{user: actor(ctx), name: "blocks"}
	before, err := in.before(list)
	if err != nil {
		return nil, err
	}
	found, err := h.service.Blocks(ctx, actor(ctx), before, in.Limit+1) // one more tells whether there are more
	if err != nil {
		return nil, err
	}
	out := &blocksOutput{Body: BlockList{Items: []Block{}}}
	if len(found) > in.Limit {
		found = found[:in.Limit]
		out.Body.NextCursor = list.encode(found[in.Limit-1].ID)
	}
	for _, b := range found {
		out.Body.Items = append(out.Body.Items, Block{UserID: b.BlockedID, CreatedAt: b.CreatedAt.UTC()})
	}
	return out, nil
}

// UserPath names a user.
type UserPath struct {
	UserID uuid.UUID `path:"user_id" format:"uuid"`
}

func (h handlers) block(ctx context.Context, in *UserPath) (*struct{}, error) {
	return nil, h.service.Block(ctx, actor(ctx), in.UserID)
}

func (h handlers) unblock(ctx context.Context, in *UserPath) (*struct{}, error) {
	return nil, h.service.Unblock(ctx, actor(ctx), in.UserID)
}
