package idempotency

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/marketplane/marketplane/services/internal/postgres"
)

const (
	// sweepBatch bounds what one statement deletes: locks and WAL of a moment.
	sweepBatch = 500
	// sweepInterval is the mean time between two looks.
	sweepInterval = 10 * time.Minute
	// sweepPause is the mean time between two batches of one look.
	sweepPause = 100 * time.Millisecond
)

// Sweep deletes keys that have expired, at most one batch of them, and says how
// many. Sweeps at the same time take different ones.
func (k *Keeper) Sweep(ctx context.Context) (int64, error) {
	tag, err := k.transactor.Pool.Exec(ctx, `
		DELETE FROM idempotency_keys WHERE (principal, route, key) IN (
			SELECT principal, route, key FROM idempotency_keys
			WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
			FOR UPDATE SKIP LOCKED
		)`, k.now(), sweepBatch)
	if err != nil {
		return 0, fmt.Errorf("sweep idempotency keys: %w", postgres.Classify(err))
	}
	return tag.RowsAffected(), nil
}

// Run sweeps until ctx ends. Errors are logged, and the next look comes in its
// time.
func (k *Keeper) Run(ctx context.Context, log *slog.Logger) error {
	timer := time.NewTimer(jitter(sweepInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		deleted, err := k.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "idempotency keys not swept", "error", err)
		}
		if deleted == sweepBatch {
			timer.Reset(jitter(sweepPause))
		} else {
			timer.Reset(jitter(sweepInterval))
		}
	}
}

// jitter is from half to one and a half of d, so that processes that started
// together do not sweep together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // G404: no secret depends on it
}
