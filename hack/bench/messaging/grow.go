package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// tolerance is how much more than the least an operation may cost elsewhere, for
// the cost to count as the same.
const tolerance = 0.15

// cost is one of the figures whose growth is shown.
type cost struct {
	title string
	show  func(float64) string
}

// costs are by index of a cell's values.
func costs() []cost {
	return []cost{
		{"memory of a connection", kilobytes},
		{"processor time of a connection made", microseconds},
		{"processor time of an acknowledged message between pairs", microseconds},
		{"processor time of a durable delivery to 200", microseconds},
		{"processor time of an ephemeral delivery to 200", microseconds},
	}
}

// cell is what was measured at one size.
type cell struct {
	connections, pods int
	upgrade           string    // plan.Job's
	values            []float64 // by cost
}

// sizes are how many connections, on how many processes.
func sizes(small bool) (connections, pods []int) {
	if small {
		return []int{100, 200}, []int{1, 2}
	}
	return []int{1_000, 5_000, 15_000}, []int{1, 2, 3}
}

// grow measures ours at every size, and writes the table and the chart.
func grow(ctx context.Context, c config, our *ours, stdout, stderr io.Writer) error {
	var cells []cell
	connections, pods := sizes(c.quick)
	for _, p := range pods {
		for _, n := range connections {
			g, err := measureCell(ctx, c, our, cell{connections: n, pods: p}, stderr)
			if err != nil {
				return fmt.Errorf("%d connections on %d processes: %w", n, p, err)
			}
			fmt.Fprintf(stderr, "bench-messaging: %s\n", g)
			cells = append(cells, g)
		}
	}
	where, err := machine()
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, growthTable(cells, where+"; clients speak "+spoken(c.door)))
	if c.chart == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.chart), 0o755); err != nil { //nolint:gosec // Everybody reads documentation.
		return err
	}
	return os.WriteFile(c.chart, []byte(chart(cells, connections, pods)), 0o644) //nolint:gosec // Everybody reads documentation.
}

// measureCell measures pairs, then conversations of 200, each on processes of its
// own, and returns the cell with its values.
func measureCell(ctx context.Context, c config, our *ours, g cell, stderr io.Writer) (cell, error) {
	rest, lasting, rate := 20*time.Second, 8*time.Second, 500.0
	if c.quick {
		rest, lasting, rate = time.Second, time.Second, 50
	}
	compare := comparison{config: c, log: stderr}
	pairs := work{
		name: "pairs", layout: layout{users: g.connections, members: 2}, setting: setting{pods: g.pods}, upgrade: g.upgrade,
		measure: func(ctx context.Context, t *trial) error {
			if err := measureConnections(ctx, t, rest); err != nil {
				return err
			}
			connected := t.outcome.figures
			send := plan.Step{Do: plan.Send, Rate: rate, Lasting: 2 * time.Second}
			if _, err := t.step(ctx, send); err != nil {
				return err
			}
			send.Lasting = lasting
			result, used, err := t.measured(ctx, send, acked)
			g.values = []float64{
				connected[figureMemory], connected[figureConnect],
				used.server.Seconds() / float64(max(result.Acked, 1)),
			}
			return err
		},
	}
	if _, err := compare.try(ctx, our, pairs); err != nil {
		return g, err
	}
	groups := work{
		name: "groups", layout: layout{users: g.connections, members: min(200, g.connections)}, setting: setting{pods: g.pods}, upgrade: g.upgrade,
		measure: func(ctx context.Context, t *trial) error {
			kept := g.values[:3]
			if err := t.connectAll(ctx); err != nil {
				return err
			}
			for _, step := range []plan.Step{
				{Do: plan.Send, Rate: 25, Lasting: lasting}, {Do: plan.Typing, Rate: 100, Lasting: lasting},
			} {
				result, used, err := t.measured(ctx, step, delivered)
				if err != nil {
					return err
				}
				kept = append(kept, used.server.Seconds()/float64(max(result.Delivered, 1)))
			}
			g.values = kept
			return nil
		},
	}
	_, err := compare.try(ctx, our, groups)
	return g, err
}

// String is a line for who watches.
func (g cell) String() string {
	var parts []string
	for i, c := range costs() {
		parts = append(parts, c.title+" "+c.show(g.values[i]))
	}
	return fmt.Sprintf("%d connections, %d processes: %s", g.connections, g.pods, strings.Join(parts, ", "))
}

// growthTable is the page's part, in Markdown.
func growthTable(cells []cell, where string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. The machine: %s.\n\n| connections | processes |", time.Now().UTC().Format("2 January 2006"), where)
	for _, c := range costs() {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(costs())) + "\n")
	for _, g := range cells {
		fmt.Fprintf(&b, "| %d | %d |", g.connections, g.pods)
		for i, c := range costs() {
			fmt.Fprintf(&b, " %s |", c.show(g.values[i]))
		}
		b.WriteString("\n")
	}
	for i, c := range costs() {
		least, most := extremes(cells, i)
		if grown := most.values[i]/least.values[i] - 1; grown > tolerance {
			fmt.Fprintf(&b, "\nThe %s grows by %.0f%%, from %d connections on %d processes to %d on %d.\n",
				c.title, 100*grown, least.connections, least.pods, most.connections, most.pods)
		}
	}
	return b.String()
}

// extremes are the cells where a cost is least and greatest.
func extremes(cells []cell, i int) (least, most cell) {
	least, most = cells[0], cells[0]
	for _, g := range cells {
		if g.values[i] < least.values[i] {
			least = g
		}
		if g.values[i] > most.values[i] {
			most = g
		}
	}
	return least, most
}
