package sioapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

type metrics struct {
	closes  *prometheus.CounterVec
	dropped prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, engine *engineio.Server, sockets *socketio.Server) metrics {
	m := metrics{
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_socketio_closes_total",
			Help: "Socket.IO clients that were connected and are no longer, by reason: resume, session ended and slow consumer are the server's; the others are in Socket.IO's words.",
		}, []string{"reason"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_socketio_signals_dropped_total",
			Help: "Ephemeral signals dropped because the client had much to read.",
		}),
	}
	registry.MustRegister(m.closes, m.dropped, collector{engine: engine, sockets: sockets})
	return m
}

var (
	descSessions = prometheus.NewDesc("marketplane_messaging_socketio_sessions",
		"Engine.IO sessions at this moment, by transport.", []string{"transport"}, nil)
	descQueued = prometheus.NewDesc("marketplane_messaging_socketio_queued_bytes",
		"Bytes that wait to be written to Socket.IO clients, of all connections together.", nil, nil)
	descOpened = prometheus.NewDesc("marketplane_messaging_socketio_sessions_opened_total",
		"Engine.IO sessions that began, by their first transport.", []string{"transport"}, nil)
	descUpgraded = prometheus.NewDesc("marketplane_messaging_socketio_upgrades_total",
		"Engine.IO sessions that went from polling to WebSocket.", nil, nil)
	descRefused = prometheus.NewDesc("marketplane_messaging_socketio_requests_refused_total",
		"Engine.IO requests that were answered with an error, by its message.", []string{"error"}, nil)
	descConnects = prometheus.NewDesc("marketplane_messaging_socketio_connects_total",
		"Clients that wanted to be let in, by result: fresh, recovered, or refused.", []string{"result"}, nil)
	descEvents = prometheus.NewDesc("marketplane_messaging_socketio_events_total",
		"Socket.IO events, by direction: in, or out to each receiver.", []string{"direction"}, nil)
)

// collector tells what the protocols' servers count.
type collector struct {
	engine  *engineio.Server
	sockets *socketio.Server
}

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSessions, descQueued, descOpened, descUpgraded, descRefused, descConnects, descEvents} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	engine, sockets := c.engine.Stats(), c.sockets.Stats()
	for transport, n := range engine.Sessions {
		gauge(descSessions, n, string(transport))
	}
	gauge(descQueued, engine.Queued)
	for transport, n := range engine.Opened {
		counter(descOpened, n, string(transport))
	}
	counter(descUpgraded, engine.Upgraded)
	for code, n := range engine.Refused {
		counter(descRefused, n, code.String())
	}
	counter(descConnects, sockets.Connected-sockets.Recovered, "fresh")
	counter(descConnects, sockets.Recovered, "recovered")
	counter(descConnects, sockets.Refused, "refused")
	counter(descEvents, sockets.EventsIn, "in")
	counter(descEvents, sockets.EventsOut, "out")
}
