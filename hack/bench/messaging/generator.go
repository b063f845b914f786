package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/marketplane/marketplane/hack/bench/internal/process"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// generatorArgument has this program be the load generator.
const generatorArgument = "load"

// generator is the load generator's process.
type generator struct {
	process *process.Process
	steps   *json.Encoder
	results *json.Decoder
	close   []io.Closer
	unwatch func() bool
}

// startGenerator starts a generator, and waits until it has its tokens.
func startGenerator(ctx context.Context, c config, job plan.Job) (*generator, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	stdin, steps, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	results, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), steps.Close())
	}
	p, err := process.Start(process.Options{
		Name: "load", Program: program, Arguments: []string{generatorArgument}, Logs: c.dir, Input: stdin, Output: stdout,
	})
	// The process has them now.
	err = errors.Join(err, stdin.Close(), stdout.Close())
	if err != nil {
		return nil, errors.Join(err, steps.Close(), results.Close())
	}
	g := &generator{
		process: p, steps: json.NewEncoder(steps), results: json.NewDecoder(results),
		close: []io.Closer{steps, results},
		// It ends what waits for a result.
		unwatch: context.AfterFunc(ctx, func() { p.Kill() }),
	}
	if err := g.steps.Encode(job); err != nil {
		g.stop()
		return nil, err
	}
	if _, err := g.result(ctx); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *generator) stop() {
	g.unwatch()
	g.process.Stop()
	for _, c := range g.close {
		_ = c.Close()
	}
}

// do has it do a step.
func (g *generator) do(ctx context.Context, step plan.Step) (plan.Result, error) {
	if err := g.steps.Encode(step); err != nil {
		return plan.Result{}, fmt.Errorf("the load generator: %w; see %s", err, g.process.Log())
	}
	return g.result(ctx)
}

func (g *generator) result(ctx context.Context) (plan.Result, error) {
	var r plan.Result
	err := g.results.Decode(&r)
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case err != nil:
		return r, fmt.Errorf("the load generator: %w; see %s", err, g.process.Log())
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}
