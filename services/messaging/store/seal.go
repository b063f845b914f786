package store

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/messaging/seal"
)

// SealingKey returns the installation's key for package seal, the same to every
// process, and makes it if there is none.
func (s *Store) SealingKey(ctx context.Context) ([]byte, error) {
	key, err := s.queries.SealingKey(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		made := make([]byte, seal.KeySize)
		_, _ = rand.Read(made) // it never fails
		// Of processes that come here at once one makes it, and the others wait.
		if err := s.queries.MakeSealingKey(ctx, made); err != nil {
			return nil, failed("make the sealing key", err)
		}
		key, err = s.queries.SealingKey(ctx)
	}
	if err != nil {
		return nil, failed("read the sealing key", err)
	}
	return key, nil
}
