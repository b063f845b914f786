package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/marketplane/marketplane/services/events"
)

const (
	sweepInterval = time.Minute
	sweepBatch    = 100
	// endedKept is how long an ended session can still say that it has ended;
	// after that its tokens are merely not valid.
	endedKept = 7 * 24 * time.Hour
)

// Sweep ends the sessions that have expired, with an event each so that their
// sockets close too, and forgets the ones that ended long ago. It works until
// ctx ends; errors are logged and tried again. Every process may do it.
func (s *Service) Sweep(ctx context.Context, log *slog.Logger) error {
	timer := time.NewTimer(jittered(sweepInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			log.Warn("expired sessions not swept; trying on", "error", err)
		}
		timer.Reset(jittered(sweepInterval))
	}
}

func (s *Service) sweep(ctx context.Context) error {
	return errors.Join(
		inBatches(ctx, s.endExpired),
		inBatches(ctx, func(ctx context.Context) (int, error) {
			n, err := s.Store.DeleteEnded(ctx, s.now().Add(-endedKept), sweepBatch)
			if err != nil {
				return 0, fmt.Errorf("forget ended sessions: %w", err)
			}
			return n, nil
		}),
	)
}

func (s *Service) endExpired(ctx context.Context) (int, error) {
	now := s.now()
	n, err := s.Store.ChangeExpired(ctx, now, sweepBatch, func(session *Session) []events.Event {
		return session.end(ReasonExpired, now)
	})
	if err != nil {
		return 0, fmt.Errorf("end expired sessions: %w", err)
	}
	if n > 0 {
		s.Wake()
		s.Meter.SessionsEnded(ReasonExpired, n)
	}
	return n, nil
}

// inBatches goes on while batches are full, so that no transaction is large.
func inBatches(ctx context.Context, batch func(context.Context) (int, error)) error {
	for ctx.Err() == nil {
		n, err := batch(ctx)
		if err != nil {
			return err
		}
		if n < sweepBatch {
			return nil
		}
	}
	return nil
}

// jittered spreads the processes that started together.
func jittered(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // G404: chance, not secrecy
}
