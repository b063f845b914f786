package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// cache holds these Marketplaces, or fails.
type cache struct {
	client.Reader
	items []v1alpha1.Marketplace
	err   error
}

func (c *cache) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if all, ok := list.(*v1alpha1.MarketplaceList); ok {
		all.Items = c.items
	}
	return c.err
}

func at(seconds int64) metav1.Time { return metav1.NewTime(time.Unix(seconds, 0)) }

func shop() v1alpha1.Marketplace {
	rotation := at(3000)
	return v1alpha1.Marketplace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "market", Generation: 4},
		Spec: v1alpha1.MarketplaceSpec{
			Paused:    true,
			Messaging: v1alpha1.MessagingSpec{Autoscaling: &v1alpha1.AutoscalingSpec{MaxReplicas: 9}},
		},
		Status: v1alpha1.MarketplaceStatus{
			ObservedGeneration: 3,
			Version:            "v0.2.0",
			Conditions: []metav1.Condition{
				{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse},
				{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue},
			},
			Messaging: &v1alpha1.MessagingStatus{
				Replicas: 2, TargetReplicas: 3,
				Connections: &v1alpha1.ConnectionsStatus{Live: 10, Draining: 2, Pending: 1, Forwarded: 4, UnknownPods: 1},
			},
			Keys: &v1alpha1.KeysStatus{
				Active: "b", Published: []string{"a", "b"}, NextRotation: &rotation,
				Schedule: []v1alpha1.ScheduledKey{{ID: "a", ActivatesAt: at(1000)}, {ID: "b", ActivatesAt: at(2000)}},
			},
		},
	}
}

// series are the collected samples, without help and type.
func series(t *testing.T, collector prometheus.Collector) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			found = append(found, fmt.Sprintf("%s{%s} %v", family.GetName(), strings.Join(labels, ","), metric.GetGauge().GetValue()))
		}
	}
	return found
}

func TestMarketplaces(t *testing.T) {
	elected := make(chan struct{})
	held := &cache{items: []v1alpha1.Marketplace{
		shop(),
		{ObjectMeta: metav1.ObjectMeta{Name: "new", Namespace: "market", Generation: 1}},
	}}
	collector := metrics.NewMarketplaces(held, elected, logr.Discard())

	if got := series(t, collector); len(got) > 0 {
		t.Errorf("an operator that was not elected tells %v", got)
	}
	close(elected)

	const of = `{marketplace="shop",marketplace_namespace="market"`
	want := []string{
		`marketplane_condition` + of + `,status="False",type="Ready"} 1`,
		`marketplane_condition` + of + `,status="True",type="Stalled"} 1`,
		`marketplane_marketplace_generations_behind{marketplace="new",marketplace_namespace="market"} 1`,
		`marketplane_marketplace_generations_behind` + of + `} 1`,
		`marketplane_marketplace_info{marketplace="new",marketplace_namespace="market",paused="false",version=""} 1`,
		`marketplane_marketplace_info` + of + `,paused="true",version="v0.2.0"} 1`,
		`marketplane_marketplace_messaging_connections` + of + `,state="draining"} 2`,
		`marketplane_marketplace_messaging_connections` + of + `,state="forwarded"} 4`,
		`marketplane_marketplace_messaging_connections` + of + `,state="live"} 10`,
		`marketplane_marketplace_messaging_connections` + of + `,state="pending"} 1`,
		`marketplane_marketplace_messaging_max_replicas` + of + `} 9`,
		`marketplane_marketplace_messaging_replicas` + of + `} 2`,
		`marketplane_marketplace_messaging_target_replicas` + of + `} 3`,
		`marketplane_marketplace_messaging_unknown_pods` + of + `} 1`,
		`marketplane_marketplace_next_key_rotation_timestamp_seconds` + of + `} 3000`,
		`marketplane_marketplace_signing_key_activated_timestamp_seconds` + of + `} 2000`,
		`marketplane_marketplace_signing_keys` + of + `} 2`,
	}
	if diff := cmp.Diff(want, series(t, collector)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}

	// What is deleted is not told any more.
	held.items = nil
	if got := series(t, collector); len(got) > 0 {
		t.Errorf("after all were deleted: %v", got)
	}
	// A cache that is not there yet must not fail the other metrics' scrape.
	held.items, held.err = nil, errors.New("not synced")
	if got := series(t, collector); len(got) > 0 {
		t.Errorf("without a cache: %v", got)
	}
}

func TestChanges(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	changes := metrics.NewChanges(registry)
	changes.Count("Service", metrics.Repaired)
	changes.Count("Service", metrics.Repaired)
	changes.Count("Job", metrics.Created)
	want := `# HELP marketplane_operator_changes_total Objects that the operator changed, by kind and by what was done: created, updated, repaired (someone else had changed or deleted what was applied before), deleted (it is not wanted any more).
# TYPE marketplane_operator_changes_total counter
marketplane_operator_changes_total{change="created",kind="Job"} 1
marketplane_operator_changes_total{change="repaired",kind="Service"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	var none *metrics.Changes
	none.Count("Service", metrics.Created) // counts nothing, and does not fail
}
