package autoscale

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRecommend(t *testing.T) {
	policy := Policy{Min: 1, Max: 10, Target: 200, Stabilization: 0}
	tests := map[string]struct {
		policy          Policy
		current         int32
		demand, missing int
		want            int32
		wantReason      string
	}{
		"nobody":            {policy, 1, 0, 0, 1, "0 connections, target 200 per pod, at least 1 pods"},
		"exactly full":      {policy, 1, 600, 0, 3, "600 connections, target 200 per pod"},
		"one more":          {policy, 3, 601, 0, 4, "601 connections, target 200 per pod"},
		"above the maximum": {policy, 3, 90000, 0, 10, "90000 connections, target 200 per pod, at most 10 pods"},
		"shrinks at once without a window": {
			policy, 5, 200, 0, 1, "200 connections, target 200 per pod",
		},
		"a missing figure blocks shrinking": {
			policy, 5, 200, 1, 5, "kept at 5: 1 running pods did not tell their connections",
		},
		"and does not block growing": {
			policy, 2, 600, 1, 3, "600 connections, target 200 per pod (1 running pods did not tell theirs)",
		},
		"a higher minimum counts at once": {
			Policy{Min: 4, Max: 10, Target: 200}, 2, 0, 0, 4, "limits are 4 to 10",
		},
		"a lower maximum counts at once, even with a missing figure": {
			Policy{Min: 1, Max: 2, Target: 200}, 5, 5000, 1, 2, "limits are 1 to 2",
		},
		"a target of zero is one": {
			Policy{Min: 1, Max: 9, Target: 0}, 1, 3, 0, 3, "3 connections, target 0 per pod",
		},
		"a huge demand does not overflow": {
			Policy{Min: 1, Max: 1000, Target: 1}, 1, 1 << 40, 0, 1000, "1099511627776 connections, target 1 per pod, at most 1000 pods",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, _ := Recommend(tt.policy, History{}, Observation{
				Now: start, Current: tt.current, Demand: tt.demand, Told: 1, Missing: tt.missing,
			})
			if diff := cmp.Diff(Recommendation{tt.want, tt.wantReason}, got); diff != "" {
				t.Errorf("recommendation (-want +got):\n%s", diff)
			}
		})
	}
}

// A history is a value: what was recommended from it once can be again.
func TestRecommendIsPure(t *testing.T) {
	policy := Policy{Min: 1, Max: 10, Target: 100, Stabilization: time.Minute}
	_, h := Recommend(policy, History{}, Observation{Now: start, Current: 8, Demand: 800, Told: 8})
	o := Observation{Now: start.Add(time.Second), Current: 8, Demand: 100, Told: 8}
	first, _ := Recommend(policy, h, o)
	Recommend(policy, h, Observation{Now: start.Add(2 * time.Second), Current: 8, Demand: 1000, Told: 8})
	again, _ := Recommend(policy, h, o)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the second time differs (-first +second):\n%s", diff)
	}
}

// phase is a stretch of a simulation during which something holds.
type phase struct {
	what    string
	lasts   time.Duration
	demand  func(since time.Duration) int
	missing int
	// outage: no pod runs.
	outage bool
	// restart forgets the history first, as an operator's restart does.
	restart bool
}

func steady(n int) func(time.Duration) int { return func(time.Duration) int { return n } }

// ramp goes evenly from one demand to another.
func ramp(from, to int, over time.Duration) func(time.Duration) int {
	return func(since time.Duration) int {
		return from + int(float64(to-from)*min(1, float64(since)/float64(over)))
	}
}

// TestSimulation runs many ticks, obeying each recommendation, and compares
// the log of all changes with a golden file.
func TestSimulation(t *testing.T) {
	const tick = 5 * time.Second
	policy := Policy{Min: 1, Max: 10, Target: 200, Stabilization: 5 * time.Minute}
	tests := map[string][]phase{
		"day": {
			{what: "quiet", lasts: 2 * time.Minute, demand: steady(30)},
			{what: "morning: 30 to 1500 connections in 10 minutes", lasts: 10 * time.Minute, demand: ramp(30, 1500, 10*time.Minute)},
			{what: "busy", lasts: 10 * time.Minute, demand: steady(1500)},
			{what: "all leave but 150", lasts: 4 * time.Minute, demand: steady(150)},
			{what: "a short return to 900", lasts: time.Minute, demand: steady(900)},
			{what: "they leave for good", lasts: 15 * time.Minute, demand: steady(150)},
		},
		"blind": {
			{what: "busy", lasts: time.Minute, demand: steady(1000)},
			{what: "most leave, two pods do not answer", lasts: 10 * time.Minute, demand: steady(100), missing: 2},
			{what: "all answer again", lasts: 10 * time.Minute, demand: steady(100)},
		},
		"outage": {
			{what: "busy", lasts: 10 * time.Minute, demand: steady(1000)},
			{what: "every pod crashes: nobody can be connected", lasts: 10 * time.Minute, demand: steady(0), outage: true},
			{what: "they run again, and some come back", lasts: 2 * time.Minute, demand: steady(300)},
			{what: "no more come", lasts: 5 * time.Minute, demand: steady(300)},
		},
		"restart": {
			{what: "busy", lasts: 10 * time.Minute, demand: steady(1000)},
			{what: "most leave", lasts: 4 * time.Minute, demand: steady(100)},
			{what: "the operator restarts: the window starts anew", lasts: 10 * time.Minute, demand: steady(100), restart: true},
		},
		"storm": {
			{what: "full", lasts: time.Minute, demand: steady(600)},
			{what: "everyone at once", lasts: 2 * time.Minute, demand: steady(30000)},
			{what: "as before", lasts: 10 * time.Minute, demand: steady(600)},
		},
	}
	for name, phases := range tests {
		t.Run(name, func(t *testing.T) {
			var (
				log      bytes.Buffer
				history  History
				replicas = int32(1)
				since    time.Duration
			)
			fmt.Fprintf(&log, "%d to %d pods, %d connections each, %s stabilisation\n",
				policy.Min, policy.Max, policy.Target, policy.Stabilization)
			for _, p := range phases {
				fmt.Fprintf(&log, "%8s  -- %s\n", since, p.what)
				if p.restart {
					history = History{}
				}
				var reason string
				for in := time.Duration(0); in < p.lasts; in += tick {
					var got Recommendation
					told := int(replicas)
					if p.outage {
						told = 0
					}
					got, history = Recommend(policy, history, Observation{
						Now: start.Add(since), Current: replicas, Demand: p.demand(in), Told: told, Missing: p.missing,
					})
					if got.Replicas != replicas {
						fmt.Fprintf(&log, "%8s  %2d -> %2d  %s\n", since, replicas, got.Replicas, got.Reason)
					}
					replicas, reason = got.Replicas, got.Reason
					since += tick
				}
				fmt.Fprintf(&log, "%8s  at %2d     %s\n", since, replicas, reason)
			}
			golden := filepath.Join("testdata", name+".golden.txt")
			if *update {
				if err := os.WriteFile(golden, log.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), log.String()); diff != "" {
				t.Errorf("log (-want +got; -update writes it anew):\n%s", diff)
			}
		})
	}
}
