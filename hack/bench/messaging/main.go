// Command messaging measures Marketplane's messaging against a chat server of the
// Node.js stack that does the same job: what a connection costs, what a delivery
// costs, how many messages are acknowledged, how soon they arrive, and how fast
// dropped connections come back. Both servers run as processes of their own on one
// real PostgreSQL. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/load"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-messaging:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 1 && args[0] == generatorArgument {
		return load.Run(ctx, stdin, stdout)
	}
	return bench(ctx, args, stdout, stderr)
}

// config is what the benchmark was started with.
type config struct {
	marketplane string
	peer        string
	pool        int
	door        string // the protocol that clients of ours speak
	works       []work
	repeats     int
	quick       bool
	alone       bool
	growth      bool
	forwarded   bool
	chart       string
	thresholds  string
	dir         string
}

const defaultChart = "docs/benchmarks/messaging-growth.svg"

// everything is the names of all works.
const everything = "connections,fanout,ephemeral,pairs,steady,resumes"

func parse(args []string, stderr io.Writer) (config, error) {
	var (
		c     config
		names string
	)
	flags := flag.NewFlagSet("bench-messaging", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.marketplane, "marketplane", "bin/marketplane", "the program with our services")
	flags.StringVar(&c.peer, "peer", "hack/bench/messaging/peer", "the folder of the peer, with its packages installed")
	flags.IntVar(&c.pool, "peer-pool", 20, "the peer's connections to PostgreSQL")
	flags.StringVar(&c.door, "door", plan.Native, "the door to ours that is measured: native or socket.io")
	flags.StringVar(&names, "works", everything, "what is measured")
	flags.IntVar(&c.repeats, "repeats", 5, "how often each work is measured on each side, in turns")
	flags.BoolVar(&c.quick, "quick", false, "do everything once in small sizes, and judge nothing")
	flags.BoolVar(&c.alone, "alone", false, "measure ours without the peer, and judge nothing: for work on ours")
	flags.BoolVar(&c.growth, "growth", false, "measure ours at 1,000, 5,000 and 15,000 connections on 1, 2 and 3 processes instead, and draw --chart")
	flags.BoolVar(&c.forwarded, "forwarded", false, "measure instead what it costs ours that a session of Socket.IO is upgraded at a process that does not hold it")
	flags.StringVar(&c.chart, "chart", defaultChart, "where --growth draws; with --quick or another door than native nowhere, unless it is named")
	flags.StringVar(&c.thresholds, "thresholds", "hack/bench/messaging/thresholds.yaml", "the file with the limits")
	flags.StringVar(&c.dir, "dir", "", "where logs are kept; by default nowhere")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if c.quick {
		c.repeats = 1
	}
	if c.chart == defaultChart && (c.quick || c.door != plan.Native) {
		c.chart = "" // of small sizes it would tell nothing, and of another door something else
	}
	if c.forwarded {
		c.door = plan.SocketIO
	}
	if c.door != plan.Native && c.door != plan.SocketIO {
		return c, fmt.Errorf("--door: there is none called %q; there are %s and %s", c.door, plan.Native, plan.SocketIO)
	}
	if c.repeats < 1 {
		return c, errors.New("--repeats: at least 1")
	}
	var err error
	if c.works, err = selectWorks(works(c.quick), names); err != nil {
		return c, err
	}
	if c.dir != "" {
		c.dir, err = filepath.Abs(c.dir)
	}
	return c, err
}

// path is that of a file of the run.
func (c config) path(name string) string { return filepath.Join(c.dir, name) }

// write writes a file of the run, and returns its path.
func (c config) write(name string, content []byte) (string, error) {
	path := c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil { //nolint:gosec // G703: whoever runs it names the folder
		return "", err
	}
	return path, os.WriteFile(path, content, 0o600) //nolint:gosec // G703: as above
}

func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	limits, err := readThresholds(c.thresholds, c.door)
	if err != nil {
		return err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "bench-messaging-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(c.dir) }() //nolint:gosec // G703: it was made just above
	} else if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	g, err := layGrounds(ctx, c)
	if err != nil {
		return err
	}
	defer g.postgres.Stop()
	our, err := newOurs(g)
	if err != nil {
		return err
	}
	if c.growth || c.forwarded {
		if err := our.prepare(ctx); err != nil {
			return err
		}
		if c.forwarded {
			return measureForwarded(ctx, c, our, stdout, stderr)
		}
		return grow(ctx, c, our, stdout, stderr)
	}
	b := comparison{config: c, sides: []side{our}, log: stderr}
	if !c.alone {
		other, err := newPeer(g)
		if err != nil {
			return err
		}
		b.sides = append(b.sides, other)
	}
	for _, s := range b.sides {
		if err := s.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", s.name(), err)
		}
	}
	if err := b.measure(ctx); err != nil || c.alone {
		return err
	}
	where, err := surroundings(ctx)
	if err != nil {
		return err
	}
	command := strings.TrimSpace("make bench-messaging " + quoteArgs(args))
	fmt.Fprint(stdout, b.report(limits, command, where))
	if c.quick {
		return nil
	}
	return limits.check(b.outcomes)
}

func quoteArgs(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return fmt.Sprintf("ARGS=%q", strings.Join(args, " "))
}
