package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// CacheOptions keep only what the operator made in memory, every Marketplace of
// the given namespaces (of all where none is given), and of every Secret that
// someone may name its name and version alone.
func CacheOptions(namespaces []string) cache.Options {
	options := cache.Options{
		DefaultLabelSelector: labels.SelectorFromSet(labels.Set{desired.LabelManagedBy: desired.ManagedBy}),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.Marketplace{}: {Label: labels.Everything()},
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

// indexNamedSecrets is the index of Marketplaces by the Secrets that they name.
const indexNamedSecrets = "namedSecrets"

func addIndexes(mgr ctrl.Manager) error {
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
