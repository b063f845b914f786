package main

import (
	"fmt"
	"slices"
	"strings"
)

// The chart's measures, in its own units.
const (
	panelWidth  = 300
	panelHeight = 210
	marginLeft  = 64
	marginRight = 16
	marginTop   = 40
	marginUnder = 44
)

// colours are those of 1, 2 and 3 processes: told apart by the colour-blind, too
// (Okabe and Ito).
var colours = []string{"#0072B2", "#D55E00", "#009E73"}

// chart draws a panel for each cost: connections to the right, the cost upwards
// from zero, a line for each number of processes. It is an SVG document (version
// 1.1).
func chart(cells []cell, connections, pods []int) string {
	all := costs()
	const columns = 2
	width, height := columns*panelWidth, (len(all)+columns-1)/columns*panelHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>What an operation costs as messaging grows</title>\n<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, height)
	for i, c := range all {
		p := panel{x: i % columns * panelWidth, y: i / columns * panelHeight}
		p.draw(&b, c, i, cells, connections, pods)
	}
	// The legend takes the last place, which is free.
	for i, n := range pods {
		y := height - panelHeight + marginTop + 20*i
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="2"/><text x="%d" y="%d">%s</text>`+"\n",
			panelWidth+marginLeft, y, panelWidth+marginLeft+24, y, colours[i%len(colours)], panelWidth+marginLeft+32, y+4, processes(n))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// panel is one cost's part of the chart, by its upper left corner.
type panel struct{ x, y int }

func (p panel) draw(b *strings.Builder, c cost, index int, cells []cell, connections, pods []int) {
	_, most := extremes(cells, index)
	top := 1.15 * most.values[index] // room above the highest line
	farthest := float64(slices.Max(connections))
	across := func(n int) float64 {
		return float64(p.x+marginLeft) + float64(n)/farthest*float64(panelWidth-marginLeft-marginRight)
	}
	up := func(v float64) float64 {
		return float64(p.y+panelHeight-marginUnder) - v/top*float64(panelHeight-marginTop-marginUnder)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="11" font-weight="bold">%s</text>`+"\n", p.x+10, p.y+20, c.title)
	for i := range 3 {
		v := top / 1.15 * float64(i) / 2
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#cccccc"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n",
			across(0), up(v), across(int(farthest)), up(v), across(0)-4, up(v)+3, c.show(v))
	}
	for _, n := range connections {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", across(n), p.y+panelHeight-marginUnder+16, n)
	}
	for i, n := range pods {
		var points []string
		for _, g := range cells {
			if g.pods == n {
				points = append(points, fmt.Sprintf("%.1f,%.1f", across(g.connections), up(g.values[index])))
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colours[i%len(colours)])
	}
}
