package desired

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	autoscalingv2ac "k8s.io/client-go/applyconfigurations/autoscaling/v2"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// autoscalers are the HorizontalPodAutoscalers that are asked for.
func (r renderer) autoscalers() []Object {
	var objects []Object
	for _, component := range contract.Services() {
		if spec := AutoscalingOf(r.m, component); spec != nil {
			objects = append(objects, r.autoscaler(component, *spec))
		}
	}
	return objects
}

// AutoscalingOf returns what is asked of a service's HorizontalPodAutoscaler,
// nil where none is asked for. Messaging never has one: the operator itself
// follows its connections.
func AutoscalingOf(m *v1alpha1.Marketplace, component string) *v1alpha1.CPUAutoscalingSpec {
	switch component {
	case contract.ComponentAuth:
		return m.Spec.Auth.Autoscaling
	case contract.ComponentTasks:
		return m.Spec.Tasks.Autoscaling
	default:
		return nil
	}
}

// autoscaler follows the CPU of the service's own container: what others inject
// into its pods neither counts nor keeps it from counting.
func (r renderer) autoscaler(component string, spec v1alpha1.CPUAutoscalingSpec) Object {
	name := r.names.Component(component)
	return autoscalingv2ac.HorizontalPodAutoscaler(name, r.m.Namespace).
		WithLabels(Labels(r.m, component)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(autoscalingv2ac.HorizontalPodAutoscalerSpec().
			WithScaleTargetRef(autoscalingv2ac.CrossVersionObjectReference().
				WithAPIVersion("apps/v1").WithKind("Deployment").WithName(name)).
			WithMinReplicas(spec.MinReplicasOrDefault()).
			WithMaxReplicas(spec.MaxReplicas).
			WithMetrics(autoscalingv2ac.MetricSpec().
				WithType(autoscalingv2.ContainerResourceMetricSourceType).
				WithContainerResource(autoscalingv2ac.ContainerResourceMetricSource().
					WithName(corev1.ResourceCPU).
					WithContainer(component).
					WithTarget(autoscalingv2ac.MetricTarget().
						WithType(autoscalingv2.UtilizationMetricType).
						WithAverageUtilization(spec.TargetCPUOrDefault())))))
}

// replicas is how many pods of a service its Deployment asks for: what the spec
// says, or, where an autoscaler decides, what a new Deployment begins with. It
// is 0 where the Deployment must not speak of it.
func (r renderer) replicas(component string, spec int32) int32 {
	if start, left := r.in.Autoscaled[component]; left {
		return start
	}
	return spec
}
