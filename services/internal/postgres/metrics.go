package postgres

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Register tells a service's pool in the metrics. A pool whose connections are
// all in use for long makes requests wait for one.
func Register(registry prometheus.Registerer, service string, pool *pgxpool.Pool) {
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "marketplane_database_connections_in_use",
			Help:        "Connections to the database that a request or a reader holds.",
			ConstLabels: prometheus.Labels{"service": service},
		}, func() float64 { return float64(pool.Stat().AcquiredConns()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "marketplane_database_connections",
			Help:        "Connections to the database that are open, in use or not.",
			ConstLabels: prometheus.Labels{"service": service},
		}, func() float64 { return float64(pool.Stat().TotalConns()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "marketplane_database_connections_max",
			Help:        "Connections to the database that the process may open.",
			ConstLabels: prometheus.Labels{"service": service},
		}, func() float64 { return float64(pool.Stat().MaxConns()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "marketplane_database_connection_wait_seconds_total",
			Help:        "Time that was spent waiting for a connection because none was free.",
			ConstLabels: prometheus.Labels{"service": service},
		}, func() float64 { return pool.Stat().EmptyAcquireWaitTime().Seconds() }),
	)
}
