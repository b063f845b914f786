package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// FieldOwner is the manager of every field that the operator applies.
const FieldOwner = "marketplane"

// apply carries out the plan, as far as it can be: one object that fails does
// not keep back the others.
func (r *Reconciler) apply(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation, p plan) error {
	if m.Spec.Paused {
		return nil
	}
	if p.migrationState == migrationSucceeded {
		// Before the workloads, whose pods read these Secrets when they start.
		if err := r.renewPending(ctx, m, mem, seen); err != nil {
			return errors.Join(err, r.scaleAlone(ctx, m, mem, seen, p.size))
		}
	}
	var errs []error
	var spared objectKey
	for _, object := range p.apply {
		key := keyOf(object)
		_, applied := mem.applied[key]
		err := r.applyObject(ctx, m, mem, seen, object, p.size)
		errs = append(errs, err)
		if key.kind != kindJob || p.attempt.before == nil {
			continue
		}
		if err != nil {
			// Without a successor it is all that tells how many rounds there were.
			spared = objectKey{kindJob, p.attempt.before.Name}
		} else if !applied {
			r.event(m, p.attempt.before, corev1.EventTypeNormal, "MigrationRetried", "%s", p.attempt.againEvent(seen, key.name))
		}
	}
	if p.migrationState != migrationSucceeded {
		errs = append(errs, r.scaleAlone(ctx, m, mem, seen, p.size))
	}
	errs = append(errs, missingAPI(m, seen), r.prune(ctx, m, mem, seen, p, spared))
	return errors.Join(errs...)
}

func (r *Reconciler) applyObject(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation, object desired.Object, s size) error {
	key := keyOf(object)
	digest, err := digestOf(object)
	if err != nil {
		return fmt.Errorf("render %s: %w", key, err)
	}
	known, live := mem.applied[key], seen.objects[key]
	if live != nil && known == (appliedRecord{live.GetUID(), digest, versionOf(live), live.GetGeneration()}) {
		// Nearly always: what follows takes most of the memory of a look.
		return checkOwned(m, key.kind, live)
	}

	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return fmt.Errorf("render %s: %w", key, err)
	}
	u := &unstructured.Unstructured{Object: content}
	c := change{
		key: key, after: u, size: s,
		repaired: known.digest == digest, leftAlone: leavesReplicas(key.kind, content),
	}
	if live == nil && known.uid != "" {
		// It was there: it has been deleted since, or the cache does not know it yet.
		if live, err = r.lookUp(ctx, key, u); err != nil {
			return err
		}
	}
	if live == nil {
		live, err = r.create(ctx, m, key, u)
	} else {
		if err := checkOwned(m, key.kind, live); err != nil {
			return err
		}
		if known.digest == digest && known.stands(live, u) {
			mem.applied[key] = appliedRecord{known.uid, digest, versionOf(live), live.GetGeneration()}
			return nil
		}
		err = r.update(ctx, u, live)
	}
	if goneAPI(err, u.GroupVersionKind()) {
		return wait(v1alpha1.ReasonAPIMissing, "%s: the cluster has just lost the API of it", key)
	}
	if err != nil {
		return classify(withOrigin(err, key.kind, u.GetLabels()[contract.LabelComponent]), key.String())
	}
	c.before = live
	if changed(known, live, u) && !c.byAutoscaler() {
		r.tellChange(m, c)
		r.Changes.Count(key.kind, c.kind())
	}
	mem.applied[key] = appliedRecord{u.GetUID(), digest, versionOf(u), u.GetGeneration()}
	return seen.renew(key, u)
}

// stands says whether an object is as it was applied, with the metadata of
// wanted. A newer version of the same generation has another status, which is
// not ours, or other metadata.
func (known appliedRecord) stands(live client.Object, wanted *unstructured.Unstructured) bool {
	switch {
	case known.uid != live.GetUID():
		return false
	case known.resourceVersion == versionOf(live):
		return true
	case known.generation == 0 || known.generation != live.GetGeneration():
		return false
	default:
		return holds(live.GetLabels(), wanted.GetLabels()) && holds(live.GetAnnotations(), wanted.GetAnnotations())
	}
}

// holds says whether all that is wanted is there.
func holds(all, wanted map[string]string) bool {
	for key, value := range wanted {
		if found, ok := all[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// changed says whether an apply changed anything. A newer version alone does
// not mean that: the cache may lag behind, and status changes are others'.
func changed(known appliedRecord, before client.Object, after *unstructured.Unstructured) bool {
	if before == nil {
		return true
	}
	version, generation := versionOf(after), after.GetGeneration()
	if version == versionOf(before) || version == known.resourceVersion {
		return false
	}
	return generation == 0 || generation != before.GetGeneration() && generation != known.generation
}

// absent is a version that no object has: a storage that holds anything is past
// it. To apply it makes an object or is refused, so that what the caches do not
// know, which may be someone else's, is not taken over.
const absent = "1"

// create applies what seems not to be there, and returns what was there
// nevertheless.
func (r *Reconciler) create(ctx context.Context, m *v1alpha1.Marketplace, key objectKey, u *unstructured.Unstructured) (client.Object, error) {
	u.SetResourceVersion(absent)
	err := r.applyNow(ctx, u)
	if !apierrors.IsConflict(err) {
		return nil, err
	}
	u.SetResourceVersion("")
	live, errLookUp := r.lookUp(ctx, key, u)
	if errLookUp != nil {
		return nil, errLookUp
	}
	if live == nil {
		return nil, err
	}
	if err := checkOwned(m, key.kind, live); err != nil {
		return live, err
	}
	return live, r.update(ctx, u, live)
}

// update applies u over live, and is refused where another object has taken the
// name since.
func (r *Reconciler) update(ctx context.Context, u *unstructured.Unstructured, live client.Object) error {
	u.SetUID(live.GetUID())
	if leavesReplicas(u.GetKind(), u.Object) {
		if err := r.giveUpReplicas(ctx, client.ObjectKeyFromObject(u)); err != nil {
			return err
		}
	}
	return r.applyNow(ctx, u)
}

func (r *Reconciler) applyNow(ctx context.Context, u *unstructured.Unstructured) error {
	return r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u),
		client.FieldOwner(FieldOwner), client.ForceOwnership)
}

// lookUp asks the API server for an object's metadata, and returns nil where it
// is not. What the caches do not hold may still exist, without our labels, and
// is then someone else's.
func (r *Reconciler) lookUp(ctx context.Context, key objectKey, u *unstructured.Unstructured) (client.Object, error) {
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(u.GroupVersionKind())
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(u), head)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", key, err)
	}
	return head, nil
}

// scaleAlone lets messaging follow its connections while it must not change
// otherwise: all that was applied before is applied again, with another size.
func (r *Reconciler) scaleAlone(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation, to size) error {
	d := seen.deployment(desired.NamesOf(m), contract.ComponentMessaging)
	if m.Spec.Paused || d == nil || d.Spec.Replicas == nil || *d.Spec.Replicas == to.replicas ||
		leftAlone(m, seen, contract.ComponentMessaging) {
		return nil
	}
	if *d.Spec.Replicas == 0 {
		// Someone stopped it while spec.paused was set, to restore a backup say:
		// it comes back with the others, after the migration.
		return nil
	}
	before := *d.Spec.Replicas
	held, err := appsv1ac.ExtractDeployment(d, FieldOwner)
	if err != nil {
		return fmt.Errorf("scale Deployment %s: %w", d.Name, err)
	}
	if held.Spec == nil {
		return nil
	}
	// What was seen is applied again: it must be the newest.
	held.WithUID(d.UID).WithResourceVersion(d.ResourceVersion)
	held.Spec.WithReplicas(to.replicas)
	if err := r.Client.Apply(ctx, held, client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return classify(err, "Deployment "+d.Name)
	}
	if held.Generation != nil {
		key := objectKey{kindDeployment, d.Name}
		mem.applied[key] = appliedRecord{uid: d.UID, generation: *held.Generation}
	}
	r.Changes.Count(kindDeployment, metrics.Updated)
	r.event(m, d, corev1.EventTypeNormal, "Scaled", "messaging: %s", scalingText(before, to))
	return nil
}

// prune deletes what this Marketplace owns and does not want any more, but what
// is spared.
func (r *Reconciler) prune(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation, p plan, spared objectKey) error {
	wanted := map[objectKey]bool{spared: true}
	for _, objects := range [][]desired.Object{p.apply, p.held} {
		for _, object := range objects {
			wanted[keyOf(object)] = true
		}
	}
	var errs []error
	for key, object := range seen.objects {
		if replacedLater(m, seen, key) {
			continue
		}
		if wanted[key] || !prunable(key.kind) || !metav1.IsControlledBy(object, m) || object.GetDeletionTimestamp() != nil {
			continue
		}
		uid := object.GetUID()
		err := r.Client.Delete(ctx, object,
			client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", key, err))
			continue
		}
		delete(mem.applied, key)
		r.Changes.Count(key.kind, metrics.Deleted)
		r.event(m, object, corev1.EventTypeNormal, "Deleted", "%s: deleted, it is not needed any more", key)
	}
	return errors.Join(errs...)
}

func replicasIn(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

// event tells people, in an Event about m, what was done to object, which is m
// itself where no other is concerned. Events of one reason about the same two
// versions of objects are counted as one, so the object must be told.
func (r *Reconciler) event(m *v1alpha1.Marketplace, object runtime.Object, eventType, reason, format string, args ...any) {
	// The action is the reason in this operator: both name what was done. An
	// Event whose note is too long is refused, and so lost.
	r.Recorder.Eventf(m, object, eventType, reason, reason, "%s", head(fmt.Sprintf(format, args...), maxMessage))
}

func keyOf(object desired.Object) objectKey {
	return objectKey{kind: deref(object.GetKind()), name: deref(object.GetName())}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func digestOf(content any) (string, error) {
	b, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
