//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// An autoscaler that is turned on at six pods finds six, at every moment, and
// begins its work; a change that the operator applies meanwhile leaves it the
// number. Another one, of someone else, is told.
func TestAutoscalerTakesOverSixPods(t *testing.T) {
	spec := small()
	spec.Tasks.Replicas = new(int32(6))
	spec.Tasks.Resources = &v1alpha1.Resources{Requests: v1alpha1.ResourceAmounts{CPU: quantity("10m"), Memory: quantity("32Mi")}}
	m := start(t, "hpa", spec)
	sizes := watchSizes(t, m)
	eventually(t, time.Minute, "tasks has 6 pods", m.reaches(sizes, contract.ComponentTasks, 6))

	// window is how long an autoscaler does not ask for fewer pods by default.
	const window = 5 * time.Minute
	turnedOn := time.Now()
	m.change(t, func(s *v1alpha1.MarketplaceSpec) {
		s.Tasks.Autoscaling = &v1alpha1.CPUAutoscalingSpec{MinReplicas: new(int32(2)), MaxReplicas: 6, TargetCPUUtilizationPercentage: new(int32(70))}
	})
	eventually(t, 3*time.Minute, "the autoscaler is active", m.autoscalerIs(contract.ComponentTasks, autoscalingv2.ScalingActive))
	m.waitReady(t)

	m.change(t, func(s *v1alpha1.MarketplaceSpec) {
		s.Tasks.Template = &v1alpha1.PodTemplate{
			Annotations: map[string]string{"example.com/changed": "yes"},
			Env:         []v1alpha1.EnvVar{{Name: "EXAMPLE", Value: "$(MARKETPLANE_INSTANCE)"}},
		}
	})
	m.waitReady(t)
	eventually(t, time.Minute, "tasks has 6 pods of the new template", m.reaches(sizes, contract.ComponentTasks, 6))
	pods, err := m.pods(t.Context(), contract.ComponentTasks)
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if pod.Annotations["example.com/changed"] != "yes" {
			t.Errorf("pod %s lacks the annotation", pod.Name)
		}
	}
	had, err := sizes.of(contract.ComponentTasks)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range had {
		// After its window the autoscaler may ask for fewer, by its own decision.
		if s.replicas != 6 && s.since.Sub(turnedOn) < window {
			t.Errorf("tasks was asked for %d pods %s after the autoscaler was turned on, want 6", s.replicas, s.since.Sub(turnedOn))
		}
	}

	rival := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: "rival"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: m.name + "-auth"},
			MinReplicas:    new(int32(2)), MaxReplicas: 3,
		},
	}
	if err := cluster.kube.Create(t.Context(), rival); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the rival is told, and left to decide", func(ctx context.Context) error {
		object, err := m.get(ctx)
		if err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionScalingConflict) {
			return fmt.Errorf("conditions:\n%s", conditionsOf(object))
		}
		return m.reaches(sizes, contract.ComponentAuth, 2)(ctx)
	})
	if err := cluster.kube.Delete(t.Context(), rival); err != nil {
		t.Fatal(err)
	}

	// Turned off, the spec's own number counts again.
	m.change(t, func(s *v1alpha1.MarketplaceSpec) {
		s.Tasks.Autoscaling, s.Tasks.Replicas = nil, new(int32(1))
	})
	eventually(t, time.Minute, "tasks has 1 pod", m.reaches(sizes, contract.ComponentTasks, 1))
	eventually(t, time.Minute, "auth has 1 pod", m.reaches(sizes, contract.ComponentAuth, 1))
	m.waitReady(t)
}

// autoscalerIs says what is missing until a service's autoscaler has the
// condition.
func (m marketplace) autoscalerIs(component string, want autoscalingv2.HorizontalPodAutoscalerConditionType) func(context.Context) error {
	return func(ctx context.Context) error {
		hpa := &autoscalingv2.HorizontalPodAutoscaler{}
		if err := cluster.kube.Get(ctx, kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-" + component}, hpa); err != nil {
			return err
		}
		for _, c := range hpa.Status.Conditions {
			if c.Type == want && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %+v", hpa.Status.Conditions)
	}
}

func quantity(amount string) *resource.Quantity {
	q := resource.MustParse(amount)
	return &q
}
