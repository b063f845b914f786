package desired_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	policyv1 "k8s.io/api/policy/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/marketplane/marketplane/controllers/desired"
)

// Whoever has several pods loses one at a time to node drains; what has one
// never keeps a node from being drained, and pods that do not work never do.
func TestDisruptionBudgets(t *testing.T) {
	tests := map[string]struct {
		spec string
		want []string
	}{
		"one of each": {
			"auth: {replicas: 1}\ntasks: {replicas: 1}\nmessaging: {replicas: 1}",
			[]string{"shop-auth", "shop-messaging", "shop-tasks"},
		},
		"a cluster of bus servers": {
			"bus: {embedded: {replicas: 3}}",
			[]string{"shop-auth", "shop-bus", "shop-messaging", "shop-tasks"},
		},
		"autoscaled": {
			"auth: {autoscaling: {maxReplicas: 9}}",
			[]string{"shop-auth", "shop-messaging", "shop-tasks"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found := map[string]string{}
			for _, object := range desired.Build(marketplace(t, tt.spec), inputs()).All() {
				budget, ok := object.(*policyv1ac.PodDisruptionBudgetApplyConfiguration)
				if !ok {
					continue
				}
				found[*budget.Name] = fmt.Sprint("unavailable ", budget.Spec.MaxUnavailable, ", available ", budget.Spec.MinAvailable,
					", unhealthy ", *budget.Spec.UnhealthyPodEvictionPolicy)
			}
			want := map[string]string{}
			for _, name := range tt.want {
				want[name] = fmt.Sprint("unavailable 1, available <nil>, unhealthy ", policyv1.AlwaysAllow)
			}
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("budgets (-want +got):\n%s", diff)
			}
		})
	}
}
