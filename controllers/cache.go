package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// CacheOptions keep only what the operator made in memory, every Marketplace of
// the given namespaces (of all where none is given), and of every Secret that
// someone may name its name and version alone.
func CacheOptions(namespaces []string) cache.Options {
	options := cache.Options{
		DefaultLabelSelector: labels.SelectorFromSet(labels.Set{desired.LabelManagedBy: desired.ManagedBy}),
		DefaultTransform:     cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.Marketplace{}: {Label: labels.Everything()},
			// Those that others make can decide about what is ours.
			&autoscalingv2.HorizontalPodAutoscaler{}: {
				Label:     labels.Everything(),
				Transform: keepOfAutoscaler,
			},
			// To scale alone, what the operator owns of a Deployment is extracted by
			// its managed fields.
			&appsv1.Deployment{}: {Transform: keep},
			&corev1.Pod{}:        {Transform: stripPod},
			// Users' Secrets carry no label of ours. Helm keeps a Secret for each
			// revision of each release: nobody names those.
			&corev1.Secret{}: {
				Label:     labels.Everything(),
				Field:     fields.ParseSelectorOrDie("type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"),
				Transform: strip,
			},
		},
	}
	if len(namespaces) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, ns := range namespaces {
			options.DefaultNamespaces[ns] = cache.Config{}
		}
	}
	return options
}

// keep leaves an object as it is.
func keep(object any) (any, error) { return object, nil }

// stripPod leaves of a pod what says whose it is and how it fares. There may be
// many, and most of each is a copy of its workload's template.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		// The cache's marker of a pod whose deletion it missed, for one.
		return object, nil
	}
	return &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name:              pod.Name,
			Namespace:         pod.Namespace,
			UID:               pod.UID,
			ResourceVersion:   pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp,
			DeletionTimestamp: pod.DeletionTimestamp,
			Labels:            pod.Labels,
			Annotations:       pod.Annotations,
			OwnerReferences:   pod.OwnerReferences,
		},
		Spec:   corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: pod.Status,
	}, nil
}

// strip leaves of an object's metadata what says which version of whose object
// it is.
func strip(object any) (any, error) {
	head, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		// Whoever asks for whole Secrets would have a copy of everyone's.
		return nil, fmt.Errorf("a %T would be kept in memory, where metadata alone may be", object)
	}
	var owners []metav1.OwnerReference
	for _, owner := range head.OwnerReferences {
		if owner.Kind == v1alpha1.Kind {
			owners = append(owners, owner)
		}
	}
	return &metav1.PartialObjectMetadata{
		TypeMeta: head.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name:              head.Name,
			Namespace:         head.Namespace,
			UID:               head.UID,
			ResourceVersion:   head.ResourceVersion,
			DeletionTimestamp: head.DeletionTimestamp,
			OwnerReferences:   owners,
		},
	}, nil
}

const (
	// indexNamedSecrets is the index of Marketplaces by the Secrets that they name.
	indexNamedSecrets = "namedSecrets"
	// indexMarketplace is the index of objects by the name of the Marketplace
	// that they are labelled with. Without it, every look would go through all
	// objects of the namespace.
	indexMarketplace = "marketplace"
)

func addIndexes(mgr ctrl.Manager) error {
	for _, kind := range []client.Object{
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &batchv1.Job{}, &corev1.Service{}, &corev1.ConfigMap{},
		&corev1.PersistentVolumeClaim{}, &corev1.Pod{}, &policyv1.PodDisruptionBudget{}, &networkingv1.NetworkPolicy{},
		&networkingv1.Ingress{},
	} {
		err := mgr.GetFieldIndexer().IndexField(context.Background(), kind, indexMarketplace, func(object client.Object) []string {
			return []string{object.GetLabels()[contract.LabelMarketplace]}
		})
		if err != nil {
			return fmt.Errorf("index objects by their Marketplace: %w", err)
		}
	}
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.Marketplace{}, indexNamedSecrets,
		func(object client.Object) []string {
			if m, ok := object.(*v1alpha1.Marketplace); ok {
				return m.NamedSecrets()
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("index Marketplaces by the Secrets that they name: %w", err)
	}
	err = mgr.GetFieldIndexer().IndexField(context.Background(), &autoscalingv2.HorizontalPodAutoscaler{}, indexAutoscaled, concernedBy)
	if err != nil {
		return fmt.Errorf("index HorizontalPodAutoscalers by the Marketplaces that they concern: %w", err)
	}
	return nil
}

// marketplacesByNamedSecret finds the Marketplaces whose spec names a Secret.
func (r *Reconciler) marketplacesByNamedSecret() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, secret client.Object) []reconcile.Request {
		var naming v1alpha1.MarketplaceList
		err := r.Client.List(ctx, &naming, client.InNamespace(secret.GetNamespace()),
			client.MatchingFields{indexNamedSecrets: secret.GetName()})
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "find who names a Secret", "namespace", secret.GetNamespace(), "secret", secret.GetName())
			return nil
		}
		requests := make([]reconcile.Request, 0, len(naming.Items))
		for i := range naming.Items {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{
				Namespace: naming.Items[i].Namespace, Name: naming.Items[i].Name,
			}})
		}
		return requests
	})
}
