package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// ScalingOwner is the manager that holds a Deployment's replicas from when the
// operator gives them up until an autoscaler writes them. Without it the field
// would belong to nobody when the operator lets go, and fall back to 1.
const ScalingOwner = "marketplane-scaling"

// indexAutoscaled is the index of HorizontalPodAutoscalers by the Marketplaces
// that they concern.
const indexAutoscaled = "marketplane.dev/concerns"

// concernedBy names the Marketplaces that an autoscaler concerns: whose it is,
// and the one that it targets or whose workload it targets.
func concernedBy(object client.Object) []string {
	hpa, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		return nil
	}
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if owner := metav1.GetControllerOf(hpa); owner != nil && owner.Kind == v1alpha1.Kind {
		add(owner.Name)
	}
	target := hpa.Spec.ScaleTargetRef
	switch group := schema.FromAPIVersionAndKind(target.APIVersion, target.Kind).Group; {
	case group == v1alpha1.GroupVersion.Group && target.Kind == v1alpha1.Kind:
		add(target.Name)
	case group == appsv1.GroupName && (target.Kind == kindDeployment || target.Kind == kindStatefulSet):
		if at := strings.LastIndex(target.Name, "-"); at > 0 && sectionOf(target.Name[at+1:]) != "" {
			add(target.Name[:at])
		}
	}
	return names
}

// marketplacesOfAutoscaler names whom to look at when an autoscaler changes.
func marketplacesOfAutoscaler(_ context.Context, object client.Object) []reconcile.Request {
	var requests []reconcile.Request
	for _, name := range concernedBy(object) {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}})
	}
	return requests
}

// keepOfAutoscaler leaves of an autoscaler what the operator reads. Its figures
// change with every look that it takes; who else made it is of no interest but
// for its name.
func keepOfAutoscaler(object any) (any, error) {
	hpa, ok := object.(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok {
		// The cache's marker of one whose deletion it missed, for one.
		return object, nil
	}
	kept := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{
			Name: hpa.Name, Namespace: hpa.Namespace, UID: hpa.UID,
			ResourceVersion: hpa.ResourceVersion, Generation: hpa.Generation,
			DeletionTimestamp: hpa.DeletionTimestamp, OwnerReferences: hpa.OwnerReferences,
		},
	}
	kept.Spec.ScaleTargetRef = hpa.Spec.ScaleTargetRef
	if hpa.Labels[desired.LabelManagedBy] == desired.ManagedBy {
		kept.Labels, kept.Spec = hpa.Labels, hpa.Spec
		kept.Status.DesiredReplicas = hpa.Status.DesiredReplicas
		kept.Status.Conditions = hpa.Status.Conditions
	}
	return kept, nil
}

// keptChanged lets through what changed in what is kept.
func keptChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.DeepCopyObject().(client.Object)
		if !ok {
			return true
		}
		before.SetResourceVersion(e.ObjectNew.GetResourceVersion())
		return !equality.Semantic.DeepEqual(before, e.ObjectNew)
	}}
}

// observeAutoscalers sorts the autoscalers that concern m into its own and
// those of others, which come in the order of their names.
func (r *Reconciler) observeAutoscalers(ctx context.Context, m *v1alpha1.Marketplace, seen *observation) error {
	var autoscalers autoscalingv2.HorizontalPodAutoscalerList
	err := r.Client.List(ctx, &autoscalers, client.InNamespace(m.Namespace), client.MatchingFields{indexAutoscaled: m.Name})
	if err != nil {
		return fmt.Errorf("list HorizontalPodAutoscalers: %w", err)
	}
	for i := range autoscalers.Items {
		hpa := &autoscalers.Items[i]
		// What an earlier Marketplace of this name left decides, too, until it is
		// collected; but it is no one's to mend.
		if owner := metav1.GetControllerOf(hpa); owner != nil && owner.Kind == v1alpha1.Kind {
			seen.objects[objectKey{kindAutoscaler, hpa.Name}] = hpa
			continue
		}
		if hpa.DeletionTimestamp == nil {
			seen.rivals = append(seen.rivals, hpa)
		}
	}
	slices.SortFunc(seen.rivals, func(a, b *autoscalingv2.HorizontalPodAutoscaler) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// leavesReplicas says whether what is to be applied is a Deployment whose
// replicas an autoscaler decides.
func leavesReplicas(kind string, content map[string]any) bool {
	_, said, err := unstructured.NestedFieldNoCopy(content, "spec", "replicas")
	return kind == kindDeployment && err == nil && !said
}

// versionOf is the version of what the operator applies to an object: another
// one means that someone wrote there. An autoscaler's own changes with every
// figure that it takes, and its generation is not counted by every release of
// Kubernetes.
func versionOf(object client.Object) string {
	var hpa autoscalingv2.HorizontalPodAutoscaler
	switch o := object.(type) {
	case *autoscalingv2.HorizontalPodAutoscaler:
		hpa = *o
	case *unstructured.Unstructured:
		if o.GetKind() != kindAutoscaler {
			return o.GetResourceVersion()
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &hpa); err != nil {
			return o.GetResourceVersion()
		}
	default:
		return object.GetResourceVersion()
	}
	digest, err := digestOf(map[string]any{
		"uid": hpa.UID, "labels": hpa.Labels, "owners": hpa.OwnerReferences, "spec": hpa.Spec,
	})
	if err != nil {
		return hpa.ResourceVersion
	}
	return digest
}

// autoscaler returns a component's own autoscaler, nil where there is none.
func (o observation) autoscaler(names desired.Names, component string) *autoscalingv2.HorizontalPodAutoscaler {
	hpa, _ := o.own(kindAutoscaler, names.Component(component)).(*autoscalingv2.HorizontalPodAutoscaler)
	return hpa
}

// rival returns someone else's autoscaler of an object, nil where there is none.
func (o observation) rival(kind, name string) *autoscalingv2.HorizontalPodAutoscaler {
	for _, hpa := range o.rivals {
		if target := hpa.Spec.ScaleTargetRef; target.Kind == kind && target.Name == name {
			return hpa
		}
	}
	return nil
}

// autoscaledServices are the services whose replicas the operator leaves to an
// autoscaler: its own, or someone else's, whom it would fight for ever. Each
// comes with the number that its Deployment shall begin with, 0 where it runs
// already. An autoscaler does nothing about a Deployment of no pods, so such a
// one begins anew.
func autoscaledServices(m *v1alpha1.Marketplace, seen observation, messaging size) map[string]int32 {
	names := desired.NamesOf(m)
	services := map[string]int32{}
	for _, component := range contract.Services() {
		spec := desired.AutoscalingOf(m, component)
		if spec == nil && seen.rival(kindDeployment, names.Component(component)) == nil {
			continue
		}
		d := seen.deployment(names, component)
		switch {
		case d != nil && replicasIn(d) > 0:
			services[component] = 0
		case spec == nil:
			services[component] = replicasOf(m, component, messaging)
		default:
			services[component] = spec.MinReplicasOrDefault()
			if hpa := seen.autoscaler(names, component); hpa != nil {
				services[component] = min(max(hpa.Status.DesiredReplicas, spec.MinReplicasOrDefault()), spec.MaxReplicas)
			}
		}
	}
	return services
}

// leftAlone says whether a component's Deployment must keep its replicas.
func leftAlone(m *v1alpha1.Marketplace, seen observation, component string) bool {
	return desired.AutoscalingOf(m, component) != nil ||
		seen.rival(kindDeployment, desired.NamesOf(m).Component(component)) != nil
}

// giveUpReplicas prepares a Deployment for an apply that does not speak of its
// replicas any more. It reads the newest, whatever the caches hold: the number
// that is taken over must be the one that stands.
func (r *Reconciler) giveUpReplicas(ctx context.Context, key types.NamespacedName) error {
	live := &appsv1.Deployment{}
	if err := r.Live.Get(ctx, key, live); err != nil {
		return fmt.Errorf("read the replicas of Deployment %s: %w", key.Name, err)
	}
	held, err := appsv1ac.ExtractDeployment(live, FieldOwner)
	if err != nil {
		return fmt.Errorf("read what the operator applied to Deployment %s: %w", key.Name, err)
	}
	if held.Spec == nil || held.Spec.Replicas == nil {
		return nil
	}
	// Refused if it was changed since: then it is looked at anew.
	taken := appsv1ac.Deployment(key.Name, key.Namespace).
		WithUID(live.UID).WithResourceVersion(live.ResourceVersion).
		WithSpec(appsv1ac.DeploymentSpec().WithReplicas(replicasIn(live)))
	if err := r.Client.Apply(ctx, taken, client.FieldOwner(ScalingOwner)); err != nil {
		return classify(err, "Deployment "+key.Name)
	}
	return nil
}

// scalingConflict tells which two decide about the same, and what to do; empty
// where there is no conflict.
func scalingConflict(m *v1alpha1.Marketplace, seen observation) string {
	var conflicts []string
	for _, hpa := range seen.rivals {
		if text := conflictWith(m, hpa); text != "" {
			conflicts = append(conflicts, text)
		}
	}
	return strings.Join(conflicts, "; ")
}

func conflictWith(m *v1alpha1.Marketplace, hpa *autoscalingv2.HorizontalPodAutoscaler) string {
	who, target := "HorizontalPodAutoscaler "+hpa.Name, hpa.Spec.ScaleTargetRef
	remove := "delete it"
	if owner := metav1.GetControllerOf(hpa); owner != nil {
		who += fmt.Sprintf(" of %s %s", owner.Kind, owner.Name)
		remove = fmt.Sprintf("delete that %s", owner.Kind)
	}
	component := target.Name[strings.LastIndex(target.Name, "-")+1:]
	switch {
	case target.Kind == v1alpha1.Kind && m.Spec.Messaging.Autoscaling == nil:
		return ""
	case target.Kind == v1alpha1.Kind:
		return who + " scales this Marketplace, and is ignored while spec.messaging.autoscaling is set: " + remove +
			", or remove spec.messaging.autoscaling"
	case target.Kind == kindStatefulSet:
		return fmt.Sprintf("%s scales StatefulSet %s, which the operator sets back each time: %s", who, target.Name, remove)
	case component == contract.ComponentMessaging:
		return fmt.Sprintf("%s scales Deployment %s, and the operator leaves it the number of pods meanwhile: %s, or let it scale Marketplace %s",
			who, target.Name, remove, m.Name)
	case desired.AutoscalingOf(m, component) != nil:
		return fmt.Sprintf("%s scales Deployment %s, as the one of spec.%s.autoscaling does: %s, or remove spec.%s.autoscaling",
			who, target.Name, component, remove, component)
	default:
		return fmt.Sprintf("%s scales Deployment %s, and the operator leaves it the number of pods meanwhile: %s, and set spec.%s.autoscaling instead",
			who, target.Name, remove, component)
	}
}

// notActing says why a component's own autoscaler does nothing, empty where it
// works or there is none.
func notActing(hpa *autoscalingv2.HorizontalPodAutoscaler) string {
	if hpa == nil {
		return ""
	}
	for _, c := range hpa.Status.Conditions {
		if (c.Type == autoscalingv2.AbleToScale || c.Type == autoscalingv2.ScalingActive) && c.Status == "False" {
			return fmt.Sprintf("; HorizontalPodAutoscaler %s does not act: %s: %s", hpa.Name, c.Reason, c.Message)
		}
	}
	return ""
}
