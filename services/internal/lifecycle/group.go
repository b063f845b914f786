// Package lifecycle starts and stops what a process is made of, in order, and
// serves its probes. One contract holds for everything that runs: Start
// returns once the part works or can't; Stop is graceful, bounded by its
// context, and waits for every goroutine that Start began.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Part is one thing that a process runs. Either function may be nil.
type Part struct {
	Name string
	// Start must return promptly once the part works. Its context ends with the
	// start-up, not with the part's life.
	Start func(ctx context.Context) error
	// Stop ends the part gracefully, within ctx.
	Stop func(ctx context.Context) error
}

// Group runs parts: started in the order in which they were added, stopped in
// the opposite order.
type Group struct {
	log    *slog.Logger
	grace  time.Duration
	parts  []Part
	failed chan error
}

// NewGroup makes a group whose stop may take up to grace.
func NewGroup(log *slog.Logger, grace time.Duration) *Group {
	return &Group{log: log, grace: grace, failed: make(chan error, 1)}
}

// Add adds a part.
func (g *Group) Add(part Part) { g.parts = append(g.parts, part) }

// Go adds a part that is one function, which works until its context ends. If
// it returns before, the whole group stops with its error.
func (g *Group) Go(name string, run func(ctx context.Context) error) {
	var (
		cancel context.CancelFunc
		done   = make(chan struct{})
	)
	g.Add(Part{
		Name: name,
		Start: func(context.Context) error {
			var ctx context.Context
			ctx, cancel = context.WithCancel(context.Background()) //nolint:gosec // G118: Stop calls it
			go func() {
				defer close(done)
				err := run(ctx)
				if ctx.Err() != nil {
					return
				}
				if err == nil {
					err = errors.New("without an error")
				}
				g.Fail(fmt.Errorf("%s ended: %w", name, err))
			}()
			return nil
		},
		Stop: func(ctx context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
}

// Fail stops the running group with an error; the first one counts.
func (g *Group) Fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}

// Run starts every part, calls ready, waits until ctx ends or a part fails,
// and stops what was started. It returns nil after an asked-for stop in which
// every part stopped well.
func (g *Group) Run(ctx context.Context, ready func()) error {
	var started []Part
	stop := sync.OnceValue(func() error {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.grace)
		defer cancel()
		var errs []error
		for i := len(started) - 1; i >= 0; i-- {
			part := started[i]
			if part.Stop == nil {
				continue
			}
			if err := part.Stop(stopping); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", part.Name, err))
			}
		}
		return errors.Join(errs...)
	})
	for _, part := range g.parts {
		if part.Start != nil {
			if err := part.Start(ctx); err != nil {
				return errors.Join(fmt.Errorf("start %s: %w", part.Name, err), stop())
			}
		}
		started = append(started, part)
	}
	ready()
	select {
	case <-ctx.Done():
		g.log.Info("stopping", "grace", g.grace.String())
		return stop()
	case err := <-g.failed:
		return errors.Join(err, stop())
	}
}
