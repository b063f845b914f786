package desired

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The parts of Grafana's dashboard model that are set here. Every panel shows
// PromQL queries; schema 39 is Grafana 10's, which later ones migrate.
type grafanaDashboard struct {
	UID           string            `json:"uid"`
	Title         string            `json:"title"`
	Tags          []string          `json:"tags"`
	SchemaVersion int               `json:"schemaVersion"`
	Refresh       string            `json:"refresh"`
	Time          map[string]string `json:"time"`
	Templating    grafanaVariables  `json:"templating"`
	Panels        []grafanaPanel    `json:"panels"`
}

type grafanaVariables struct {
	List []grafanaVariable `json:"list"`
}

type grafanaVariable struct {
	Name  string `json:"name"`
	Label string `json:"label"`
	Type  string `json:"type"`
	Query string `json:"query"`
}

type grafanaPanel struct {
	ID          int               `json:"id"`
	Title       string            `json:"title"`
	Description string            `json:"description,omitempty"`
	Type        string            `json:"type"`
	GridPos     grafanaPosition   `json:"gridPos"`
	Datasource  grafanaDatasource `json:"datasource"`
	FieldConfig grafanaFields     `json:"fieldConfig"`
	Targets     []grafanaTarget   `json:"targets"`
}

type grafanaPosition struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type grafanaDatasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type grafanaFields struct {
	Defaults grafanaDefaults `json:"defaults"`
}

type grafanaDefaults struct {
	Unit string   `json:"unit,omitempty"`
	Min  *float64 `json:"min,omitempty"`
}

type grafanaTarget struct {
	RefID        string `json:"refId"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
}

// chart is a panel before it is placed.
type chart struct {
	title, help, unit string
	// stat shows the last values alone.
	stat    bool
	queries []query
}

// query is PromQL with {ours} and {told} for the Marketplace's labels, as in
// alerts, and the legend of its series.
type query struct{ expr, legend string }

// charts are the panels in their order: what users notice first, causes after.
var charts = []chart{
	{title: "Conditions that do not hold", help: "Empty is good. Reconciling, Stalled and ScalingConflict are there only while something is the matter.", stat: true, queries: []query{
		{`marketplane_condition{{told},type!~"Reconciling|Stalled|ScalingConflict",status!="True"}`, "{{type}} is {{status}}"},
		{`marketplane_condition{{told},type=~"Reconciling|Stalled|ScalingConflict",status="True"}`, "{{type}}"},
	}},
	{title: "Pods that are scraped", help: "By component. A component that is missing has none.", stat: true, queries: []query{
		{`sum by (component) (up{{ours}})`, "{{component}}"},
	}},
	{title: "Requests", unit: "reqps", queries: []query{
		{`sum by (component, status) (rate(marketplane_http_request_duration_seconds_count{{ours}}[$__rate_interval]))`, "{{component}} {{status}}"},
	}},
	{title: "Request time, 99th percentile", unit: "s", queries: []query{
		{`histogram_quantile(0.99, sum by (component, le) (rate(marketplane_http_request_duration_seconds_bucket{{ours}}[$__rate_interval])))`, "{{component}}"},
	}},
	{title: "Connections by pod", help: "live are authenticated, pending are not yet, draining have been told to move.", queries: []query{
		{`sum by (pod, state) (marketplane_messaging_connections{{ours}})`, "{{pod}} {{state}}"},
	}},
	{title: "Messaging pods", queries: []query{
		{`marketplane_marketplace_messaging_target_replicas{{told}}`, "wanted"},
		{`marketplane_marketplace_messaging_replicas{{told}}`, "there"},
		{`marketplane_marketplace_messaging_max_replicas{{told}}`, "at most"},
		{`marketplane_marketplace_messaging_unknown_pods{{told}}`, "do not tell their load"},
	}},
	{title: "Connects and closes", help: "By the close code that the server chose; client: the client closed; none: the connection broke.", unit: "ops", queries: []query{
		{`sum(rate(marketplane_messaging_ws_connects_total{{ours}}[$__rate_interval]))`, "connects"},
		{`sum by (code) (rate(marketplane_messaging_ws_closes_total{{ours}}[$__rate_interval]))`, "closes {{code}}"},
		{`sum(rate(marketplane_messaging_connections_refused_total{{ours}}[$__rate_interval]))`, "refused"},
	}},
	{title: "Socket.IO sessions", help: "By their transport. One that is forwarded has its WebSocket on another pod than its session.", queries: []query{
		{`sum by (transport) (marketplane_messaging_socketio_sessions{{ours}})`, "{{transport}}"},
	}},
	{title: "Socket.IO connects and closes", unit: "ops", queries: []query{
		{`sum by (result) (rate(marketplane_messaging_socketio_connects_total{{ours}}[$__rate_interval]))`, "{{result}}"},
		{`sum by (reason) (rate(marketplane_messaging_socketio_closes_total{{ours}}[$__rate_interval]))`, "closes {{reason}}"},
	}},
	{title: "Commands and events", unit: "ops", queries: []query{
		{`sum by (op, result) (rate(marketplane_messaging_commands_total{{ours}}[$__rate_interval]))`, "{{op}} {{result}}"},
		{`sum(rate(marketplane_messaging_events_delivered_total{{ours}}[$__rate_interval]))`, "events delivered"},
	}},
	{title: "Commits of messages", unit: "s", queries: []query{
		{`histogram_quantile(0.5, sum by (le) (rate(marketplane_messaging_commit_duration_seconds_bucket{{ours}}[$__rate_interval])))`, "half"},
		{`histogram_quantile(0.99, sum by (le) (rate(marketplane_messaging_commit_duration_seconds_bucket{{ours}}[$__rate_interval])))`, "99 of 100"},
	}},
	{title: "Log-ins and registrations", unit: "ops", queries: []query{
		{`sum by (result) (rate(marketplane_auth_logins_total{{ours}}[$__rate_interval]))`, "log-in {{result}}"},
		{`sum by (result) (rate(marketplane_auth_registrations_total{{ours}}[$__rate_interval]))`, "registration {{result}}"},
		{`sum(marketplane_auth_password_hash_queue_length{{ours}})`, "wait for a password hash"},
	}},
	{title: "Tasks", unit: "ops", queries: []query{
		{`sum by (to, result) (rate(marketplane_tasks_transitions_total{{ours}}[$__rate_interval]))`, "{{to}} {{result}}"},
	}},
	{title: "How far behind", help: "Ended sessions: the slowest pod, which still takes their tokens. Consumers: the fastest, which does the work.", unit: "s", queries: []query{
		{`max(marketplane_session_ends_lag_seconds{{ours}})`, "ended sessions"},
		{`min by (consumer) (marketplane_event_consumer_lag_seconds{{ours}})`, "{{consumer}}"},
	}},
	{title: "Connections to the database", queries: []query{
		{`sum by (service) (marketplane_database_connections_in_use{{ours}})`, "{{service}} in use"},
		{`sum by (service) (marketplane_database_connections_max{{ours}})`, "{{service}} at most"},
	}},
	{title: "Connected to the bus", help: "Pods by whether they are.", queries: []query{
		{`count(marketplane_bus_connected{{ours}} == 1)`, "connected"},
		{`count(marketplane_bus_connected{{ours}} == 0)`, "not connected"},
	}},
	{title: "Memory by pod", unit: "bytes", queries: []query{
		{`process_resident_memory_bytes{{ours}}`, "{{pod}}"},
	}},
	{title: "CPU by pod", unit: "short", queries: []query{
		{`rate(process_cpu_seconds_total{{ours}}[$__rate_interval])`, "{{pod}}"},
	}},
	{title: "Next signing key", help: "Time until it is made.", unit: "s", stat: true, queries: []query{
		{`marketplane_marketplace_next_key_rotation_timestamp_seconds{{told}} - time()`, "next key"},
	}},
	{title: "Release", stat: true, queries: []query{
		{`marketplane_marketplace_info{{told}}`, "{{version}}"},
	}},
}

// Panels stand two in a row of Grafana's 24 columns.
const (
	panelWidth  = 12
	panelHeight = 8
)

// dashboardOf writes the dashboard of a Marketplace.
func dashboardOf(namespace, name string) string {
	labels := strings.NewReplacer(
		"{ours}", fmt.Sprintf(`namespace=%q,marketplace=%q`, namespace, name),
		"{told}", fmt.Sprintf(`marketplace_namespace=%q,marketplace=%q`, namespace, name))
	board := grafanaDashboard{
		// Grafana takes at most 40 characters.
		UID:           "marketplane-" + checksum(namespace, name),
		Title:         fmt.Sprintf("Marketplane: %s/%s", namespace, name),
		Tags:          []string{"marketplane"},
		SchemaVersion: 39,
		Refresh:       "30s",
		Time:          map[string]string{"from": "now-3h", "to": "now"},
		Templating: grafanaVariables{List: []grafanaVariable{
			{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"},
		}},
	}
	for i, c := range charts {
		panel := grafanaPanel{
			ID: i + 1, Title: c.title, Description: c.help, Type: "timeseries",
			GridPos:     grafanaPosition{H: panelHeight, W: panelWidth, X: i % 2 * panelWidth, Y: i / 2 * panelHeight},
			Datasource:  grafanaDatasource{Type: "prometheus", UID: "${datasource}"},
			FieldConfig: grafanaFields{Defaults: grafanaDefaults{Unit: c.unit}},
		}
		if c.stat {
			panel.Type = "stat"
		} else {
			zero := 0.0
			panel.FieldConfig.Defaults.Min = &zero
		}
		for j, q := range c.queries {
			panel.Targets = append(panel.Targets, grafanaTarget{
				RefID: string(rune('A' + j)), Expr: labels.Replace(q.expr), LegendFormat: q.legend,
			})
		}
		board.Panels = append(board.Panels, panel)
	}
	document, _ := json.Marshal(board) // of texts and numbers, which never fails
	return string(document)
}
