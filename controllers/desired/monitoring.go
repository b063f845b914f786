package desired

import (
	"fmt"

	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// componentMonitoring is the component of the monitoring objects' labels.
const componentMonitoring = "monitoring"

// labelDashboard is what Grafana's sidecar looks for on ConfigMaps.
const labelDashboard = "grafana_dashboard"

// monitoring are the PodMonitor, the PrometheusRule and the dashboard. Without
// the Prometheus Operator's APIs none of them is of use, and none is rendered:
// of many Marketplaces that would be most of the work.
func (r renderer) monitoring() []Object {
	if r.m.Spec.Monitoring.Disabled || !r.in.Monitored {
		return nil
	}
	return []Object{r.podMonitor(), r.prometheusRule(), r.dashboard()}
}

// podMonitorSpec is what is set of a monitoring.coreos.com/v1 PodMonitor.
type podMonitorSpec struct {
	Selector            podSelector          `json:"selector"`
	PodMetricsEndpoints []podMetricsEndpoint `json:"podMetricsEndpoints"`
}

type podSelector struct {
	MatchLabels      map[string]string `json:"matchLabels"`
	MatchExpressions []matchExpression `json:"matchExpressions"`
}

type matchExpression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values"`
}

type podMetricsEndpoint struct {
	Port        string       `json:"port"`
	Path        string       `json:"path"`
	Interval    string       `json:"interval,omitempty"`
	Relabelings []relabeling `json:"relabelings"`
}

type relabeling struct {
	SourceLabels []string `json:"sourceLabels"`
	TargetLabel  string   `json:"targetLabel"`
}

// podMonitor scrapes the internal port of the services and of the bus. Every
// series gets the labels marketplace and component, by which rules and
// dashboards find it.
func (r renderer) podMonitor() Object {
	endpoint := podMetricsEndpoint{
		Port: contract.InternalPortName,
		Path: contract.PathMetrics,
		Relabelings: []relabeling{
			{SourceLabels: []string{"__meta_kubernetes_pod_label_marketplane_dev_marketplace"}, TargetLabel: "marketplace"},
			{SourceLabels: []string{"__meta_kubernetes_pod_label_marketplane_dev_component"}, TargetLabel: "component"},
		},
	}
	if seconds := r.m.Spec.Monitoring.IntervalSeconds; seconds != nil {
		endpoint.Interval = fmt.Sprintf("%ds", *seconds)
	}
	return r.monitor(r.optional(KindPodMonitor, r.m.Name, componentMonitoring, podMonitorSpec{
		Selector: podSelector{
			MatchLabels: map[string]string{contract.LabelMarketplace: r.m.Name},
			MatchExpressions: []matchExpression{{
				Key: contract.LabelComponent, Operator: "In",
				Values: append(contract.Services(), contract.ComponentBus),
			}},
		},
		PodMetricsEndpoints: []podMetricsEndpoint{endpoint},
	}))
}

// prometheusRuleSpec is what is set of a monitoring.coreos.com/v1
// PrometheusRule.
type prometheusRuleSpec struct {
	Groups []ruleGroup `json:"groups"`
}

type ruleGroup struct {
	Name  string  `json:"name"`
	Rules []alert `json:"rules"`
}

func (r renderer) prometheusRule() Object {
	return r.monitor(r.optional(KindPrometheusRule, r.m.Name, componentMonitoring, prometheusRuleSpec{
		Groups: []ruleGroup{{Name: "marketplane", Rules: alerts(r.m.Namespace, r.m.Name)}},
	}))
}

// monitor adds the labels by which a Prometheus selects an object. Those of the
// operator win.
func (r renderer) monitor(o *optional) Object {
	labels := map[string]string{}
	for key, value := range r.m.Spec.Monitoring.Labels {
		labels[key] = value
	}
	for key, value := range o.Labels {
		labels[key] = value
	}
	o.Labels = labels
	return o
}

// dashboard is a Grafana dashboard of this Marketplace.
func (r renderer) dashboard() Object {
	// The sidecar keeps the dashboards of all namespaces in one folder, by file
	// name.
	file := fmt.Sprintf("marketplane_%s_%s.json", r.m.Namespace, r.m.Name)
	return corev1ac.ConfigMap(r.names.Dashboard(), r.m.Namespace).
		WithLabels(Labels(r.m, componentMonitoring)).
		WithLabels(map[string]string{labelDashboard: "1"}).
		WithOwnerReferences(Owner(r.m)).
		WithData(map[string]string{file: dashboardOf(r.m.Namespace, r.m.Name)})
}
