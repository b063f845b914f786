// Package metrics counts what the auth service does.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/auth"
)

// Metrics implements auth.Meter.
type Metrics struct {
	registrations *prometheus.CounterVec
	logins        *prometheus.CounterVec
	refreshes     *prometheus.CounterVec
	sessionsEnded *prometheus.CounterVec
	hashes        prometheus.Histogram

	registry prometheus.Registerer
}

var _ auth.Meter = (*Metrics)(nil)

// New registers the service's metrics.
func New(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: registry,
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_auth_registrations_total",
			Help: "Registrations, by result: ok, or the code of the refusal.",
		}, []string{"result"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_auth_logins_total",
			Help: "Log-ins with a password, by result: ok, or the code of the refusal.",
		}, []string{"result"}),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_auth_refreshes_total",
			Help: "Refreshes, by result: rotated, repeated (the newest token was given out again), or the code of the refusal.",
		}, []string{"result"}),
		sessionsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_auth_sessions_ended_total",
			Help: "Sessions that this process ended, by reason.",
		}, []string{"reason"}),
		hashes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "marketplane_auth_password_hash_duration_seconds",
			Help:    "Time to compute one password hash, without the wait for it.",
			Buckets: []float64{.005, .01, .02, .04, .08, .16, .32, .64, 1.28},
		}),
	}
	registry.MustRegister(m.registrations, m.logins, m.refreshes, m.sessionsEnded, m.hashes)
	return m
}

// HashQueue shows how many wait for a password hash.
func (m *Metrics) HashQueue(waiting func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_auth_password_hash_queue_length",
		Help: "Requests that wait for a password hash.",
	}, func() float64 { return float64(waiting()) }))
}

// Hashed observes one password hash.
func (m *Metrics) Hashed(took time.Duration) { m.hashes.Observe(took.Seconds()) }

// Registered implements auth.Meter.
func (m *Metrics) Registered(result string) { m.registrations.WithLabelValues(result).Inc() }

// LoggedIn implements auth.Meter.
func (m *Metrics) LoggedIn(result string) { m.logins.WithLabelValues(result).Inc() }

// Refreshed implements auth.Meter.
func (m *Metrics) Refreshed(result string) { m.refreshes.WithLabelValues(result).Inc() }

// SessionsEnded implements auth.Meter.
func (m *Metrics) SessionsEnded(reason string, n int) {
	m.sessionsEnded.WithLabelValues(reason).Add(float64(n))
}
