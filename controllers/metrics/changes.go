package metrics

import "github.com/prometheus/client_golang/prometheus"

// Change is what was done to an object.
type Change string

// The changes that are told apart.
const (
	Created Change = "created"
	Updated Change = "updated"
	// Repaired: someone else had changed or deleted what was applied before.
	Repaired Change = "repaired"
	Deleted  Change = "deleted"
)

// Changes counts what the operator does to objects. A nil one counts nothing.
type Changes struct{ total *prometheus.CounterVec }

// NewChanges registers the counter.
func NewChanges(registry prometheus.Registerer) *Changes {
	c := &Changes{total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "marketplane_operator_changes_total",
		Help: "Objects that the operator changed, by kind and by what was done: created, updated, repaired (someone else had changed or deleted what was applied before), deleted (it is not wanted any more).",
	}, []string{"kind", "change"})}
	registry.MustRegister(c.total)
	return c
}

// Count counts one change of an object of a kind. Kinds are few: they are those
// that the operator makes.
func (c *Changes) Count(kind string, change Change) {
	if c != nil {
		c.total.WithLabelValues(kind, string(change)).Inc()
	}
}
