package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// way is one in which a client of Socket.IO comes to its WebSocket.
type way struct{ title, upgrade string }

func ways() []way {
	return []way{
		{"begun as a WebSocket", ""},
		{"polled, and upgraded at the process that holds it", plan.UpgradeHere},
		{"polled, and upgraded at the other, which forwards", plan.UpgradeElsewhere},
	}
}

// measureForwarded measures ours on two processes, with every session opened in each
// of the ways, in turns, and writes the table.
func measureForwarded(ctx context.Context, c config, our *ours, stdout, stderr io.Writer) error {
	connections := 5_000
	if c.quick {
		connections = 100
	}
	cells := make([][]cell, len(ways())) // by way, then repeat
	for repeat := range c.repeats {
		for i, w := range ways() {
			g, err := measureCell(ctx, c, our, cell{connections: connections, pods: 2, upgrade: w.upgrade}, stderr)
			if err != nil {
				return fmt.Errorf("%s: %w", w.title, err)
			}
			fmt.Fprintf(stderr, "bench-messaging: repeat %d, %s: %s\n", repeat+1, w.title, g)
			cells[i] = append(cells[i], g)
		}
	}
	where, err := machine()
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, forwardedTable(cells, where))
	return nil
}

// forwardedTable is the page's part, in Markdown.
func forwardedTable(cells [][]cell, where string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. The machine: %s. %d connections on 2 processes, both together; of %d repeats the median, and from the least to the greatest.\n\n| a session |",
		time.Now().UTC().Format("2 January 2006"), where, cells[0][0].connections, len(cells[0]))
	for _, c := range costs() {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(costs())) + "\n")
	for i, w := range ways() {
		fmt.Fprintf(&b, "| %s |", w.title)
		for j, c := range costs() {
			var values []float64
			for _, g := range cells[i] {
				values = append(values, g.values[j])
			}
			fmt.Fprintf(&b, " %s |", spreadOf(values).show(c.show))
		}
		b.WriteString("\n")
	}
	return b.String()
}
