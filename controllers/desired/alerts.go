package desired

import (
	"fmt"
	"strings"

	"github.com/marketplane/marketplane/api/contract"
)

// runbooks is the page that says what to do about each alert, under a heading
// of its name.
const runbooks = "https://github.com/marketplane/marketplane/blob/main/docs/operations.md#"

// alert is a rule of a PrometheusRule.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// Severities: critical wakes someone, since users notice; warning is for the
// day.
const (
	critical = "critical"
	warning  = "warning"
)

// lately is how long ago what is absent may have been there to be missed.
const lately = "3d"

// alerts are the rules of one Marketplace. Series of the services carry its
// namespace and name as namespace and marketplace, those of the operator as
// marketplace_namespace and marketplace; see the metrics' reference.
func alerts(namespace, name string) []alert {
	var (
		ours = fmt.Sprintf(`namespace=%q,marketplace=%q`, namespace, name)
		told = fmt.Sprintf(`marketplace_namespace=%q,marketplace=%q`, namespace, name)
		all  []alert
	)
	add := func(alertName, severity, pending, expr, summary, description string) {
		all = append(all, alert{
			Alert: alertName, Expr: expr, For: pending,
			// The namespace of the operator's own series would be the operator's.
			Labels: map[string]string{"severity": severity, "namespace": namespace, "marketplace": name},
			Annotations: map[string]string{
				"summary":     fmt.Sprintf("Marketplace %s/%s: %s", namespace, name, summary),
				"description": description,
				"runbook_url": runbooks + anchor(alertName),
			},
		})
	}

	// What users notice. Both alerts about what is absent are about what was there
	// in the last days: where no Prometheus is let in, or the operator is not
	// scraped, they would tell of that from the first minute on, and of nothing
	// else.
	for _, component := range contract.Services() {
		add("MarketplaneServiceDown", critical, "5m",
			fmt.Sprintf(`absent(up{%[1]s,component=%[2]q} == 1) and on() max(max_over_time(up{%[1]s,component=%[2]q}[%[3]s])) == 1`, ours, component, lately),
			component+" is down",
			"No pod of "+component+" could be scraped for 5 minutes, as one could before: none runs, or Prometheus does not reach them any more.")
		all[len(all)-1].Labels["component"] = component
	}
	add("MarketplaneDatabaseUnreachable", critical, "2m",
		fmt.Sprintf(`min by (namespace, marketplace) (marketplane_session_ends_lag_seconds{%s}) > 60`, ours),
		"no service reaches the database",
		"No pod has read the event log for {{ $value | humanizeDuration }}: requests are answered with 503.")
	add("MarketplaneRequestsFailing", critical, "5m",
		fmt.Sprintf(`sum by (namespace, marketplace, component) (rate(marketplane_http_request_duration_seconds_count{%[1]s,status=~"5.."}[5m]))`+
			` / sum by (namespace, marketplace, component) (rate(marketplane_http_request_duration_seconds_count{%[1]s}[5m])) > 0.05`, ours),
		"{{ $labels.component }} fails requests",
		"{{ $value | humanizePercentage }} of the requests to {{ $labels.component }} were answered with 5xx over 5 minutes.")
	add("MarketplaneMessagesNotCommitted", critical, "5m",
		fmt.Sprintf(`sum by (namespace, marketplace) (rate(marketplane_messaging_commit_duration_seconds_count{%[1]s,result="unavailable"}[5m]))`+
			` / sum by (namespace, marketplace) (rate(marketplane_messaging_commit_duration_seconds_count{%[1]s}[5m])) > 0.05`, ours),
		"messages cannot be written",
		"{{ $value | humanizePercentage }} of the commits of messages failed over 5 minutes; their senders were told to try again.")
	add("MarketplaneConnectionsRefused", critical, "5m",
		fmt.Sprintf(`sum by (namespace, marketplace) (increase(marketplane_messaging_connections_refused_total{%s}[10m])) > 0`, ours),
		"messaging refuses connections",
		"Messaging pods hold as many connections as they may, and refused {{ $value | humanize }} in 10 minutes.")

	// What users will notice if nothing is done.
	add("MarketplaneNotReady", warning, "15m",
		fmt.Sprintf(`marketplane_condition{%s,type="Ready",status!="True"} == 1`, told),
		"it is not Ready",
		"Ready has not been True for 15 minutes; the condition's message says why.")
	add("MarketplaneStalled", warning, "5m",
		fmt.Sprintf(`marketplane_condition{%s,type="Stalled",status="True"} == 1`, told),
		"it needs someone",
		"Nothing changes until someone acts; the condition Stalled says what to do.")
	add("MarketplaneNotTold", warning, "30m",
		fmt.Sprintf(`absent(marketplane_marketplace_info{%[1]s}) and on() max(max_over_time(marketplane_marketplace_info{%[1]s}[%[2]s])) == 1`, told, lately),
		"the operator does not tell of it",
		"No operator's metrics speak of this Marketplace any more: the operator is down, or is not scraped. What runs goes on running.")
	add("MarketplaneSessionEndsLate", warning, "5m",
		fmt.Sprintf(`max by (namespace, marketplace, pod) (marketplane_session_ends_lag_seconds{%s}) > 30`, ours),
		"a pod does not hear of ended sessions",
		"Pod {{ $labels.pod }} has not read the event log for {{ $value | humanizeDuration }}: it still takes tokens of sessions that ended since.")
	add("MarketplaneEventsLate", warning, "5m",
		fmt.Sprintf(`min by (namespace, marketplace, consumer) (marketplane_event_consumer_lag_seconds{%s}) > 60`, ours),
		"events between services are late",
		"Consumer {{ $labels.consumer }} is {{ $value | humanizeDuration }} behind.")
	add("MarketplaneNotificationsLate", warning, "10m",
		fmt.Sprintf(`min by (namespace, marketplace) (marketplane_messaging_notifications_lag_seconds{%s}) > 300`, ours),
		"notifications of messages are late",
		"Users who are not connected have not been notified of messages for {{ $value | humanizeDuration }}: the webhook does not take them.")
	add("MarketplaneBusUnreachable", warning, "5m",
		fmt.Sprintf(`count by (namespace, marketplace) (marketplane_bus_connected{%s} == 0) > 0`, ours),
		"pods are not connected to the bus",
		"{{ $value }} pods are without the bus: writes go on, and delivery to their clients waits for the database to be polled.")
	add("MarketplaneDatabaseConnectionsExhausted", warning, "10m",
		fmt.Sprintf(`marketplane_database_connections_in_use{%[1]s} >= marketplane_database_connections_max{%[1]s}`, ours),
		"a pod uses all its connections to the database",
		"Pod {{ $labels.pod }} has used all {{ $value }} connections to the database for 10 minutes; requests wait for one.")
	add("MarketplaneMessagesSlow", warning, "10m",
		fmt.Sprintf(`histogram_quantile(0.99, sum by (namespace, marketplace, le) (rate(marketplane_messaging_commit_duration_seconds_bucket{%s,result="ok"}[5m]))) > 1`, ours),
		"messages are written slowly",
		"One commit of messages in a hundred takes {{ $value | humanizeDuration }} or longer.")
	add("MarketplaneMessagingAtMaximum", warning, "15m",
		fmt.Sprintf(`marketplane_marketplace_messaging_target_replicas{%[1]s} >= marketplane_marketplace_messaging_max_replicas{%[1]s}`, told),
		"messaging cannot grow further",
		"Messaging has been at spec.messaging.autoscaling.maxReplicas, {{ $value }} pods, for 15 minutes.")
	add("MarketplaneMessagingUntold", warning, "15m",
		fmt.Sprintf(`marketplane_marketplace_messaging_unknown_pods{%s} > 0`, told),
		"messaging pods do not tell their load",
		"{{ $value }} messaging pods have not told the operator their connections for 15 minutes: the tier cannot shrink.")
	add("MarketplaneLoginsRefused", warning, "10m",
		fmt.Sprintf(`(sum by (namespace, marketplace) (rate(marketplane_auth_logins_total{%[1]s,result!="ok"}[5m])) > 1)`+
			` unless (sum by (namespace, marketplace) (rate(marketplane_auth_logins_total{%[1]s,result="ok"}[5m])) * 4`+
			` > sum by (namespace, marketplace) (rate(marketplane_auth_logins_total{%[1]s,result!="ok"}[5m])))`, ours),
		"most log-ins are refused",
		"{{ $value | humanize }} log-ins a second are refused, and few succeed: someone guesses passwords, or an address is shared.")
	add("MarketplaneKeyRotationOverdue", warning, "15m",
		fmt.Sprintf(`time() - marketplane_marketplace_next_key_rotation_timestamp_seconds{%s} > 3600`, told),
		"a new signing key is overdue",
		"The next signing key should have been made {{ $value | humanizeDuration }} ago.")
	return all
}

// anchor is that of a heading in Markdown of one word.
func anchor(heading string) string { return strings.ToLower(heading) }
