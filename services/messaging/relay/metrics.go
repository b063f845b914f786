package relay

import "github.com/prometheus/client_golang/prometheus"

// result is what became of a request.
type result int

const (
	forwarded result = iota
	unreachable
	timedOut
	cutOff
	givenUp
	refused
	results
)

type metrics struct {
	requests [results]prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, f *Relay) metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "marketplane_messaging_forwarded_requests_total",
		Help: "Requests and upgrades of Socket.IO sessions that another process owns, by result: forwarded, unreachable (the owner is gone), timeout, cut_off, given_up (by the client), refused (too many at a time).",
	}, []string{"result"})
	registry.MustRegister(requests, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_messaging_forwarded_sockets",
		Help: "WebSockets of Socket.IO sessions that another process owns, whose bytes this one forwards.",
	}, func() float64 { return float64(f.Sockets()) }))
	var m metrics
	for r, name := range [results]string{
		forwarded: "forwarded", unreachable: "unreachable", timedOut: "timeout", cutOff: "cut_off", givenUp: "given_up", refused: "refused",
	} {
		m.requests[r] = requests.WithLabelValues(name)
	}
	return m
}

func (m *metrics) count(r result) { m.requests[r].Inc() }
