package controllers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// told are the series that the operator's metrics hold of Marketplaces, without
// their values.
func (w *world) told() []string {
	w.t.Helper()
	families, err := w.registry.Gather()
	w.must(err)
	var series []string
	for _, family := range families {
		if strings.HasPrefix(family.GetName(), "marketplane_operator_") {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				if label.GetName() != "marketplace_namespace" {
					labels = append(labels, label.GetName()+"="+label.GetValue())
				}
			}
			series = append(series, fmt.Sprintf("%s{%s}", strings.TrimPrefix(family.GetName(), "marketplane_"), strings.Join(labels, ",")))
		}
	}
	return series
}

// What is told of a Marketplace follows its status, and ends with it.
func TestMetricsOfMarketplaces(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "messaging: {autoscaling: {maxReplicas: 5}}")
	w.awaitReady(m)

	want := []string{
		"condition{marketplace=shop,status=True,type=AuthAvailable}",
		"condition{marketplace=shop,status=True,type=BusReady}",
		"condition{marketplace=shop,status=True,type=DatabaseReady}",
		"condition{marketplace=shop,status=True,type=KeysCurrent}",
		"condition{marketplace=shop,status=True,type=MessagingAvailable}",
		"condition{marketplace=shop,status=True,type=Ready}",
		"condition{marketplace=shop,status=True,type=SchemaCurrent}",
		"condition{marketplace=shop,status=True,type=TasksAvailable}",
		"marketplace_generations_behind{marketplace=shop}",
		"marketplace_info{marketplace=shop,paused=false,version=" + m.Status.Version + "}",
		"marketplace_messaging_connections{marketplace=shop,state=draining}",
		"marketplace_messaging_connections{marketplace=shop,state=forwarded}",
		"marketplace_messaging_connections{marketplace=shop,state=live}",
		"marketplace_messaging_connections{marketplace=shop,state=pending}",
		"marketplace_messaging_max_replicas{marketplace=shop}",
		"marketplace_messaging_replicas{marketplace=shop}",
		"marketplace_messaging_target_replicas{marketplace=shop}",
		"marketplace_messaging_unknown_pods{marketplace=shop}",
		"marketplace_next_key_rotation_timestamp_seconds{marketplace=shop}",
		"marketplace_signing_key_activated_timestamp_seconds{marketplace=shop}",
		"marketplace_signing_keys{marketplace=shop}",
	}
	w.eventually("the metrics tell the status", func() error {
		if diff := cmp.Diff(want, w.told()); diff != "" {
			return errors.New(diff)
		}
		return nil
	})

	w.must(w.client.Delete(w.ctx, m, client.GracePeriodSeconds(0)))
	w.eventually("nothing is told of a Marketplace that is gone", func() error {
		if series := w.told(); len(series) > 0 {
			return fmt.Errorf("%d series, such as %s", len(series), series[0])
		}
		return nil
	})
}
