// Package load is the load generator of the messaging benchmark. It is a process
// of its own with one thread of work, that holds thousands of connections with
// epoll(7) and speaks the protocols with few allocations, so that it takes little
// of what the server could have. It knows neither server.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// Run reads a job and steps, a JSON object each, and answers each with what came
// of it; see package plan. It ends with its input.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	var job plan.Job
	if err := decoder.Decode(&job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	l, err := newLoad(ctx, job)
	if err != nil {
		return err
	}
	defer l.close()
	if err := encoder.Encode(plan.Result{}); err != nil {
		return err
	}
	// While no step is at work pings are answered, and who closes is noticed.
	steps := make(chan plan.Step)
	go func() {
		defer close(steps)
		for {
			var step plan.Step
			if decoder.Decode(&step) != nil {
				return
			}
			select {
			case steps <- step:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		step, err := l.await(steps)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		result, err := l.do(step)
		if err != nil {
			result = plan.Result{Error: step.Do + ": " + err.Error()}
		}
		if err := encoder.Encode(result); err != nil {
			return err
		}
	}
}
