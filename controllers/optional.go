package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// optionalKinds are those that a cluster may lack. Of objects of those that map
// to true the operator reads all, since it reports their status; of the others
// it holds no more than metadata.
var optionalKinds = map[schema.GroupVersionKind]bool{
	desired.KindHTTPRoute:      true,
	desired.KindPodMonitor:     false,
	desired.KindPrometheusRule: false,
}

const (
	// optionalInterval is how often the operator asks which of them there are.
	optionalInterval = 5 * time.Second
	// optionalTimeout bounds each step of finding out.
	optionalTimeout = 10 * time.Second
)

type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// optionalAPIs knows which optional kinds the cluster serves, and watches their
// objects while it does. When a kind appears or goes, every Marketplace is
// looked at.
//
// It asks discovery, a small document per API group, which every account may
// read. A watch of CustomResourceDefinitions would tell a little sooner, and
// would need a right in the whole cluster, which an operator of some namespaces
// does not have.
//
// It is a source of the controller, which waits for the first look, and runs
// under the manager, which waits for its end. It does not wait for every answer:
// a group that cannot be discovered must not keep the operator from the rest of
// its work. What is not known is left as it is.
type optionalAPIs struct {
	cache     cache.Cache
	discovery discovery.ServerResourcesInterfaceWithContext
	log       logr.Logger
	interval  time.Duration

	// queues passes the controller's queue from Start of the source to run.
	queues chan requestQueue
	// looked is closed after the first look.
	looked chan struct{}

	// mu is held for reading while objects of an optional kind are read from the
	// cache: a read of a kind that is being forgotten would begin to watch it
	// anew, and wait for ever.
	mu sync.RWMutex
	// served says of a kind whether there is one. Of a kind that is not in it, it
	// is not known: the API server has not said so far, or its objects could not
	// be watched.
	served map[schema.GroupVersionKind]bool
}

// newOptionalAPIs registers what finds out about optional kinds.
func newOptionalAPIs(mgr manager.Manager, interval time.Duration) (*optionalAPIs, error) {
	client, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, fmt.Errorf("make a discovery client: %w", err)
	}
	a := &optionalAPIs{
		cache:     mgr.GetCache(),
		discovery: client,
		log:       mgr.GetLogger().WithName("optional-apis"),
		interval:  interval,
		queues:    make(chan requestQueue, 1),
		looked:    make(chan struct{}),
		served:    map[schema.GroupVersionKind]bool{},
	}
	if err := mgr.Add(manager.RunnableFunc(a.run)); err != nil {
		return nil, fmt.Errorf("run what finds out about optional APIs: %w", err)
	}
	return a, nil
}

// Start takes the controller's queue.
func (a *optionalAPIs) Start(_ context.Context, queue requestQueue) error {
	a.queues <- queue
	return nil
}

// WaitForSync waits until it was asked once what there is.
func (a *optionalAPIs) WaitForSync(ctx context.Context) error {
	select {
	case <-a.looked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("find out about optional APIs: %w", ctx.Err())
	}
}

func (a *optionalAPIs) String() string { return "optional APIs" }

// run looks again and again until ctx ends.
func (a *optionalAPIs) run(ctx context.Context) error {
	var queue requestQueue
	select {
	case queue = <-a.queues:
	case <-ctx.Done():
		return nil
	}
	a.look(ctx, queue)
	close(a.looked)
	ticker := time.NewTicker(a.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if !a.look(ctx, queue) {
				continue
			}
			if err := a.enqueueAll(ctx, queue); err != nil {
				a.log.Error(err, "Marketplaces notice the change at their next look")
			}
		}
	}
}

// look finds out what there is, and says whether that has changed. What cannot
// be told stays as it was.
func (a *optionalAPIs) look(ctx context.Context, queue requestQueue) (changed bool) {
	answers := map[schema.GroupVersion]*metav1.APIResourceList{}
	for kind := range optionalKinds {
		gv := kind.GroupVersion()
		if _, asked := answers[gv]; asked {
			continue
		}
		answer, err := a.ask(ctx, gv)
		if err != nil {
			if ctx.Err() == nil {
				a.log.Error(err, "cannot tell which optional APIs there are")
			}
			continue
		}
		answers[gv] = answer
	}
	for kind := range optionalKinds {
		answer, told := answers[kind.GroupVersion()]
		if !told {
			continue
		}
		before, known := a.serves(kind)
		var err error
		switch now := serves(answer, kind.Kind); {
		case known && now == before:
			continue
		case now:
			err = a.begin(ctx, kind, queue)
		case known:
			err = a.forget(ctx, kind)
		default:
			a.lacks(kind)
		}
		if err != nil {
			if ctx.Err() == nil {
				a.log.Error(err, "cannot follow an optional API", "kind", kind.String())
			}
			continue
		}
		after, _ := a.serves(kind)
		a.log.Info("what is known of an optional API has changed", "kind", kind.String(), "served", after)
		changed = true
	}
	return changed
}

// ask returns what discovery tells of a group's version; nothing where there is
// no such version.
func (a *optionalAPIs) ask(ctx context.Context, gv schema.GroupVersion) (*metav1.APIResourceList, error) {
	ctx, cancel := context.WithTimeout(ctx, optionalTimeout)
	defer cancel()
	answer, err := a.discovery.ServerResourcesForGroupVersionWithContext(ctx, gv.String())
	switch {
	case apierrors.IsNotFound(err):
		return &metav1.APIResourceList{}, nil
	case err != nil:
		return nil, fmt.Errorf("discover %s: %w", gv, err)
	default:
		return answer, nil
	}
}

// serves says whether objects of the kind can be written and watched. Those of
// a kind that is being deleted cannot be patched any more.
func serves(answer *metav1.APIResourceList, kind string) bool {
	for _, resource := range answer.APIResources {
		if resource.Kind == kind && slices.Contains(resource.Verbs, "patch") && slices.Contains(resource.Verbs, "watch") {
			return true
		}
	}
	return false
}

func (a *optionalAPIs) serves(kind schema.GroupVersionKind) (served, known bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	served, known = a.served[kind]
	return served, known
}

func (a *optionalAPIs) lacks(kind schema.GroupVersionKind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served[kind] = false
}

// begin watches the objects of a kind. Only when they are in the cache does it
// count as served, so that reads never wait.
func (a *optionalAPIs) begin(ctx context.Context, kind schema.GroupVersionKind, queue requestQueue) error {
	example := exampleOf(kind)
	sync, cancel := context.WithTimeout(ctx, optionalTimeout)
	defer cancel()
	if _, err := a.cache.GetInformer(sync, example); err != nil {
		// Without the right to read them, for one.
		return errors.Join(fmt.Errorf("watch: %w", err), a.cache.RemoveInformer(ctx, example))
	}
	byLabel := handler.EnqueueRequestsFromMapFunc(marketplaceByLabel)
	if err := source.Kind(a.cache, example, byLabel).Start(ctx, queue); err != nil {
		return fmt.Errorf("follow: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served[kind] = true
	return nil
}

// forget ends the watch of a kind that is no longer there.
func (a *optionalAPIs) forget(ctx context.Context, kind schema.GroupVersionKind) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.served[kind] = false
	if err := a.cache.RemoveInformer(ctx, exampleOf(kind)); err != nil {
		return fmt.Errorf("end the watch: %w", err)
	}
	return nil
}

func (a *optionalAPIs) enqueueAll(ctx context.Context, queue requestQueue) error {
	var all v1alpha1.MarketplaceList
	if err := a.cache.List(ctx, &all); err != nil {
		return fmt.Errorf("list Marketplaces: %w", err)
	}
	for i := range all.Items {
		queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{
			Namespace: all.Items[i].Namespace, Name: all.Items[i].Name,
		}})
	}
	return nil
}

// observe puts the objects of optional kinds, and which kinds there are, into
// what is seen.
func (a *optionalAPIs) observe(ctx context.Context, seen *observation, ours []client.ListOption) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	seen.served = maps.Clone(a.served)
	for kind, served := range a.served {
		if !served {
			continue
		}
		objects, err := a.list(ctx, kind, ours)
		if err != nil {
			return fmt.Errorf("list %s: %w", kind.Kind, err)
		}
		for _, object := range objects {
			object.GetObjectKind().SetGroupVersionKind(kind)
			seen.objects[objectKey{kind.Kind, object.GetName()}] = object
		}
	}
	return nil
}

func (a *optionalAPIs) list(ctx context.Context, kind schema.GroupVersionKind, ours []client.ListOption) ([]client.Object, error) {
	listKind := kind.GroupVersion().WithKind(kind.Kind + "List")
	var found []client.Object
	if optionalKinds[kind] {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(listKind)
		if err := a.cache.List(ctx, list, ours...); err != nil {
			return nil, err
		}
		for i := range list.Items {
			found = append(found, &list.Items[i])
		}
		return found, nil
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(listKind)
	if err := a.cache.List(ctx, list, ours...); err != nil {
		return nil, err
	}
	for i := range list.Items {
		found = append(found, &list.Items[i])
	}
	return found, nil
}

// exampleOf tells the cache in which form objects of a kind are held.
func exampleOf(kind schema.GroupVersionKind) client.Object {
	if optionalKinds[kind] {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(kind)
		return u
	}
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(kind)
	return o
}

// monitored says whether the cluster has one of the Prometheus Operator's APIs,
// and whether that is known.
func (o observation) monitored() (monitored, known bool) {
	known = true
	for _, kind := range []schema.GroupVersionKind{desired.KindPodMonitor, desired.KindPrometheusRule} {
		served, told := o.served[kind]
		if served {
			return true, true
		}
		known = known && told
	}
	return false, known
}

// lacksAPI says whether the cluster does not serve the kind of an object, as
// far as is known.
func (o observation) lacksAPI(object desired.Object) bool {
	kind := schema.FromAPIVersionAndKind(deref(object.GetAPIVersion()), deref(object.GetKind()))
	_, optional := optionalKinds[kind]
	return optional && !o.served[kind]
}

// goneAPI says whether a write failed because the cluster does not serve an
// optional kind any more, which the next look will tell.
func goneAPI(err error, kind schema.GroupVersionKind) bool {
	_, optional := optionalKinds[kind]
	return optional && (apierrors.IsNotFound(err) || meta.IsNoMatchError(err))
}
