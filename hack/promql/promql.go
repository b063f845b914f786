// Package promql holds no program: its tests parse the expressions of alerts
// and dashboards, and evaluate the alerts over series, with Prometheus' own
// engine. It is a module of its own, so that Prometheus stays out of the
// product's.
package promql
