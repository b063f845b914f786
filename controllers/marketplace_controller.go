// Package controllers keeps every Marketplace true. A reconciliation is a
// recipe: fetch, observe, decide, apply, report, each in a file of its own. It
// must not know what the services do inside: what passes between them and the
// operator stands in api/contract.
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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/load"
	"github.com/marketplane/marketplane/controllers/metrics"
	"github.com/marketplane/marketplane/controllers/reach"
)

// Config is what the operator was started with.
type Config struct {
	// Release of the operator itself, such as v0.2.0.
	Release string
	// Image of that release's services.
	Image string
	// PreviousRelease is the other one that the operator renders; empty for
	// none.
	PreviousRelease string
	// PreviousImage is the image of that release's services, for Marketplaces
	// that do not run it already. Empty: the one that a Marketplace ran it from
	// before, else Image's repository with that release's tag.
	PreviousImage string
	// PostgresImage of new embedded databases that name no other.
	PostgresImage string
	// Namespace that the operator runs in, from which NetworkPolicies admit it.
	// Empty, where it runs outside the cluster: the services' internal port is
	// open to everyone then.
	Namespace string
}

// Reconciler keeps Marketplaces true.
type Reconciler struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Live reads from the API server: Secrets, and what the caches leave out.
	Live client.Reader
	// Recorder writes Events.
	Recorder events.EventRecorder
	// Load reads the connections of messaging pods.
	Load load.Reader
	// Changes counts what is written; nil counts nothing.
	Changes *metrics.Changes
	// Now is the clock.
	Now func() time.Time
	// Config is what the operator was started with.
	Config Config

	memories *memories
	optional *optionalAPIs
	prober   *reach.Prober
	// longestPause bounds the pauses between two looks at a Marketplace, for
	// tests that wait for looks; zero leaves them as they are.
	longestPause time.Duration
}

// Reconcile looks at one Marketplace and does what is due.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	m := &v1alpha1.Marketplace{}
	if err := r.Client.Get(ctx, req.NamespacedName, m); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.memories.forget(req.NamespacedName)
			r.forgetExternal(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("fetch Marketplace %s: %w", req, err)
	}
	if m.DeletionTimestamp != nil {
		// Its objects go with it, by their owner references.
		return ctrl.Result{}, nil
	}
	mem := r.memories.of(req.NamespacedName, m.UID)

	seen, err := r.observe(ctx, m, mem)
	aside := errors.Join(seen.refused, r.rotateKeys(ctx, m, mem, &seen))
	messaging := r.decideSize(m, mem, seen)
	var p plan
	if err == nil {
		p, err = r.decide(m, seen, messaging)
	}
	if err != nil {
		// Nothing can be rendered without every Secret, or of an unknown release, but
		// keys go on being rotated, and what runs already follows its connections.
		err = errors.Join(err, aside, r.publishKeys(ctx, m, mem, seen), r.scaleAlone(ctx, m, mem, seen, messaging))
		return r.report(ctx, m, seen, messaging, nil, err)
	}
	err = errors.Join(aside, r.apply(ctx, m, mem, seen, p))
	return r.report(ctx, m, seen, messaging, &p, err)
}

// maxConcurrent is how many Marketplaces are looked at at once. Mostly they wait:
// for the API server, and for messaging pods that say nothing.
const maxConcurrent = 16

// What fails is tried again after longer and longer pauses. The longest is
// short, since messaging does not follow its connections meanwhile.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 30 * time.Second
)

// SetupWithManager registers the reconciler and what it watches.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.memories = newMemories()
	r.prober = reach.NewProber()
	if err := mgr.Add(r.prober); err != nil {
		return fmt.Errorf("set up the looks at external servers: %w", err)
	}
	if err := addIndexes(mgr); err != nil {
		return err
	}
	byLabel := handler.EnqueueRequestsFromMapFunc(marketplaceByLabel)
	// Budgets change their status with every pod; only their spec is ours.
	specChanged := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	var err error
	if r.optional, err = newOptionalAPIs(mgr, optionalInterval); err != nil {
		return fmt.Errorf("set up the Marketplace controller: %w", err)
	}
	err = ctrl.NewControllerManagedBy(mgr).
		// An annotation asks for new signing keys.
		For(&v1alpha1.Marketplace{}, builder.WithPredicates(
			predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Owns(&appsv1.Deployment{}).
		Owns(&appsv1.StatefulSet{}).
		Owns(&batchv1.Job{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ConfigMap{}).
		Owns(&policyv1.PodDisruptionBudget{}, specChanged).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&networkingv1.Ingress{}).
		Owns(&corev1.Secret{}, builder.OnlyMetadata).
		// A kept volume has no owner, and pods are owned by their workloads.
		Watches(&corev1.PersistentVolumeClaim{}, byLabel).
		Watches(&corev1.Pod{}, byLabel).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(marketplacesOfAutoscaler),
			builder.WithPredicates(keptChanged())).
		Watches(&corev1.Secret{}, r.marketplacesByNamedSecret(), builder.OnlyMetadata).
		WatchesRawSource(r.optional).
		WatchesRawSource(source.Channel(r.prober.Woken(), &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrent,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstPause, longestPause),
		}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the Marketplace controller: %w", err)
	}
	return nil
}

// marketplaceByLabel names the Marketplace that an object is labelled with.
func marketplaceByLabel(_ context.Context, object client.Object) []reconcile.Request {
	name := object.GetLabels()[contract.LabelMarketplace]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}}}
}
