// Command marketplane is the back end of a task marketplace: its services, the
// bus between them, the migrations, all of them in one process for
// development, and a smoke test for any deployment.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "marketplane:", err)
		os.Exit(1)
	}
}

// invocation is how a subcommand was called.
type invocation struct {
	args           []string
	getenv         func(string) string
	stdout, stderr io.Writer
}

type subcommand struct {
	name, summary string
	run           func(context.Context, invocation) error
}

func subcommands() []subcommand {
	return []subcommand{
		{"auth", "serve log-in, tokens and sessions", runAuth},
		{"messaging", "serve conversations over WebSocket and HTTP", runMessaging},
		{"tasks", "serve tasks and offers", runTasks},
		{"bus", "serve NATS, which wakes the others", runBus},
		{"migrate", "prepare the database, and end", runMigrate},
		{"dev", "run everything in this process", runDev},
		{"smoke", "walk through a running deployment as its users would", runSmoke},
	}
}

var errUsage = errors.New("name a subcommand; 'marketplane help' lists them")

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	name, rest := args[0], args[1:]
	if name == "help" || name == "-h" || name == "--help" {
		return usage(stdout)
	}
	all := subcommands()
	i := slices.IndexFunc(all, func(c subcommand) bool { return c.name == name })
	if i < 0 {
		return fmt.Errorf("no subcommand %q; %w", name, errUsage)
	}
	return all[i].run(ctx, invocation{args: rest, getenv: getenv, stdout: stdout, stderr: stderr})
}

func usage(w io.Writer) error {
	var b strings.Builder
	b.WriteString("usage: marketplane SUBCOMMAND [flags]\n\n")
	for _, c := range subcommands() {
		fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.summary)
	}
	b.WriteString("\nThe services are configured by environment variables; see docs/configuration.md.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// noArguments refuses arguments to a subcommand that takes none.
func noArguments(in invocation) error {
	if len(in.args) > 0 {
		return fmt.Errorf("unexpected argument %q: this subcommand is configured by environment variables alone", in.args[0])
	}
	return nil
}
