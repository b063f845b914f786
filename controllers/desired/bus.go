package desired

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// busGrace is what a bus server may take to send its clients elsewhere.
const busGrace = 30 * time.Second

// bus is one NATS server, or a cluster of them. It keeps nothing.
func (r renderer) bus() []Object {
	const component = contract.ComponentBus
	spec := r.m.Spec.Bus.EmbeddedOrDefault()
	res := resources(amounts{cpu: "50m", memory: "64Mi", memoryLimit: "256Mi"}, spec.Resources)
	container := probed(r.container(component, res)).
		WithPorts(port("client", contract.BusPort), port("route", contract.BusRoutePort)).
		WithEnv(
			env(contract.EnvBusTokenFile, contract.MountBus+"/"+contract.FileBusToken),
			env(contract.EnvBusRoutes, r.names.busRoutes(spec.Replicas)),
		).
		WithVolumeMounts(mountReadOnly("bus", contract.MountBus))
	podSpec := pod(serviceUser, busGrace, container).
		WithVolumes(secretVolume("bus", r.names.Bus())).
		WithTopologySpreadConstraints(r.spread(component))
	objects := append(r.busPolicy(),
		corev1ac.Service(r.names.Bus(), r.m.Namespace).
			WithLabels(Labels(r.m, component)).
			WithOwnerReferences(Owner(r.m)).
			WithSpec(corev1ac.ServiceSpec().
				WithSelector(SelectorLabels(r.m, component)).
				WithPorts(servicePort("client", contract.BusPort, "client"))),
		appsv1ac.StatefulSet(r.names.Bus(), r.m.Namespace).
			WithLabels(r.workloadLabels(component)).
			WithOwnerReferences(Owner(r.m)).
			WithSpec(appsv1ac.StatefulSetSpec().
				WithReplicas(spec.Replicas).
				// A StatefulSet can never change this name, so it is the one
				// that a cluster needs, even for a single server.
				WithServiceName(r.names.BusRoutes()).
				WithPodManagementPolicy(appsv1.ParallelPodManagement).
				WithSelector(r.selector(component)).
				WithTemplate(r.template(component, r.fingerprints(r.names.Bus()), podSpec))))
	if spec.Replicas > 1 {
		objects = append(objects, corev1ac.Service(r.names.BusRoutes(), r.m.Namespace).
			WithLabels(Labels(r.m, component)).
			WithOwnerReferences(Owner(r.m)).
			WithSpec(corev1ac.ServiceSpec().
				WithClusterIP(corev1.ClusterIPNone).
				// The servers must find each other before they are ready.
				WithPublishNotReadyAddresses(true).
				WithSelector(SelectorLabels(r.m, component)).
				WithPorts(servicePort("route", contract.BusRoutePort, "route"))),
			r.disruptionBudget(component))
	}
	return objects
}
