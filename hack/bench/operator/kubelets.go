package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
)

// playing bounds how many statuses are written at once.
const playing = 4

// kubelets stands in for the controllers and kubelets that the cluster lacks:
// migrations succeed at once, and what is applied runs.
type kubelets struct {
	client client.Client
	cache  cache.Cache
	work   chan client.Object
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// deployments counts those that have been applied.
	deployments atomic.Int64
	// lastDeployment is when the last one was seen.
	lastDeployment atomic.Pointer[time.Time]
	// run says that Deployments get pods.
	run atomic.Bool

	mu  sync.Mutex
	err error
}

func startKubelets(ctx context.Context, k *cluster) (*kubelets, error) {
	c, err := cache.New(k.config, cache.Options{Scheme: k.client.Scheme()})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &kubelets{client: k.client, cache: c, work: make(chan client.Object, 100_000), cancel: cancel}
	for _, kind := range []client.Object{&appsv1.Deployment{}, &appsv1.StatefulSet{}, &batchv1.Job{}} {
		informer, err := c.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			cancel()
			return nil, err
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: p.added, UpdateFunc: func(_, now any) { p.changed(now) }})
		if err != nil {
			cancel()
			return nil, err
		}
	}
	p.wg.Go(func() { p.fail(c.Start(ctx)) })
	for range playing {
		p.wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case object := <-p.work:
					if err := p.play(ctx, object); err != nil && ctx.Err() == nil {
						p.fail(err)
					}
				}
			}
		})
	}
	if !c.WaitForCacheSync(ctx) {
		p.stop()
		return nil, errors.New("the caches of the benchmark do not start")
	}
	return p, nil
}

func (p *kubelets) stop() {
	p.cancel()
	p.wg.Wait()
}

func (p *kubelets) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

func (p *kubelets) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *kubelets) added(object any) {
	if _, ok := object.(*appsv1.Deployment); ok {
		now := time.Now()
		p.lastDeployment.Store(&now)
		p.deployments.Add(1)
	}
	p.changed(object)
}

func (p *kubelets) changed(object any) {
	o, ok := object.(client.Object)
	if !ok {
		return
	}
	if _, ok := o.(*appsv1.Deployment); ok && !p.run.Load() {
		return
	}
	p.work <- o
}

// runAll lets the Deployments run that are there, and all that come, and
// returns once they do. None of them has run before, so that what is measured
// until then does not include this.
func (p *kubelets) runAll(ctx context.Context) error {
	p.run.Store(true)
	var list appsv1.DeploymentList
	if err := p.cache.List(ctx, &list); err != nil {
		return err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2*playing)
	for i := range list.Items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			d := &list.Items[i]
			if err := p.play(ctx, d); err != nil {
				p.fail(err)
			}
			if d.Labels[contract.LabelComponent] == contract.ComponentMessaging {
				if err := p.runPods(ctx, d); err != nil {
					p.fail(err)
				}
			}
		})
	}
	wg.Wait()
	return p.failed()
}

// play gives an object the status that a cluster would give it.
func (p *kubelets) play(ctx context.Context, object client.Object) error {
	var err error
	switch cached := object.(type) {
	case *appsv1.Deployment:
		if cached.Status.ObservedGeneration == cached.Generation {
			return nil
		}
		o, n := cached.DeepCopy(), *cached.Spec.Replicas
		o.Status = appsv1.DeploymentStatus{
			ObservedGeneration: o.Generation,
			Replicas:           n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n,
		}
		err = p.client.Status().Update(ctx, o)
	case *appsv1.StatefulSet:
		if cached.Status.ObservedGeneration == cached.Generation {
			return nil
		}
		o, n := cached.DeepCopy(), *cached.Spec.Replicas
		o.Status = appsv1.StatefulSetStatus{
			ObservedGeneration: o.Generation,
			Replicas:           n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n, CurrentReplicas: n,
		}
		err = p.client.Status().Update(ctx, o)
	case *batchv1.Job:
		if len(cached.Status.Conditions) > 0 {
			return nil
		}
		o, now := cached.DeepCopy(), metav1.Now()
		o.Status.StartTime, o.Status.CompletionTime, o.Status.Succeeded = &now, &now, 1
		for _, t := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
			o.Status.Conditions = append(o.Status.Conditions, batchv1.JobCondition{
				Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now, Reason: "Benchmark",
			})
		}
		err = p.client.Status().Update(ctx, o)
	default:
		return nil
	}
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// It has changed since, which comes as another event.
		return nil
	}
	return err
}

// runPods makes the pods of a messaging Deployment, whose connections the
// operator then asks for at the address of loads.
func (p *kubelets) runPods(ctx context.Context, d *appsv1.Deployment) error {
	for i := range *d.Spec.Replicas {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: d.Name + "-" + strconv.Itoa(int(i)), Namespace: d.Namespace,
				Labels: d.Spec.Template.Labels, Annotations: d.Spec.Template.Annotations,
			},
			Spec: d.Spec.Template.Spec,
		}
		if err := p.client.Create(ctx, pod); err != nil {
			return fmt.Errorf("make pod %s: %w", pod.Name, err)
		}
		container := pod.Spec.Containers[0].Name
		pod.Status.Phase = corev1.PodRunning
		pod.Status.PodIP = podAddress
		pod.Status.PodIPs = []corev1.PodIP{{IP: podAddress}}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: container, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}
		if err := p.client.Status().Update(ctx, pod); err != nil {
			return fmt.Errorf("run pod %s: %w", pod.Name, err)
		}
	}
	return nil
}

// podAddress is the address of every pod.
const podAddress = "127.0.0.1"

// loads answers for all messaging pods how many connections they hold.
type loads struct {
	server *http.Server
	asked  atomic.Int64
}

func startLoads(ctx context.Context) (*loads, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(podAddress, strconv.Itoa(contract.InternalPort)))
	if err != nil {
		return nil, fmt.Errorf("stand in for messaging pods: %w", err)
	}
	l := &loads{}
	l.server = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			l.asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(contract.Load{Live: 1000})
		}),
	}
	go func() { _ = l.server.Serve(listener) }()
	return l, nil
}

func (l *loads) stop() { _ = l.server.Close() }
