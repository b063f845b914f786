package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// The generator is this program: the tests' too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == generatorArgument {
		main()
		return
	}
	os.Exit(m.Run())
}

// buildMarketplane returns the path of the services' program.
func buildMarketplane(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "marketplane")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../../services")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the services: %v\n%s", err, output)
	}
	return program
}

// Ours goes through every work in small sizes, through every door, with real
// processes and a real PostgreSQL.
func TestOursDoesEveryWork(t *testing.T) {
	program := buildMarketplane(t)
	for _, door := range []string{plan.Native, plan.SocketIO} {
		t.Run(door, func(t *testing.T) { testEveryWork(t, program, door) })
	}
	t.Run("forwarded", func(t *testing.T) { testForwardedSessions(t, program) })
}

// prepareOurs makes ours ready to be measured, as the arguments say.
func prepareOurs(t *testing.T, args ...string) (config, *ours) {
	t.Helper()
	c, err := parse(append([]string{"--quick"}, args...), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	// PostgreSQL's user can't enter a test's own folder.
	if c.dir, err = os.MkdirTemp("", "bench-messaging-test-"); err != nil { //nolint:usetesting // see above
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(c.dir) })
	g, err := layGrounds(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.postgres.Stop() })
	our, err := newOurs(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := our.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, our
}

func testEveryWork(t *testing.T, program, door string) {
	t.Helper()
	c, our := prepareOurs(t, "--door", door, "--marketplane", program)
	var log bytes.Buffer
	compare := comparison{config: c, sides: []side{our}, log: &log}
	if err := compare.measure(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	for _, r := range rows() {
		v, ok := compare.outcomes[r.work][0][0].figures[r.figure]
		// What the memory of some connections grows by may be nothing, and the
		// processor's time for them less than a tick.
		if small := r.figure == figureMemory || r.figure == figureConnect; !ok || v <= 0 && !small {
			t.Errorf("%s, %s: %v", r.work, r.figure, v)
		}
		if n := compare.outcomes[r.work][0][0].operations; n == 0 {
			t.Errorf("%s: nothing was done", r.work)
		}
	}
}

// Sessions that one process holds are upgraded at another, which would refuse them if
// it did not forward.
func testForwardedSessions(t *testing.T, program string) {
	t.Helper()
	c, our := prepareOurs(t, "--forwarded", "--marketplane", program)
	g, err := measureCell(t.Context(), c, our, cell{connections: 20, pods: 2, upgrade: plan.UpgradeElsewhere}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	table := forwardedTable([][]cell{{g}, {g}, {g}}, "a machine")
	if len(g.values) != len(costs()) || !strings.Contains(table, "20 connections on 2 processes") || strings.Count(table, "\n| polled") != 2 {
		t.Errorf("%s", table)
	}
}

// The whole program, the peer too.
func TestQuick(t *testing.T) {
	if _, err := os.Stat(filepath.Join("peer", "node_modules")); err != nil {
		t.Fatal("the peer's packages are not installed: run make test, or npm ci in hack/bench/messaging/peer")
	}
	var stdout, stderr bytes.Buffer
	args := []string{"--quick", "--marketplane", buildMarketplane(t), "--peer", "peer", "--thresholds", "thresholds.yaml"}
	if err := bench(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	for _, r := range rows() {
		if !strings.Contains(stdout.String(), r.title) {
			t.Errorf("the report lacks %q:\n%s", r.title, &stdout)
		}
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"--works", "nothing"}, {"--repeats", "0"}, {"--door", "socketio"}, {"--no-such-flag"}} {
		if _, err := parse(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	c, err := parse([]string{"--works", "pairs, resumes", "--quick"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.works) != 2 || c.works[0].name != "pairs" || c.works[1].name != "resumes" || c.repeats != 1 {
		t.Errorf("got %d works and %d repeats", len(c.works), c.repeats)
	}
}
