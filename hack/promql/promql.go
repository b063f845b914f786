// Package promql holds no program: its test parses the expressions of alerts
// and dashboards with Prometheus' own parser. It is a module of its own, so that
// Prometheus stays out of the product's.
package promql
