package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/load"
	"github.com/marketplane/marketplane/controllers/rotation"
)

// objectKey names an object among those of one Marketplace.
type objectKey struct {
	kind string
	name string
}

func (k objectKey) String() string { return k.kind + " " + k.name }

// Kinds that are told apart by name.
const (
	kindVolume      = "PersistentVolumeClaim"
	kindJob         = "Job"
	kindDeployment  = "Deployment"
	kindStatefulSet = "StatefulSet"
	kindConfigMap   = "ConfigMap"
	kindAutoscaler  = "HorizontalPodAutoscaler"
)

// observation is what there is at one moment.
type observation struct {
	// at is when it was looked.
	at time.Time
	// owner is the Marketplace's UID.
	owner types.UID
	// installation is the id that the data carries, or shall carry.
	installation string
	// objects holds everything labelled with the Marketplace's name, whoever
	// owns it, but Secrets and Pods.
	objects map[objectKey]client.Object
	// pods by component.
	pods map[string][]corev1.Pod
	// secrets by name; those that are missing or damaged are not there.
	secrets map[string]secretFacts
	// pending are the Secrets that lead elsewhere after the migration.
	pending []secretKind
	// secretsKnown says that they were looked at.
	secretsKnown bool
	// refused is what the spec asks for in vain, while all else goes on.
	refused error
	// rivals are others' HorizontalPodAutoscalers of this Marketplace, or of its
	// workloads, by name.
	rivals []*autoscalingv2.HorizontalPodAutoscaler
	// rotation is what the signing keys' planner says, nil where they are missing.
	rotation *rotation.Plan
	// keysUnsettled says that the signing keys may have changed since they were
	// seen: what is published of them stays as it is.
	keysUnsettled bool
	// database and bus are the external ones; nil for embedded ones.
	database, bus *external
	// notifications says whether the Secret that they are signed with can be used,
	// nil where none are asked.
	notifications *state
	// load of the messaging tier.
	load load.Total
	// certificate says whether the Secret of exposure.ingress.tls can be used, nil
	// where none is asked.
	certificate *state
	// certificateDue is when the clock alone changes that; zero where it will not.
	certificateDue time.Time
	// served says of optional kinds whether the cluster has them; one that is not
	// in it is not known.
	served map[schema.GroupVersionKind]bool
	// applied says what the operator itself made of the objects: where that is
	// newer than what was seen, the cache lags behind.
	applied map[objectKey]appliedRecord
	// settled are the services as they were when they were last as wanted.
	settled map[string]settled
}

// generation is that of the newest known spec of a workload.
func (o observation) generation(kind string, workload client.Object) int64 {
	known := o.applied[objectKey{kind, workload.GetName()}]
	if known.uid != workload.GetUID() {
		return workload.GetGeneration()
	}
	return max(known.generation, workload.GetGeneration())
}

// renew puts an object in its place as it is after an apply, so that the
// report does not speak of what was before.
func (o observation) renew(key objectKey, u *unstructured.Unstructured) error {
	var typed client.Object
	switch key.kind {
	case kindDeployment:
		typed = &appsv1.Deployment{}
	case kindStatefulSet:
		typed = &appsv1.StatefulSet{}
	case kindConfigMap:
		typed = &corev1.ConfigMap{}
	case kindAutoscaler:
		typed = &autoscalingv2.HorizontalPodAutoscaler{}
	default: // The report reads no others.
		return nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return fmt.Errorf("read %s as it was applied: %w", key, err)
	}
	o.objects[key] = typed
	return nil
}

// deployment returns a component's Deployment, nil where there is none.
func (o observation) deployment(names desired.Names, component string) *appsv1.Deployment {
	d, _ := o.own(kindDeployment, names.Component(component)).(*appsv1.Deployment)
	return d
}

// statefulSet returns a component's StatefulSet, nil where there is none.
func (o observation) statefulSet(names desired.Names, component string) *appsv1.StatefulSet {
	s, _ := o.own(kindStatefulSet, names.Component(component)).(*appsv1.StatefulSet)
	return s
}

// job returns the named Job, nil where there is none.
func (o observation) job(name string) *batchv1.Job {
	j, _ := o.own(kindJob, name).(*batchv1.Job)
	return j
}

// own returns an object that this Marketplace owns, nil where there is none:
// what an earlier one of its name left says nothing about it.
func (o observation) own(kind, name string) client.Object {
	object, ok := o.objects[objectKey{kind, name}]
	if !ok {
		return nil
	}
	if owner := metav1.GetControllerOf(object); owner == nil || owner.UID != o.owner {
		return nil
	}
	return object
}

// volume returns the database's volume, nil where there is none.
func (o observation) volume(names desired.Names) *corev1.PersistentVolumeClaim {
	c, _ := o.objects[objectKey{kindVolume, names.Component(contract.ComponentDatabase)}].(*corev1.PersistentVolumeClaim)
	return c
}

// keys returns the public side of the signing keys, nil where they are
// missing.
func (o observation) keys(names desired.Names) *keyFacts {
	return o.secrets[names.Signing()].keys
}

// keysDue is when the clock alone changes something about the signing keys;
// zero where nothing will.
func (o observation) keysDue() time.Time {
	if o.rotation == nil {
		return time.Time{}
	}
	return o.rotation.Due
}

// prunable says whether objects of this kind are deleted once they are not
// wanted. Volumes never are.
func prunable(kind string) bool { return kind != kindVolume }

// observe looks at everything of m, and makes the Secrets that are missing,
// since all else depends on what is in them. The error joins what is wrong;
// the observation holds what could be seen: a part that cannot be read leaves
// the others as they are.
func (r *Reconciler) observe(ctx context.Context, m *v1alpha1.Marketplace, mem *memory) (observation, error) {
	seen := observation{
		owner:   m.UID,
		objects: map[objectKey]client.Object{},
		pods:    map[string][]corev1.Pod{},
		secrets: map[string]secretFacts{},
		applied: mem.applied,
		settled: mem.settled,
		at:      r.Now(),
	}
	namespace := client.InNamespace(m.Namespace)
	ours := []client.ListOption{namespace, client.MatchingFields{indexMarketplace: m.Name}}
	// First, since whose the replicas are must be known before any are written.
	if err := r.observeAutoscalers(ctx, m, &seen); err != nil {
		return seen, err
	}
	// Pods before their Deployments, and their load before all that may fail: no
	// service is seen without its connections, which would look like none.
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, ours...); err != nil {
		return seen, fmt.Errorf("list pods: %w", err)
	}
	for _, pod := range pods.Items {
		component := pod.Labels[contract.LabelComponent]
		seen.pods[component] = append(seen.pods[component], pod)
	}
	if err := r.observeObjects(ctx, &seen, ours); err != nil {
		return seen, err
	}
	r.observeLoad(ctx, mem, &seen)

	labelled := []client.ListOption{namespace, client.MatchingLabels{contract.LabelMarketplace: m.Name}}
	errs := []error{
		r.observeIngresses(ctx, &seen, ours),
		r.optional.observe(ctx, &seen, labelled),
		r.observeCertificate(ctx, m, mem, &seen),
	}
	var err error
	if seen.installation, err = r.installation(ctx, m, &seen); err != nil {
		return seen, errors.Join(append(errs, err)...)
	}
	source, err := r.observeDatabase(ctx, m, mem, &seen)
	errs = append(errs, err, r.observeBus(ctx, m, mem, &seen), r.observeNotifications(ctx, m, mem, &seen))
	seen.secretsKnown = true
	errs = append(errs, r.ensureSecrets(ctx, m, mem, &seen, source))
	return seen, errors.Join(errs...)
}

func (r *Reconciler) observeObjects(ctx context.Context, seen *observation, ours []client.ListOption) error {
	var (
		deployments  appsv1.DeploymentList
		statefulSets appsv1.StatefulSetList
		jobs         batchv1.JobList
		services     corev1.ServiceList
		configMaps   corev1.ConfigMapList
		claims       corev1.PersistentVolumeClaimList
		budgets      policyv1.PodDisruptionBudgetList
		policies     networkingv1.NetworkPolicyList
	)
	for _, list := range []client.ObjectList{
		&deployments, &statefulSets, &jobs, &services, &configMaps, &claims, &budgets, &policies,
	} {
		if err := r.Client.List(ctx, list, ours...); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	put := func(kind string, o client.Object) { seen.objects[objectKey{kind, o.GetName()}] = o }
	for i := range deployments.Items {
		put(kindDeployment, &deployments.Items[i])
	}
	for i := range statefulSets.Items {
		put(kindStatefulSet, &statefulSets.Items[i])
	}
	for i := range jobs.Items {
		put(kindJob, &jobs.Items[i])
	}
	for i := range services.Items {
		put("Service", &services.Items[i])
	}
	for i := range configMaps.Items {
		put(kindConfigMap, &configMaps.Items[i])
	}
	for i := range claims.Items {
		put(kindVolume, &claims.Items[i])
	}
	for i := range budgets.Items {
		put("PodDisruptionBudget", &budgets.Items[i])
	}
	for i := range policies.Items {
		put("NetworkPolicy", &policies.Items[i])
	}
	return nil
}

// installation returns the id that the data carries: the pinned one, the one
// that the spec names, that of a volume which an earlier Marketplace of this
// name left, or the UID.
func (r *Reconciler) installation(ctx context.Context, m *v1alpha1.Marketplace, seen *observation) (string, error) {
	named := m.Spec.Database.Installation
	if pinned := m.Status.Installation; pinned != "" {
		if named != "" && named != pinned {
			// The API server refuses that since the CRD has a rule for it.
			seen.refused = stop(v1alpha1.ReasonInstallationMismatch,
				"spec.database.installation is %s, but this Marketplace's data carries %s since it was made: remove the field, or make another Marketplace", named, pinned)
		}
		return pinned, nil
	}
	kept, err := r.keptInstallation(ctx, m, *seen)
	switch {
	case err != nil:
		return "", err
	case kept != "" && named != "" && kept != named:
		return "", stop(v1alpha1.ReasonInstallationMismatch,
			"spec.database.installation is %s, but the kept volume %s carries %s: name that one, or delete the volume", named, desired.NamesOf(m).Component(contract.ComponentDatabase), kept)
	case kept != "":
		return kept, nil
	case named != "":
		return named, nil
	default:
		return string(m.UID), nil
	}
}

// keptInstallation returns the id on a volume that an earlier Marketplace of
// this name left; empty where there is none.
func (r *Reconciler) keptInstallation(ctx context.Context, m *v1alpha1.Marketplace, seen observation) (string, error) {
	claim := seen.volume(desired.NamesOf(m))
	if claim == nil {
		// Once and for all: the cache may not have seen the volume yet.
		claim = &corev1.PersistentVolumeClaim{}
		key := types.NamespacedName{Namespace: m.Namespace, Name: desired.NamesOf(m).Component(contract.ComponentDatabase)}
		err := r.Live.Get(ctx, key, claim)
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("look for a kept volume: %w", err)
		}
	}
	if err := checkOwned(m, kindVolume, claim); err != nil {
		return "", err
	}
	installation := claim.Labels[contract.LabelInstallation]
	if installation == "" {
		return "", stop(v1alpha1.ReasonInstallationMismatch,
			"volume %s has lost its label %s: set it to the installation that its data carries, or delete the volume", claim.Name, contract.LabelInstallation)
	}
	return installation, nil
}
