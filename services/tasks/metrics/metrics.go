// Package metrics counts what the tasks domain does.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/tasks"
)

// Metrics implements tasks.Observer.
type Metrics struct{ transitions *prometheus.CounterVec }

// New registers the metrics.
func New(registry prometheus.Registerer) *Metrics {
	m := &Metrics{transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "marketplane_tasks_transitions_total",
		Help: "Attempts to move a task to another status, by the status before (none: it is being posted), the one asked for, and result.",
	}, []string{"from", "to", "result"})}
	registry.MustRegister(m.transitions)
	return m
}

// Transition implements tasks.Observer.
func (m *Metrics) Transition(from, to tasks.Status, result tasks.Result) {
	if from == tasks.StatusNone {
		from = "none"
	}
	m.transitions.WithLabelValues(string(from), string(to), string(result)).Inc()
}
