package wsapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/wsconn"
)

type metrics struct {
	connects prometheus.Counter
	closes   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	received *prometheus.CounterVec
	taken    map[string]prometheus.Counter // received, for what succeeds, by op
	ack      prometheus.Histogram
	sent     prometheus.Counter
	dropped  prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, sockets *wsconn.Group) metrics {
	m := metrics{
		connects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_connects_total",
			Help: "WebSockets that were opened.",
		}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_closes_total",
			Help: "WebSockets that were closed, by the close code that the server chose; client: the client closed; none: the connection broke.",
		}, []string{"code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_refused_total",
			Help: "WebSockets refused before the upgrade, by the problem's code.",
		}, []string{"code"}),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "marketplane_messaging_ws_ack_seconds",
			Help:    "Time from a send's arrival to its acknowledgement being queued, after the commit.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_commands_total",
			Help: "Commands of clients, by op and by result: ok, or the error's code.",
		}, []string{"op", "result"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_objects_sent_total",
			Help: "Objects queued for clients: events and replies.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_signals_dropped_total",
			Help: "Ephemeral signals dropped because the client had much to read.",
		}),
	}
	m.taken = make(map[string]prometheus.Counter, len(fields))
	for op := range fields {
		m.taken[op] = m.received.WithLabelValues(op, "ok")
	}
	registry.MustRegister(m.connects, m.closes, m.refused, m.received, m.ack, m.sent, m.dropped,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "marketplane_messaging_ws_queued_bytes",
			Help: "Bytes that wait to be written to clients, of all connections together.",
		}, func() float64 { return float64(sockets.Queued()) }))
	return m
}
