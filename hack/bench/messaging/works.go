package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// The figures that works come to.
const (
	figureMemory     = "memory"     // bytes of resident memory for each connection
	figureConnect    = "connect"    // seconds of the server's processor time for each connection
	figureFanOut     = "fan-out"    // deliveries in a second of the server's processor time
	figureEphemeral  = "ephemeral"  // the same, of signals
	figurePairs      = "pairs"      // acknowledged messages a second
	figureDelivery   = "delivery"   // seconds until a message is delivered, 99th percentile
	figureResumes    = "resumes"    // resumed connections a second
	figureResumeTime = "resumetime" // seconds until a connection is resumed and has what it missed, 99th percentile
)

// work is one thing that both servers are measured at.
type work struct {
	name    string
	layout  layout
	setting setting
	upgrade string // plan.Job's
	// measure does it on a running server.
	measure func(context.Context, *trial) error
}

// trial is a work at work.
type trial struct {
	deployment *deployment
	generator  *generator
	layout     layout
	small      bool // too small to judge the generator by it
	outcome    outcome
}

// outcome is what a work came to on one side.
type outcome struct {
	figures map[string]float64
	// server, postgres and beside are the processor time of the server, of
	// PostgreSQL, and of the bus or Redis, for all operations of the work.
	server, postgres, beside time.Duration
	operations               int
	// load is the share of a processor that the generator used, and late how late
	// it sent, 99th percentile.
	load float64
	late time.Duration
	// dropped are deliveries that never came.
	dropped int
}

// bottleneckError says that a run tells of the generator, not of the server.
type bottleneckError struct{ why string }

func (e bottleneckError) Error() string {
	return "the load generator was the bottleneck, the run does not count: " + e.why
}

const (
	// mostLoad is the share of one processor that the generator may use: it has one
	// thread, and must be able to drive twice what the server takes.
	mostLoad = 0.5
	// mostLate is how late the 99th percentile of what it sends at a rate may be.
	mostLate = 25 * time.Millisecond
)

// counts says whether a run tells of the server; a bottleneckError, if not.
func (o outcome) counts() error {
	switch {
	case o.load > mostLoad:
		return bottleneckError{fmt.Sprintf("it used %.0f%% of a processor, at most %.0f%% may be", 100*o.load, 100*mostLoad)}
	case o.late > mostLate:
		return bottleneckError{fmt.Sprintf("it sent %s late (99th percentile), at most %s may be", o.late, mostLate)}
	default:
		return nil
	}
}

// step has the generator do a step that is not measured.
func (r *trial) step(ctx context.Context, step plan.Step) (plan.Result, error) {
	result, err := r.generator.do(ctx, step)
	if err != nil {
		// What the server's end did to the generator is the lesser news.
		if failure := r.deployment.failed(); failure != nil {
			err = failure
		}
	}
	return result, err
}

// measured has the generator do a step, and notes what everything used for it.
// operations tells how many operations the result has.
func (r *trial) measured(ctx context.Context, step plan.Step, operations func(plan.Result) int) (plan.Result, usage, error) {
	before, err := r.deployment.usage()
	if err != nil {
		return plan.Result{}, usage{}, err
	}
	result, err := r.step(ctx, step)
	if err != nil {
		return result, usage{}, err
	}
	after, err := r.deployment.usage()
	if err != nil {
		return result, usage{}, err
	}
	used := after.since(before)
	r.outcome.operations = operations(result)
	r.outcome.server, r.outcome.postgres, r.outcome.beside = used.server, used.postgres, used.beside
	r.outcome.load = result.Processor.Seconds() / result.Took.Seconds()
	r.outcome.late = result.Late.P99
	r.outcome.dropped = max(result.Wanted-result.Delivered, 0)
	if r.small {
		return result, used, nil
	}
	return result, used, r.outcome.counts()
}

func done(r plan.Result) int      { return r.Done }
func acked(r plan.Result) int     { return r.Acked }
func delivered(r plan.Result) int { return r.Delivered }

// works are all of them, in their sizes; or in small ones, with which everything
// is done and nothing can be judged.
func works(small bool) []work {
	size := func(full, quick int) int {
		if small {
			return quick
		}
		return full
	}
	lasting := func(full time.Duration) time.Duration {
		if small {
			return time.Second
		}
		return full
	}
	return []work{
		{
			name:   "connections",
			layout: layout{users: size(15_000, 200), members: 2},
			measure: func(ctx context.Context, r *trial) error {
				return measureConnections(ctx, r, lasting(30*time.Second))
			},
		},
		{
			name:   "fanout",
			layout: layout{users: size(200, 50), members: size(200, 50)},
			measure: func(ctx context.Context, r *trial) error {
				step := plan.Step{Do: plan.Send, Rate: float64(size(200, 50)), Lasting: lasting(10 * time.Second)}
				return measureFanOut(ctx, r, figureFanOut, step)
			},
		},
		{
			name:   "ephemeral",
			layout: layout{users: size(1_001, 101), members: size(1_001, 101)},
			measure: func(ctx context.Context, r *trial) error {
				step := plan.Step{Do: plan.Typing, Rate: float64(size(25, 20)), Lasting: lasting(10 * time.Second)}
				return measureFanOut(ctx, r, figureEphemeral, step)
			},
		},
		{
			name: "pairs",
			// Each talks as fast as it is acknowledged, and may send 20 messages a second.
			layout: layout{users: size(2_000, 600), members: 2},
			measure: func(ctx context.Context, r *trial) error {
				return measurePairs(ctx, r, lasting(10*time.Second))
			},
		},
		{
			name:    "steady",
			layout:  layout{users: size(1_000, 100), members: 2},
			setting: setting{pods: 2},
			measure: func(ctx context.Context, r *trial) error {
				return measureSteady(ctx, r, float64(size(1_000, 100)), lasting(15*time.Second))
			},
		},
		{
			name:    "resumes",
			layout:  layout{users: size(5_100, 110), members: size(51, 11)},
			setting: setting{resuming: true},
			measure: measureResumes,
		},
	}
}

// selectWorks returns those of the names, which are separated by commas.
func selectWorks(all []work, names string) ([]work, error) {
	var selected []work
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(w work) bool { return w.name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("--works: there is none called %q; there are %s", name, everything)
		}
		selected = append(selected, all[i])
	}
	return selected, nil
}

const (
	// connectRate is how fast connections are made that another work needs.
	connectRate = 500
	// connecting is how many of them are under way at a time, at most: on a busy
	// machine none must wait longer than servers let it.
	connecting = 200
)

func (r *trial) connectAll(ctx context.Context) error {
	_, err := r.step(ctx, plan.Step{Do: plan.Connect, Rate: connectRate, InFlight: connecting})
	return err
}

func measureConnections(ctx context.Context, r *trial, rest time.Duration) error {
	// As when a pod was lost: everybody comes as soon as the server takes them.
	const handshakes = 50
	empty, err := r.deployment.usage()
	if err != nil {
		return err
	}
	result, used, err := r.measured(ctx, plan.Step{Do: plan.Connect, InFlight: handshakes}, done)
	if err != nil {
		return err
	}
	// Each is pinged once, at least, and the garbage of the beginning may be
	// collected.
	if _, err := r.step(ctx, plan.Step{Do: plan.Hold, Lasting: rest}); err != nil {
		return err
	}
	idle, err := r.deployment.usage()
	if err != nil {
		return err
	}
	r.outcome.figures = map[string]float64{
		figureMemory:  float64(idle.since(empty).memory) / float64(r.layout.users),
		figureConnect: used.server.Seconds() / float64(result.Done),
	}
	return nil
}

// measureFanOut sends a little first, so that what is made once is made.
func measureFanOut(ctx context.Context, r *trial, figure string, step plan.Step) error {
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	warm := step
	warm.Lasting = min(step.Lasting, 2*time.Second)
	if _, err := r.step(ctx, warm); err != nil {
		return err
	}
	result, used, err := r.measured(ctx, step, delivered)
	if err != nil {
		return err
	}
	r.outcome.figures = map[string]float64{figure: float64(result.Delivered) / used.server.Seconds()}
	return nil
}

func measurePairs(ctx context.Context, r *trial, lasting time.Duration) error {
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	if _, err := r.step(ctx, plan.Step{Do: plan.Exchange, Lasting: min(lasting, 3*time.Second)}); err != nil {
		return err
	}
	result, _, err := r.measured(ctx, plan.Step{Do: plan.Exchange, Lasting: lasting}, acked)
	if err != nil {
		return err
	}
	r.outcome.figures = map[string]float64{figurePairs: float64(result.Acked) / lasting.Seconds()}
	return nil
}

func measureSteady(ctx context.Context, r *trial, rate float64, lasting time.Duration) error {
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	step := plan.Step{Do: plan.Send, Rate: rate, Lasting: min(lasting, 3*time.Second)}
	if _, err := r.step(ctx, step); err != nil {
		return err
	}
	step.Lasting = lasting
	result, _, err := r.measured(ctx, step, acked)
	if err != nil {
		return err
	}
	r.outcome.figures = map[string]float64{figureDelivery: result.Delivery.P99.Seconds()}
	return nil
}

func measureResumes(ctx context.Context, r *trial) error {
	const (
		missed = 3
		// handshakes is how many are under way at a time: the backlog of a listener is
		// not what is measured.
		handshakes = 500
	)
	if err := r.connectAll(ctx); err != nil {
		return err
	}
	conversations := r.layout.users / r.layout.members
	steps := []plan.Step{
		// So that everybody has a place to go on from.
		{Do: plan.Send, Rate: 50, Members: 1, Lasting: time.Duration(conversations) * time.Second / 50},
		{Do: plan.Drop, Members: 1},
		{Do: plan.Send, Rate: 50, Members: 1, Lasting: time.Duration(missed*conversations) * time.Second / 50},
	}
	for _, step := range steps {
		if _, err := r.step(ctx, step); err != nil {
			return err
		}
	}
	result, _, err := r.measured(ctx, plan.Step{Do: plan.Connect, InFlight: handshakes, Missed: missed}, done)
	if err != nil {
		return err
	}
	r.outcome.figures = map[string]float64{
		figureResumes:    float64(result.Done) / result.Took.Seconds(),
		figureResumeTime: result.Opening.P99.Seconds(),
	}
	return nil
}
