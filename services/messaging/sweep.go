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

const (
	trimInterval = 10 * time.Minute
	trimBatch    = 1000
)

// Trimmer deletes old stream items, a batch at a time; see store.Store.
type Trimmer interface {
	Trim(ctx context.Context, before time.Time, limit int) (deleted int, err error)
}

// Sweep deletes stream items that are older than ResumeTTL, now and then, until
// ctx ends. Every process does; they don't hinder each other.
func Sweep(ctx context.Context, trimmer Trimmer, log *slog.Logger) error {
	for {
		wait := time.NewTimer(trimInterval/2 + rand.N(trimInterval)) //nolint:gosec // G404: jitter needs no secrecy
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		for deleted := trimBatch; deleted == trimBatch; {
			var err error
			if deleted, err = trimmer.Trim(ctx, time.Now().Add(-ResumeTTL), trimBatch); err != nil {
				if ctx.Err() == nil {
					log.Warn("old stream items not deleted; trying on", "error", err)
				}
				break
			}
		}
	}
}
