package hub

import (
	"bytes"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/messaging"
)

// Where what a connection missed comes from.
const (
	sourceBus   = "bus"
	sourceStore = "store"
)

// What the bus did not take: an item is found again, a signal is gone.
const (
	itemNotPublished   = "not_published"
	signalNotPublished = "signal_not_published"
)

// kinds are those of stream items that are counted by themselves.
var kinds = [...]messaging.Kind{
	messaging.KindMessage, messaging.KindSystemMessage, messaging.KindTask, messaging.KindReceipt, messaging.KindSession, messaging.KindConversation,
}

// tally counts items by kind; the last place is for kinds that are not known.
type tally [len(kinds) + 1]int

func (t *tally) add(items []messaging.Item) {
	for _, item := range items {
		t[kindIndex(item.Kind)]++
	}
}

func kindIndex(kind messaging.Kind) int {
	for i, known := range kinds {
		if kind == known {
			return i
		}
	}
	return len(kinds)
}

type metrics struct {
	refused   prometheus.Counter
	resumes   *prometheus.CounterVec
	delivered [len(kinds) + 1]prometheus.Counter
	latency   prometheus.Histogram
	gaps      prometheus.Counter
	filled    *prometheus.CounterVec
	dropped   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, h *Hub) metrics {
	delivered := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "marketplane_messaging_events_delivered_total",
		Help: "Durable events given to connections, by kind.",
	}, []string{"kind"})
	m := metrics{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_connections_refused_total",
			Help: "Connections refused because the process holds as many as it may.",
		}),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_resumes_total",
			Help: "Authenticated connections, by where they go on from (store: they had missed something; bus: nothing) and by result: fresh (no cursor), recovered, not_recovered.",
		}, []string{"source", "result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "marketplane_messaging_delivery_latency_seconds",
			Help:    "Time from a message's writing to its being queued for connections, once for each process that it is brought to. Replays are not in it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_gaps_total",
			Help: "Times that connections were found to miss something which the bus did not bring.",
		}),
		filled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_gaps_filled_total",
			Help: "Reads of a stream to close a gap which the bus had left, by result: ok, unavailable (tried again), not_kept (the connections resume).",
		}, []string{"result"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_dropped_total",
			Help: "What was dropped, by reason: not_published, heads_not_read, bus_overflow (items are found again in the database), signal_not_published (typing or presence, gone for good).",
		}, []string{"reason"}),
	}
	for i, kind := range kinds {
		m.delivered[i] = delivered.WithLabelValues(string(kind))
	}
	m.delivered[len(kinds)] = delivered.WithLabelValues("other")
	registry.MustRegister(m.refused, m.resumes, delivered, m.latency, m.gaps, m.filled, m.dropped)
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_messaging_bus_connected",
		Help: "1 while the connection that brings news from other processes is there. Without it delivery waits for the database to be compared.",
	}, func() float64 {
		if h.bus.Connected() {
			return 1
		}
		return 0
	}))
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

func (m *metrics) countDelivered(given *tally) {
	for i, n := range given {
		if n > 0 {
			m.delivered[i].Add(float64(n))
		}
	}
}

// countLive counts what was given when an item came, and how late that was.
func (m *metrics) countLive(given *tally, kind messaging.Kind, payload []byte) {
	m.countDelivered(given)
	if kind != messaging.KindMessage || given[kindIndex(kind)] == 0 {
		return
	}
	if at, ok := sentAt(payload); ok {
		m.latency.Observe(max(time.Since(at).Seconds(), 0)) // clocks of processes differ
	}
}

// sentAt reads the last field of a message's payload; see
// messaging.MessagePayload.
func sentAt(payload []byte) (time.Time, bool) {
	i := bytes.LastIndex(payload, []byte(`,"sent_at":"`))
	text, isLast := bytes.CutSuffix(payload, []byte(`"}`))
	if i < 0 || !isLast {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(text[i+len(`,"sent_at":"`):]))
	return at, err == nil
}
