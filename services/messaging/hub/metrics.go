package hub

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refused   prometheus.Counter
	resumes   *prometheus.CounterVec
	delivered *prometheus.CounterVec
	filled    prometheus.Counter
	dropped   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, h *Hub) metrics {
	m := metrics{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_connections_refused_total",
			Help: "Connections refused because the process holds as many as it may.",
		}),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_resumes_total",
			Help: "Authenticated connections, by result: fresh (no cursor), recovered, not_recovered.",
		}, []string{"result"}),
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_events_delivered_total",
			Help: "Durable events given to connections, by kind.",
		}, []string{"kind"}),
		filled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_gaps_filled_total",
			Help: "Reads of a stream that closed a gap which the bus had left.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_dropped_total",
			Help: "What was dropped and had to be found again, by reason: not_published, heads_not_read.",
		}, []string{"reason"}),
	}
	registry.MustRegister(m.refused, m.resumes, m.delivered, m.filled, m.dropped)
	for name, s := range map[string]state{"pending": pending, "live": live, "draining": draining} {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "marketplane_messaging_connections",
			Help:        "Connections, by state: pending (not authenticated yet), live, draining (told to move).",
			ConstLabels: prometheus.Labels{"state": name},
		}, func() float64 {
			h.mu.RLock()
			defer h.mu.RUnlock()
			return float64(h.counts[s])
		}))
	}
	return m
}

func (m metrics) countDelivered(counts delivered) {
	for kind, n := range counts {
		m.delivered.WithLabelValues(string(kind)).Add(float64(n))
	}
}
