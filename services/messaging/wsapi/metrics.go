package wsapi

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	connects prometheus.Counter
	closes   *prometheus.CounterVec
	received *prometheus.CounterVec
	sent     prometheus.Counter
	dropped  prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		connects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_connects_total",
			Help: "WebSockets that were opened.",
		}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_ws_closes_total",
			Help: "WebSockets that were closed, by the close code that the server chose; client: the client closed; none: the connection broke.",
		}, []string{"code"}),
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
	registry.MustRegister(m.connects, m.closes, m.received, m.sent, m.dropped)
	return m
}
