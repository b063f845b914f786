package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marketplane/marketplane/hack/bench/internal/postgres"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// row is a figure as people read it.
type row struct {
	work, figure string
	title        string
	// show writes a value with its unit.
	show func(float64) string
}

func kilobytes(v float64) string    { return fmt.Sprintf("%.1f KB", v/1000) }
func microseconds(v float64) string { return fmt.Sprintf("%.0f µs", v*1e6) }
func milliseconds(v float64) string { return fmt.Sprintf("%.1f ms", v*1e3) }

func perSecond(v float64) string {
	if v < 1e4 {
		return fmt.Sprintf("%.0f/s", v)
	}
	return fmt.Sprintf("%.1f k/s", v/1000)
}

// rows are all figures, in the order of the report.
func rows() []row {
	return []row{
		{"connections", figureMemory, "memory of an idle, authenticated connection (RSS)", kilobytes},
		{"connections", figureConnect, "processor time of a connection made, its token verified", microseconds},
		{"fanout", figureFanOut, "durable deliveries in conversations of 200, in a second of the server's processor time", perSecond},
		{"ephemeral", figureEphemeral, "deliveries of typing to 1,000 receivers, in a second of the server's processor time", perSecond},
		{"pairs", figurePairs, "messages between pairs, acknowledged after the commit", perSecond},
		{"steady", figureDelivery, "delivery between pairs at 1,000 messages/s on two processes, 99th percentile", milliseconds},
		{"resumes", figureResumes, "resumes after a drop of 5,000", perSecond},
		{"resumes", figureResumeTime, "from the connection's begin until what it missed is there, 99th percentile", milliseconds},
	}
}

// spread is the least, the middle and the greatest of some values.
type spread struct{ least, median, greatest float64 }

func spreadOf(values []float64) spread {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return spread{values[0], (values[(n-1)/2] + values[n/2]) / 2, values[n-1]}
}

func (s spread) show(unit func(float64) string) string {
	return fmt.Sprintf("%s (%s to %s)", unit(s.median), unit(s.least), unit(s.greatest))
}

// figures are a figure's spreads on both sides, and of what ours is times the
// peer's, for each repeat.
func figures(repeats [][]outcome, figure string) (ours, peer, times spread) {
	var a, b, ratios []float64
	for _, both := range repeats {
		x, y := both[0].figures[figure], both[1].figures[figure]
		a, b, ratios = append(a, x), append(b, y), append(ratios, x/y)
	}
	return spreadOf(a), spreadOf(b), spreadOf(ratios)
}

// String is a line for who watches.
func (o outcome) String() string {
	var b strings.Builder
	for _, r := range rows() {
		if v, ok := o.figures[r.figure]; ok {
			fmt.Fprintf(&b, "%s %s, ", r.figure, r.show(v))
		}
	}
	each := func(d time.Duration) string { return microseconds(d.Seconds() / float64(max(o.operations, 1))) }
	fmt.Fprintf(&b, "for each of %d operations %s of the server, %s of PostgreSQL, %s of the bus; generator %.0f%% of a processor, %s late",
		o.operations, each(o.server), each(o.postgres), each(o.beside), 100*o.load, o.late.Round(10*time.Microsecond))
	if o.dropped > 0 {
		fmt.Fprintf(&b, "; %d deliveries were dropped", o.dropped)
	}
	return b.String()
}

// report is the page's part, in Markdown.
func (c *comparison) report(limits thresholds, command, where string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %s. %s\n\n", command, time.Now().UTC().Format("2 January 2006"), where)
	fmt.Fprintf(&b, "Of %d repeats on each side, in turns: the median, and from the least to the greatest. Clients of ours speak %s.\n\n", c.config.repeats, spoken(c.config.door))
	b.WriteString("| | ours | the peer | ours is times the peer's | must show |\n|---|---|---|---|---|\n")
	for _, r := range rows() {
		repeats := c.outcomes[r.work]
		if len(repeats) == 0 {
			continue
		}
		ours, peer, times := figures(repeats, r.figure)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.title, ours.show(r.show), peer.show(r.show),
			times.show(func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }), limits.of(r))
	}
	b.WriteString("\nThe processor time of everything, for each operation of the work (a connection, a delivery, an acknowledged message, a resume), in medians:\n\n")
	b.WriteString("| work | server: ours, the peer | PostgreSQL: ours, the peer | bus, Redis | the generator's share of a processor |\n|---|---|---|---|---|\n")
	for _, w := range c.config.works {
		median := func(side int, value func(outcome) float64) float64 {
			var values []float64
			for _, both := range c.outcomes[w.name] {
				values = append(values, value(both[side]))
			}
			return spreadOf(values).median
		}
		pair := func(used func(outcome) time.Duration) string {
			each := func(o outcome) float64 { return used(o).Seconds() / float64(max(o.operations, 1)) }
			return microseconds(median(0, each)) + ", " + microseconds(median(1, each))
		}
		share := func(o outcome) float64 { return 100 * o.load }
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f%%, %.0f%% |\n", w.name,
			pair(func(o outcome) time.Duration { return o.server }),
			pair(func(o outcome) time.Duration { return o.postgres }),
			pair(func(o outcome) time.Duration { return o.beside }),
			median(0, share), median(1, share))
	}
	return b.String()
}

// spoken is a door's protocol, for people.
func spoken(door string) string {
	if door == plan.SocketIO {
		return "Socket.IO over WebSocket"
	}
	return "the native protocol"
}

// surroundings says on what was measured: the machine, and the versions.
func surroundings(ctx context.Context) (string, error) {
	database, err := postgres.Version(ctx)
	if err != nil {
		return "", err
	}
	node, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask for the version of Node.js: %w", err)
	}
	machine, err := machine()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("The machine: %s; PostgreSQL %s, %s, Node.js %s; the load generator, PostgreSQL and the server share it.",
		machine, database, runtime.Version(), strings.TrimSpace(string(node))), nil
}

// machine describes it by what /proc tells.
func machine() (string, error) {
	model, errModel := procField("/proc/cpuinfo", "model name")
	memory, errMemory := procField("/proc/meminfo", "MemTotal")
	release, errRelease := os.ReadFile("/proc/sys/kernel/osrelease")
	load, errLoad := os.ReadFile("/proc/loadavg")
	if err := errors.Join(errModel, errMemory, errRelease, errLoad); err != nil {
		return "", err
	}
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(memory, " kB"), 10, 64)
	if err != nil {
		return "", err
	}
	loads := strings.Fields(string(load))
	return fmt.Sprintf("%d cores (%s), %d GB, Linux %s, load average at the end %s",
		runtime.NumCPU(), model, (kilobytes+1<<19)>>20, strings.TrimSpace(string(release)), loads[1]), nil
}

func procField(path, name string) (string, error) {
	content, err := os.ReadFile(path) //nolint:gosec // It is one of two.
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, name)
}
