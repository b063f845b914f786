package wsapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/wsconn"
)

type metrics struct {
	connects prometheus.Counter
	closes   *prometheus.CounterVec
	refused  *prometheus.CounterVec
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
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_objects_sent_total",
			Help: "Objects queued for clients: events and replies.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_signals_dropped_total",
			Help: "Ephemeral signals dropped because the client had much to read.",
		}),
	}
	registry.MustRegister(m.connects, m.closes, m.refused, m.sent, m.dropped,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "marketplane_messaging_ws_queued_bytes",
			Help: "Bytes that wait to be written to clients, of all connections together.",
		}, func() float64 { return float64(sockets.Queued()) }))
	return m
}
