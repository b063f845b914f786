package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

func TestSpread(t *testing.T) {
	for name, test := range map[string]struct {
		values []float64
		want   spread
	}{
		"one":  {[]float64{3}, spread{3, 3, 3}},
		"odd":  {[]float64{5, 1, 2}, spread{1, 2, 5}},
		"even": {[]float64{4, 1, 2, 8}, spread{1, 3, 8}},
	} {
		if diff := cmp.Diff(test.want, spreadOf(test.values), cmp.AllowUnexported(spread{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// repeatsOf are repeats of a work whose figure is a on our side and b on the
// peer's.
func repeatsOf(figure string, pairs ...[2]float64) [][]outcome {
	var repeats [][]outcome
	for _, p := range pairs {
		repeats = append(repeats, []outcome{
			{figures: map[string]float64{figure: p[0]}, operations: 10, server: time.Millisecond},
			{figures: map[string]float64{figure: p[1]}, operations: 10, server: time.Millisecond},
		})
	}
	return repeats
}

func readLimits(t *testing.T, door string) thresholds {
	t.Helper()
	limits, err := readThresholds("thresholds.yaml", door)
	if err != nil {
		t.Fatal(err)
	}
	return limits
}

// A ratio is that of neighbours in time, not that of the medians: what the machine
// did meanwhile concerns both.
func TestRatiosAreOfOneRepeat(t *testing.T) {
	_, _, times := figures(repeatsOf(figurePairs, [2]float64{10, 5}, [2]float64{40, 10}, [2]float64{9, 3}), figurePairs)
	if want := (spread{2, 3, 4}); times != want {
		t.Errorf("the ratios are %+v, want %+v", times, want)
	}
}

func TestLimits(t *testing.T) {
	limits := readLimits(t, plan.Native)
	for name, test := range map[string]struct {
		work, figure string
		ours, peer   float64
		wantText     string // of the error; empty for none
	}{
		"enough":                    {"pairs", figurePairs, 200, 100, ""},
		"too few":                   {"pairs", figurePairs, 199, 100, "1.99 times the peer's; it must be at least 2 times the peer's"},
		"small enough":              {"connections", figureMemory, 10_000, 1, ""},
		"too large":                 {"connections", figureMemory, 10_001, 1, "at most 10.0 KB"},
		"fast enough":               {"resumes", figureResumes, 3_000, 9_000, ""},
		"too slow":                  {"resumes", figureResumes, 2_999, 9_000, "2999/s"},
		"soon, but the peer sooner": {"steady", figureDelivery, 0.040, 0.030, "1.33 times the peer's"},
		"late, but the peer later":  {"steady", figureDelivery, 0.060, 0.070, "60.0 ms"},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes := map[string][][]outcome{test.work: repeatsOf(test.figure, [2]float64{test.ours, test.peer})}
			// Other figures of the work are as they should be.
			for _, r := range rows() {
				if r.work != test.work || r.figure == test.figure {
					continue
				}
				good := 1e9
				if limits[r.figure].Most != nil || limits[r.figure].MostTimesPeer != nil {
					good = 1e-6
				}
				for side := range outcomes[test.work][0] {
					outcomes[test.work][0][side].figures[r.figure] = good
				}
			}
			err := limits.check(outcomes)
			if test.wantText == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wantText) {
				t.Errorf("got %v, want an error with %q", err, test.wantText)
			}
		})
	}
}

// The limits are those of the door that was measured.
func TestLimitsOfADoor(t *testing.T) {
	for door, most := range map[string]float64{plan.Native: 10_000, plan.SocketIO: 12_000} {
		limits := readLimits(t, door)
		for _, memory := range []float64{most, most + 1} {
			outcomes := map[string][][]outcome{"connections": repeatsOf(figureMemory, [2]float64{memory, 1})}
			if refused := limits.check(outcomes) != nil; refused != (memory > most) {
				t.Errorf("%s: a memory of %v is refused: %t", door, memory, refused)
			}
		}
	}
}

func TestDroppedDeliveriesAreRefused(t *testing.T) {
	outcomes := map[string][][]outcome{"ephemeral": repeatsOf(figureEphemeral, [2]float64{100, 1})}
	outcomes["ephemeral"][0][0].operations, outcomes["ephemeral"][0][0].dropped = 990, 10
	if err := readLimits(t, plan.Native).check(outcomes); err != nil {
		t.Errorf("a hundredth is refused: %v", err)
	}
	outcomes["ephemeral"][0][0].dropped = 20
	if err := readLimits(t, plan.Native).check(outcomes); err == nil || !strings.Contains(err.Error(), "20 of 1010 deliveries were dropped") {
		t.Errorf("got %v", err)
	}
}

func TestARunOfABusyGeneratorDoesNotCount(t *testing.T) {
	for name, test := range map[string]struct {
		outcome  outcome
		wantText string // of the error; empty for none
	}{
		"at both limits": {outcome{load: mostLoad, late: mostLate}, ""},
		"busy":           {outcome{load: 0.51}, "it used 51% of a processor"},
		"late":           {outcome{late: 26 * time.Millisecond}, "it sent 26ms late"},
	} {
		err := test.outcome.counts()
		if told := errors.As(err, &bottleneckError{}); told != (test.wantText != "") || told && !strings.Contains(err.Error(), test.wantText) {
			t.Errorf("%s: got %v, want %q", name, err, test.wantText)
		}
	}
}

func TestReport(t *testing.T) {
	c := comparison{
		config:   config{repeats: 3, works: []work{{name: "pairs"}}},
		outcomes: map[string][][]outcome{"pairs": repeatsOf(figurePairs, [2]float64{100, 50}, [2]float64{300, 100}, [2]float64{200, 50})},
	}
	got := c.report(readLimits(t, plan.Native), "make bench-messaging", "A machine.")
	for _, want := range []string{
		"`make bench-messaging`", "A machine.",
		"| messages between pairs, acknowledged after the commit | 200/s (100/s to 300/s) | 50/s (50/s to 100/s) | 3.00 (2.00 to 4.00) | at least 2 times the peer's |",
		"| pairs | 100 µs, 100 µs |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "resumes") {
		t.Errorf("the report has a work that was not done:\n%s", got)
	}
}

// cellsOf are cells at all sizes; the cost of the last one is grown times that of
// the others.
func cellsOf(grown float64) []cell {
	var cells []cell
	connections, pods := sizes(false)
	for _, p := range pods {
		for _, n := range connections {
			g := cell{connections: n, pods: p}
			for range costs() {
				g.values = append(g.values, 1e-3)
			}
			cells = append(cells, g)
		}
	}
	last := cells[len(cells)-1].values
	last[1] *= grown
	return cells
}

func TestGrowthSaysWhatBends(t *testing.T) {
	if table := growthTable(cellsOf(1.1), "a machine"); strings.Contains(table, "grows") {
		t.Errorf("a tenth more is told as growth:\n%s", table)
	}
	want := "The processor time of a connection made grows by 30%, from 1000 connections on 1 processes to 15000 on 3."
	if table := growthTable(cellsOf(1.3), "a machine"); !strings.Contains(table, want) {
		t.Errorf("the table lacks %q:\n%s", want, table)
	}
}

func TestChartIsXML(t *testing.T) {
	connections, pods := sizes(false)
	decoder := xml.NewDecoder(strings.NewReader(chart(cellsOf(1.3), connections, pods)))
	lines := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if element, ok := token.(xml.StartElement); ok && element.Name.Local == "polyline" {
			lines++
		}
	}
	if want := len(costs()) * len(pods); lines != want {
		t.Errorf("there are %d lines, want %d", lines, want)
	}
}
