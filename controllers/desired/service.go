package desired

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// requestDrain is how auth and tasks stop: their requests are short, so they
// only wait until endpoints have propagated.
var requestDrain = contract.Drain{Floor: 5 * time.Second}

// workload is what differs between the services' Deployments.
type workload struct {
	component string
	// replicas is 0 where the Deployment must not speak of it.
	replicas int32
	// surge is maxSurge: how many pods above replicas an update may use.
	surge     intstr.IntOrString
	resources *v1alpha1.Resources
	defaults  amounts
	drain     contract.Drain
	env       []*corev1ac.EnvVarApplyConfiguration
	volumes   []*corev1ac.VolumeApplyConfiguration
	mounts    []*corev1ac.VolumeMountApplyConfiguration
	// secrets are those that the process reads only at its start.
	secrets []string
	// podLabels stand on the pods beside the component's own.
	podLabels map[string]string
	// shape is what the user asks of the pods.
	shape *v1alpha1.PodTemplate
}

// deployment renders a service.
func (r renderer) deployment(w workload) Object {
	res := resources(w.defaults, w.resources)
	bus := r.busClient()
	container := probed(r.container(w.component, res)).
		WithPorts(port(contract.PublicPortName, contract.PublicPort)).
		WithEnv(
			env(contract.EnvListen, fmt.Sprintf(":%d", contract.PublicPort)),
			env(contract.EnvDatabaseURLFile, contract.MountDatabase+"/"+contract.FileDatabaseURL),
		).
		WithEnv(bus.env...).
		WithEnv(
			env(contract.EnvJWKSFile, contract.MountJWKS+"/"+contract.FileJWKS),
			env(contract.EnvIssuer, r.issuer()),
			env(contract.EnvDrainFloor, w.drain.Floor.String()),
			env(contract.EnvDrainWindow, w.drain.Window.String()),
		).
		WithEnv(w.env...).
		WithVolumeMounts(mountReadOnly("database", contract.MountDatabase)).
		WithVolumeMounts(bus.mounts...).
		WithVolumeMounts(mountReadOnly("jwks", contract.MountJWKS)).
		WithVolumeMounts(w.mounts...)
	podSpec := pod(serviceUser, w.drain.GracePeriod(), container).
		WithTopologySpreadConstraints(r.spread(w.component).WithMatchLabelKeys("pod-template-hash")).
		WithVolumes(secretVolume("database", r.names.DatabaseRole(w.component))).
		WithVolumes(bus.volume...).
		WithVolumes(configMapVolume("jwks", r.names.JWKS())).
		WithVolumes(w.volumes...)
	secrets := slices.Concat([]string{r.names.DatabaseRole(w.component)}, bus.secrets, w.secrets)
	template := r.template(w.component, r.fingerprints(secrets...), podSpec).
		WithLabels(w.podLabels).
		WithAnnotations(r.externalPortsAnnotation())
	r.shape(w.component, w.shape, template)
	deployment := appsv1ac.Deployment(r.names.Component(w.component), r.m.Namespace).
		WithLabels(r.workloadLabels(w.component)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(appsv1ac.DeploymentSpec().
			WithRevisionHistoryLimit(3).
			WithStrategy(appsv1ac.DeploymentStrategy().
				WithType("RollingUpdate").
				WithRollingUpdate(appsv1ac.RollingUpdateDeployment().
					WithMaxSurge(w.surge).
					WithMaxUnavailable(intstr.FromInt32(0)))).
			WithSelector(r.selector(w.component)).
			WithTemplate(template))
	if w.replicas > 0 {
		deployment.Spec.WithReplicas(w.replicas)
	}
	return deployment
}

// issuer is the "iss" of access tokens.
func (r renderer) issuer() string {
	if r.m.Spec.Auth.Issuer != "" {
		return r.m.Spec.Auth.Issuer
	}
	return r.names.URL(contract.ComponentAuth)
}

// serviceAccess are the Services and the disruption budgets of the services.
// They route only the public port: the internal one stays inside the cluster's
// pod network.
func (r renderer) serviceAccess() []Object {
	var objects []Object
	for _, component := range contract.Services() {
		selector := SelectorLabels(r.m, component)
		if component == contract.ComponentMessaging {
			selector[contract.LabelServing] = "true"
		}
		objects = append(objects,
			corev1ac.Service(r.names.Component(component), r.m.Namespace).
				WithLabels(Labels(r.m, component)).
				WithOwnerReferences(Owner(r.m)).
				WithSpec(corev1ac.ServiceSpec().
					WithSelector(selector).
					WithPorts(servicePort(contract.PublicPortName, serviceHTTPPort, contract.PublicPortName))),
			r.disruptionBudget(component))
	}
	return objects
}

// disruptionBudget lets a node drain take one pod at a time, and pods that do
// not work at any time.
func (r renderer) disruptionBudget(component string) Object {
	return policyv1ac.PodDisruptionBudget(r.names.Component(component), r.m.Namespace).
		WithLabels(Labels(r.m, component)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(policyv1ac.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(r.selector(component)))
}

// spread asks, without insisting, for pods on different nodes.
func (r renderer) spread(component string) *corev1ac.TopologySpreadConstraintApplyConfiguration {
	return corev1ac.TopologySpreadConstraint().
		WithMaxSkew(1).
		WithTopologyKey(corev1.LabelHostname).
		WithWhenUnsatisfiable(corev1.ScheduleAnyway).
		WithLabelSelector(r.selector(component))
}
