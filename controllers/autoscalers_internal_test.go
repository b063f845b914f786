package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/controllers/desired"
)

func TestConcernedBy(t *testing.T) {
	owner := []metav1.OwnerReference{{Kind: "Marketplace", Name: "shop", Controller: new(true)}}
	tests := map[string]struct {
		owners                   []metav1.OwnerReference
		apiVersion, kind, target string
		want                     []string
	}{
		"a Marketplace":            {nil, "marketplane.dev/v1alpha1", "Marketplace", "shop", []string{"shop"}},
		"another group's":          {nil, "example.com/v1", "Marketplace", "shop", nil},
		"a service":                {nil, "apps/v1", "Deployment", "shop-auth", []string{"shop"}},
		"a service of a long name": {nil, "apps/v1", "Deployment", "shop-auth-tasks", []string{"shop-auth"}},
		"the database":             {nil, "apps/v1", "StatefulSet", "shop-database", []string{"shop"}},
		"someone's Deployment":     {nil, "apps/v1", "Deployment", "shop-web", nil},
		"a name without a dash":    {nil, "apps/v1", "Deployment", "auth", nil},
		"no Marketplace's name":    {nil, "apps/v1", "Deployment", "-auth", nil},
		"another kind":             {nil, "apps/v1", "ReplicaSet", "shop-auth", nil},
		"ours":                     {owner, "apps/v1", "Deployment", "shop-auth", []string{"shop"}},
		"ours, turned elsewhere":   {owner, "apps/v1", "Deployment", "other-auth", []string{"shop", "other"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tt.owners}}
			hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: tt.apiVersion, Kind: tt.kind, Name: tt.target}
			if diff := cmp.Diff(tt.want, concernedBy(hpa)); diff != "" {
				t.Errorf("Marketplaces (-want +got):\n%s", diff)
			}
		})
	}
}

// Of others' autoscalers the memory holds what they target, and no more.
func TestKeepOfAutoscaler(t *testing.T) {
	hpa := func(labels map[string]string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{
				Name: "a", Namespace: "n", UID: "u", ResourceVersion: "7", Labels: labels,
				Annotations: map[string]string{"much": "text"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
			},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Name: "shop-auth"}, MaxReplicas: 3,
			},
			Status: autoscalingv2.HorizontalPodAutoscalerStatus{
				DesiredReplicas: 2, CurrentMetrics: make([]autoscalingv2.MetricStatus, 5),
			},
		}
	}
	foreign, own := hpa(map[string]string{"team": "a"}), hpa(map[string]string{desired.LabelManagedBy: desired.ManagedBy})
	wantForeign, wantOwn := hpa(nil), hpa(own.Labels)
	for _, want := range []*autoscalingv2.HorizontalPodAutoscaler{wantForeign, wantOwn} {
		want.Annotations, want.ManagedFields, want.Status.CurrentMetrics = nil, nil, nil
	}
	wantForeign.Spec.MaxReplicas, wantForeign.Status.DesiredReplicas = 0, 0
	for _, tt := range []struct {
		from, want *autoscalingv2.HorizontalPodAutoscaler
	}{{foreign, wantForeign}, {own, wantOwn}} {
		got, err := keepOfAutoscaler(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(any(tt.want), got); diff != "" {
			t.Errorf("kept (-want +got):\n%s", diff)
		}
	}
}
