package desired_test

import (
	"testing"

	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	autoscalingv2ac "k8s.io/client-go/applyconfigurations/autoscaling/v2"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// A Deployment that an autoscaler decides about never speaks of its replicas,
// unless it is a new one.
func TestAutoscaledReplicas(t *testing.T) {
	tests := map[string]struct {
		autoscaled map[string]int32
		want       *int32
	}{
		"the spec decides":     {nil, new(int32(4))},
		"it is another's":      {map[string]int32{contract.ComponentTasks: 0}, new(int32(4))},
		"a Deployment runs":    {map[string]int32{contract.ComponentAuth: 0}, nil},
		"a new Deployment":     {map[string]int32{contract.ComponentAuth: 3}, new(int32(3))},
		"messaging is another": {map[string]int32{contract.ComponentMessaging: 3}, new(int32(4))},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := inputs()
			in.Autoscaled = tt.autoscaled
			for _, object := range desired.Build(marketplace(t, "auth: {replicas: 4}"), in).Workloads {
				if *object.GetName() != "shop-auth" || *object.GetKind() != "Deployment" {
					continue
				}
				d, ok := object.(*appsv1ac.DeploymentApplyConfiguration)
				if !ok {
					t.Fatalf("a %T is no Deployment", object)
				}
				got := d.Spec.Replicas
				if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
					t.Errorf("replicas = %v, want %v", got, tt.want)
				}
			}
		})
	}
}

// Autoscalers come after what they decide about: what runs is handed over
// first.
func TestAutoscalersComeLast(t *testing.T) {
	spec := "auth: {autoscaling: {maxReplicas: 9}}\ntasks: {autoscaling: {minReplicas: 1, maxReplicas: 2, targetCPUUtilizationPercentage: 50}}"
	workloads := desired.Build(marketplace(t, spec), inputs()).Workloads
	var names []string
	for i, object := range workloads {
		hpa, ok := object.(*autoscalingv2ac.HorizontalPodAutoscalerApplyConfiguration)
		if !ok {
			if len(names) > 0 {
				t.Errorf("%s %s comes after an autoscaler", *object.GetKind(), *workloads[i].GetName())
			}
			continue
		}
		names = append(names, *hpa.Name)
	}
	if len(names) != 2 || names[0] != "shop-auth" || names[1] != "shop-tasks" {
		t.Errorf("autoscalers = %v", names)
	}
}
