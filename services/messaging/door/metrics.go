package door

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what all doors of a process count together.
type Metrics struct {
	commands *prometheus.CounterVec
	ack      *prometheus.HistogramVec
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		ack: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "marketplane_messaging_ack_seconds",
			Help:    "Time from a send's arrival to its acknowledgement being queued, after the commit, by the connection's protocol.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"protocol"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_commands_total",
			Help: "Commands of clients, by the connection's protocol, by op and by result: ok, or the error's code.",
		}, []string{"protocol", "op", "result"}),
	}
	registry.MustRegister(m.commands, m.ack)
	return m
}

// counters are one door's.
type counters struct {
	refused   *prometheus.CounterVec        // by op and code
	succeeded map[string]prometheus.Counter // by op
	ack       prometheus.Observer
}

func (m *Metrics) of(protocol string) counters {
	c := counters{
		refused:   m.commands.MustCurryWith(prometheus.Labels{"protocol": protocol}),
		succeeded: make(map[string]prometheus.Counter, len(fields)),
		ack:       m.ack.WithLabelValues(protocol),
	}
	for op := range fields {
		c.succeeded[op] = c.refused.WithLabelValues(op, "ok")
	}
	return c
}
