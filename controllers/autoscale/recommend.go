// Package autoscale recommends how many messaging pods should run. It is pure:
// what was observed and the clock go in, a number and its reason come out. It
// must not know Kubernetes, HTTP, or how a recommendation is carried out.
package autoscale

import (
	"fmt"
	"time"
)

// Policy is what the user asked for.
type Policy struct {
	// Min and Max bound the number of pods; 1 <= Min <= Max.
	Min, Max int32
	// Target is how many connections one pod should hold; at least 1.
	Target int32
	// Stabilization is how long fewer pods must have sufficed before any is
	// removed. Zero removes at once.
	Stabilization time.Duration
}

// Observation is the state of the tier at one moment.
type Observation struct {
	// Now is when it was observed.
	Now time.Time
	// Current is how many pods are wanted at present.
	Current int32
	// Demand counts live, draining and pending connections of all pods that
	// told theirs.
	Demand int
	// Told is how many pods told theirs.
	Told int
	// Missing is how many running pods did not tell theirs.
	Missing int
}

// blind says that the demand may be more than what was told: a pod that does
// not tell its connections may hold many, and where none runs, those whom an
// outage threw out wait outside.
func (o Observation) blind() bool { return o.Missing > 0 || o.Told == 0 }

// Recommendation is how many pods should run.
type Recommendation struct {
	// Replicas is between Min and Max.
	Replicas int32
	// Reason says why, for people: it stands in the status and in Events.
	Reason string
}

// History is what a later recommendation must remember of earlier ones. The
// zero value has seen nothing; it then holds the current number for a whole
// window, so that a restart of the operator never removes pods early.
type History struct {
	samples []sample
}

// sample is a recommendation before stabilisation.
type sample struct {
	at       time.Time
	replicas int32
}

// Recommend returns ceil(demand / target) within the limits. More pods are
// wanted at once. Fewer are wanted only when that has been so for the whole
// stabilisation window, and never while a figure is missing. The returned
// History replaces the given one, which is not changed.
func Recommend(p Policy, h History, o Observation) (Recommendation, History) {
	wanted := clamp(ceilDiv(o.Demand, int(p.Target)), p)
	next := h.remember(p, o, wanted)

	current := clamp(int(o.Current), p)
	replicas, reason := wanted, p.explain(o)
	switch {
	case current != o.Current:
		// The limits moved: they count at once, in both directions. Within
		// them, fewer pods must still wait.
		replicas = max(current, wanted)
		if replicas == current {
			reason = fmt.Sprintf("limits are %d to %d", p.Min, p.Max)
		}
	case wanted >= current:
	case o.blind():
		replicas = current
		reason = fmt.Sprintf("kept at %d: %d running pods did not tell their connections", current, o.Missing)
		if o.Missing == 0 {
			reason = fmt.Sprintf("kept at %d: no pod runs that could tell its connections", current)
		}
	default:
		if highest := next.highest(); highest > wanted {
			replicas = min(highest, current)
			reason = fmt.Sprintf("kept at %d until fewer suffice for %s", replicas, p.Stabilization)
			if replicas < current {
				reason = fmt.Sprintf("no more than %d were needed for %s", replicas, p.Stabilization)
			}
		}
	}
	return Recommendation{Replicas: replicas, Reason: reason}, next
}

// explain is the reason of an unhindered recommendation.
func (p Policy) explain(o Observation) string {
	reason := fmt.Sprintf("%d connections, target %d per pod", o.Demand, p.Target)
	switch unbounded := ceilDiv(o.Demand, int(p.Target)); {
	case unbounded > int(p.Max):
		reason += fmt.Sprintf(", at most %d pods", p.Max)
	case unbounded < int(p.Min):
		reason += fmt.Sprintf(", at least %d pods", p.Min)
	}
	if o.Missing > 0 {
		reason += fmt.Sprintf(" (%d running pods did not tell theirs)", o.Missing)
	}
	return reason
}

// remember returns the history with this moment's recommendation, without what
// left the window. Of equal or lower samples only the latest matters: what is
// kept is the falling line of maxima, at most one sample per number of pods.
func (h History) remember(p Policy, o Observation, wanted int32) History {
	now := sample{at: o.Now, replicas: wanted}
	if len(h.samples) == 0 {
		// Nothing is known of the time before: suppose that what runs was needed.
		h.samples = []sample{{at: o.Now, replicas: clamp(int(o.Current), p)}}
	}
	if o.blind() {
		// The true demand is not known: what runs may be needed.
		now.replicas = max(wanted, clamp(int(o.Current), p))
	}
	oldest := o.Now.Add(-p.Stabilization)
	var kept []sample
	for _, s := range h.samples {
		if s.at.After(oldest) && s.replicas > now.replicas {
			kept = append(kept, s)
		}
	}
	return History{samples: append(kept, now)}
}

// highest returns the highest recommendation in the window.
func (h History) highest() int32 {
	var highest int32
	for _, s := range h.samples {
		highest = max(highest, s.replicas)
	}
	return highest
}

func clamp(n int, p Policy) int32 {
	// Both limits are int32, so the result is too.
	return int32(min(max(n, int(p.Min)), int(p.Max))) //nolint:gosec // G115: bounded by Max
}

func ceilDiv(n, by int) int {
	by = max(by, 1)
	return (max(n, 0) + by - 1) / by
}
