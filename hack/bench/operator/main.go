// Command operator measures the Marketplane operator: how long many new
// Marketplaces take until everything is applied, what that costs in writes,
// memory and processor time, whether it is quiet afterwards, and how soon a
// changed field is applied then. The operator runs as a process of its own
// against a real kube-apiserver and etcd; there are no kubelets, so this
// program says that Jobs succeed and pods run. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-operator:", err)
		os.Exit(1)
	}
}

// config is what the benchmark was started with.
type config struct {
	operator   string
	sizes      []int
	embedded   bool
	quiet      time.Duration
	thresholds string
	dir        string
}

func parse(args []string, stderr io.Writer) (config, error) {
	var (
		c     config
		sizes string
	)
	flags := flag.NewFlagSet("bench-operator", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.operator, "operator", "bin/marketplane-operator", "the operator's program")
	flags.StringVar(&sizes, "sizes", "100,300,1000", "numbers of Marketplaces, each in a cluster of its own; thresholds count for the last")
	flags.BoolVar(&c.embedded, "embedded", false, "use embedded databases and buses instead of external ones, and ignore the thresholds")
	flags.DurationVar(&c.quiet, "quiet", time.Minute, "how long nothing may be written afterwards")
	flags.StringVar(&c.thresholds, "thresholds", "hack/bench/operator/thresholds.yaml", "the file with the limits")
	flags.StringVar(&c.dir, "dir", "", "where logs and profiles are kept; by default nowhere")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return c, fmt.Errorf("--sizes: %q is no number of Marketplaces", text)
		}
		c.sizes = append(c.sizes, n)
	}
	return c, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	quiet := logr.FromSlogHandler(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	ctrl.SetLogger(quiet)
	klog.SetLogger(quiet)
	limits, err := readThresholds(c.thresholds)
	if err != nil {
		return err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "bench-operator-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(c.dir) }() //nolint:gosec // G703: it was made just above
	}

	var (
		back    *backends
		results []result
	)
	if !c.embedded {
		if back, err = startBackends(ctx, c.dir); err != nil {
			return fmt.Errorf("start PostgreSQL and NATS: %w", err)
		}
		defer back.stop()
	}
	for _, n := range c.sizes {
		fmt.Fprintf(stderr, "bench-operator: %d Marketplaces\n", n)
		r, err := measure(ctx, c, back, n)
		if err != nil {
			return fmt.Errorf("%d Marketplaces: %w", n, err)
		}
		results = append(results, r)
		fmt.Fprintln(stdout, r)
	}
	if c.embedded {
		return nil
	}
	return limits.check(results)
}
