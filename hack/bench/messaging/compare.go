package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// tries is how often a run is begun that does not count.
const tries = 3

// workTimeout bounds one run.
const workTimeout = 4 * time.Minute

// comparison measures both sides at all works, in turns.
type comparison struct {
	config config
	sides  []side // ours first
	log    io.Writer
	// outcomes are by work, then repeat, then side.
	outcomes map[string][][]outcome
}

func (c *comparison) measure(ctx context.Context) error {
	c.outcomes = map[string][][]outcome{}
	for repeat := range c.config.repeats {
		for _, w := range c.config.works {
			var both []outcome
			for _, s := range c.sides {
				o, err := c.try(ctx, s, w)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", w.name, s.name(), err)
				}
				fmt.Fprintf(c.log, "bench-messaging: repeat %d, %s, %s: %s\n", repeat+1, w.name, s.name(), o)
				both = append(both, o)
			}
			c.outcomes[w.name] = append(c.outcomes[w.name], both)
		}
	}
	return nil
}

// try measures a side, again if the generator was the bottleneck.
func (c *comparison) try(ctx context.Context, s side, w work) (outcome, error) {
	for try := 1; ; try++ {
		o, err := measure(ctx, c.config, s, w)
		if !errors.As(err, &bottleneckError{}) || try == tries {
			return o, err
		}
		fmt.Fprintf(c.log, "bench-messaging: %s, %s: %v\n", w.name, s.name(), err)
	}
}

// measure measures one side at one work, on a database and processes of its own.
func measure(ctx context.Context, c config, s side, w work) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, workTimeout)
	defer cancel()
	g := s.base()
	database, err := g.database(ctx, s, w.layout)
	if err != nil {
		return outcome{}, err
	}
	w.setting.pods = max(w.setting.pods, 1)
	d, err := s.start(ctx, database, w.setting)
	defer d.stop()
	if err != nil {
		return outcome{}, err
	}
	gen, err := startGenerator(ctx, c, plan.Job{
		Protocol: s.protocol(), Targets: d.targets, Users: w.layout.users, Members: w.layout.members,
		Upgrade: w.upgrade, Issuer: issuer, SigningKeys: g.keys,
	})
	if err != nil {
		return outcome{}, err
	}
	defer gen.stop() // before the server, which has nobody left then
	r := &trial{deployment: d, generator: gen, layout: w.layout, small: c.quick}
	err = w.measure(ctx, r)
	return r.outcome, err
}
