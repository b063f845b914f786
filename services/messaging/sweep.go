package messaging

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// ResumeTTL is how long stream items are kept: for how long a client may be
// away and still get everything that it missed. Messages are kept for good.
const ResumeTTL = 7 * 24 * time.Hour

// expireInterval is the mean time between two looks for what is too old.
const expireInterval = 10 * time.Minute

// Expirer drops old stream items; see store.Store.
type Expirer interface {
	Expire(ctx context.Context, before time.Time) (dropped int, err error)
}

// Sweep drops stream items that are older than ResumeTTL, at once and then now
// and then, until ctx ends. Every process does; they don't hinder each other.
func Sweep(ctx context.Context, expirer Expirer, log *slog.Logger) error {
	for {
		dropped, err := expirer.Expire(ctx, time.Now().Add(-ResumeTTL))
		switch {
		case err != nil && ctx.Err() == nil:
			log.Warn("old stream items not dropped; trying on", "error", err)
		case dropped > 0:
			log.Info("old stream items dropped", "days", dropped)
		}
		wait := time.NewTimer(expireInterval/2 + rand.N(expireInterval)) //nolint:gosec // G404: jitter needs no secrecy
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}
