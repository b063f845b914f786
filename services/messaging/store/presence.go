package store

import (
	"context"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging/presence"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Audiences implements presence.Store.
func (s *Store) Audiences(ctx context.Context, users []uuid.UUID) (map[uuid.UUID][]uuid.UUID, error) {
	rows, err := s.queries.Audiences(ctx, db.AudiencesParams{
		UserIds: users, MaxConversations: presence.MaxConversations, MaxAudience: presence.MaxAudience,
	})
	if err != nil {
		return nil, failed("find who is told of presence", err)
	}
	out := make(map[uuid.UUID][]uuid.UUID, len(users))
	for _, row := range rows {
		out[row.OfUser] = append(out[row.OfUser], row.UserID)
	}
	return out, nil
}
