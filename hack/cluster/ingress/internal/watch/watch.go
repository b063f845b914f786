// Package watch follows what the proxy serves: Ingress objects of one class,
// Services, and the certificates that they name. It knows nothing of the proxy.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// State is what there is to serve.
type State struct {
	// Ingresses of the class, the oldest first.
	Ingresses []networkingv1.Ingress
	// Services by namespace and name, those of all namespaces.
	Services map[types.NamespacedName]*corev1.Service
	// Secrets that the Ingresses name; nil where there is none.
	Secrets map[types.NamespacedName]*corev1.Secret
}

// Cluster follows one cluster.
type Cluster struct {
	class      string
	core       rest.Interface
	networking rest.Interface
	ingresses  cache.SharedIndexInformer
	services   cache.SharedIndexInformer
	changed    chan struct{} // of one

	// secrets is what was read last: a Secret that can't be read just now
	// keeps its content.
	secrets map[types.NamespacedName]*corev1.Secret
}

// requestTimeout bounds one read or write.
const requestTimeout = 10 * time.Second

// New prepares to follow the Ingress objects of a class. Only the two groups
// that are needed are known, which keeps the program small.
func New(config *rest.Config, class string) (*Cluster, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	client := func(group schema.GroupVersion, path string) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.GroupVersion, c.APIPath = &group, path
		c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		return rest.RESTClientFor(c)
	}
	core, err := client(corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	networking, err := client(networkingv1.SchemeGroupVersion, "/apis")
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	c := &Cluster{
		class: class, core: core, networking: networking, changed: make(chan struct{}, 1),
		secrets: map[types.NamespacedName]*corev1.Secret{},
	}
	if c.ingresses, err = c.informer(networking, "ingresses", &networkingv1.Ingress{}); err != nil {
		return nil, err
	}
	if c.services, err = c.informer(core, "services", &corev1.Service{}); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cluster) informer(client cache.Getter, resource string, object runtime.Object) (cache.SharedIndexInformer, error) {
	informer := cache.NewSharedIndexInformer(
		cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, fields.Everything()), object, 0, cache.Indexers{})
	note := func() {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { note() }, UpdateFunc: func(any, any) { note() }, DeleteFunc: func(any) { note() },
	})
	return informer, err
}

// Start follows until ctx ends. The returned function waits for that.
func (c *Cluster) Start(ctx context.Context) (wait func()) {
	var running sync.WaitGroup
	running.Go(func() { c.ingresses.RunWithContext(ctx) })
	running.Go(func() { c.services.RunWithContext(ctx) })
	return running.Wait
}

// WaitForSync waits until everything is known. The error is ctx's.
func (c *Cluster) WaitForSync(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), c.ingresses.HasSynced, c.services.HasSynced) {
		return ctx.Err()
	}
	return nil
}

// Changed delivers when something changed since it delivered last.
func (c *Cluster) Changed() <-chan struct{} { return c.changed }

// State returns what there is now.
func (c *Cluster) State(ctx context.Context) State {
	s := State{
		Services: map[types.NamespacedName]*corev1.Service{},
		Secrets:  map[types.NamespacedName]*corev1.Secret{},
	}
	for _, object := range c.services.GetStore().List() {
		if service, ok := object.(*corev1.Service); ok {
			s.Services[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}] = service
		}
	}
	for _, object := range c.ingresses.GetStore().List() {
		ingress, ok := object.(*networkingv1.Ingress)
		if !ok || ingress.Spec.IngressClassName == nil || *ingress.Spec.IngressClassName != c.class || ingress.DeletionTimestamp != nil {
			continue
		}
		s.Ingresses = append(s.Ingresses, *ingress)
		for _, tls := range ingress.Spec.TLS {
			key := types.NamespacedName{Namespace: ingress.Namespace, Name: tls.SecretName}
			if _, known := s.Secrets[key]; !known && tls.SecretName != "" {
				s.Secrets[key] = c.secret(ctx, key)
			}
		}
	}
	slices.SortFunc(s.Ingresses, olderFirst)
	c.secrets = s.Secrets
	return s
}

func olderFirst(a, b networkingv1.Ingress) int {
	if order := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); order != 0 {
		return order
	}
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

func (c *Cluster) secret(ctx context.Context, key types.NamespacedName) *corev1.Secret {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret := &corev1.Secret{}
	err := c.core.Get().Namespace(key.Namespace).Resource("secrets").Name(key.Name).Do(ctx).Into(secret)
	switch {
	case err == nil:
		return secret
	case apierrors.IsNotFound(err):
		return nil
	}
	return c.secrets[key]
}

// Report writes the proxy's address into the status of an Ingress that does not
// say it yet.
func (c *Cluster) Report(ctx context.Context, ingress *networkingv1.Ingress, address string) error {
	want := []networkingv1.IngressLoadBalancerIngress{{IP: address}}
	have := ingress.Status.LoadBalancer.Ingress
	if len(have) == 1 && have[0].IP == address && have[0].Hostname == "" {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": want}}})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = c.networking.Patch(types.MergePatchType).Namespace(ingress.Namespace).Resource("ingresses").Name(ingress.Name).
		SubResource("status").Body(patch).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of Ingress %s/%s: %w", ingress.Namespace, ingress.Name, err)
	}
	return nil
}
