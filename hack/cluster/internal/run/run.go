// Package run executes short-lived commands and reports progress. It knows
// nothing of clusters.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Output runs a command and returns what it wrote to its standard output.
// The error holds the command and the end of what it wrote to its standard
// error.
func Output(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // running named system tools is this package's purpose
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A grandchild that keeps the pipes open must not hold the tool for ever.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w%s", strings.Join(cmd.Args, " "), err, tail(&stderr))
	}
	return stdout.String(), nil
}

// Quiet is Output for commands whose standard output does not matter.
func Quiet(ctx context.Context, name string, args ...string) error {
	_, err := Output(ctx, name, args...)
	return err
}

// All runs commands one after another and stops at the first that fails.
func All(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		if err := Quiet(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// EachIgnoringErrors runs every command and returns the errors of those that
// failed, joined. Cleaning up goes on whatever is already gone.
func EachIgnoringErrors(ctx context.Context, commands [][]string) error {
	var errs []error
	for _, c := range commands {
		if err := Quiet(ctx, c[0], c[1:]...); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func tail(b *bytes.Buffer) string {
	const limit = 2000
	s := strings.TrimSpace(b.String())
	if s == "" {
		return ""
	}
	if len(s) > limit {
		s = "..." + s[len(s)-limit:]
	}
	return ": " + s
}

// Heartbeat is how often a long step says that it still runs.
const Heartbeat = 20 * time.Second

// Progress writes one line a step, with the time that the step took.
type Progress struct {
	out   io.Writer
	now   func() time.Time
	start time.Time
}

// NewProgress returns a Progress that writes to out.
func NewProgress(out io.Writer) *Progress {
	return &Progress{out: out, now: time.Now, start: time.Now()}
}

// Say writes one line.
func (p *Progress) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, "[%6.1fs] %s\n", p.now().Sub(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// Step runs do and writes how long it took, with a heartbeat line while a
// long one runs. detail, which may be nil, adds to the heartbeat.
func (p *Progress) Step(ctx context.Context, name string, detail func() string, do func(context.Context) error) error {
	began := p.now()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	beat := time.NewTicker(Heartbeat)
	defer beat.Stop()
	for {
		select {
		case err := <-done:
			took := p.now().Sub(began).Round(100 * time.Millisecond)
			if err != nil {
				p.Say("%s: failed after %s", name, took)
				return fmt.Errorf("%s: %w", name, err)
			}
			p.Say("%s (%s)", name, took)
			return nil
		case <-beat.C:
			extra := ""
			if detail != nil {
				extra = ", " + detail()
			}
			p.Say("%s: still running after %s%s", name, p.now().Sub(began).Round(time.Second), extra)
		}
	}
}
