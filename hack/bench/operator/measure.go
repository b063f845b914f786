package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

const (
	// teams is how many namespaces the Marketplaces lie in.
	teams = 10
	// creators is how many create Marketplaces at once.
	creators = 4
	// patience is how long any one phase may last.
	patience = 20 * time.Minute
	// changes is how many fields are changed, one after the other.
	changes = 10
)

// result is what one size came to.
type result struct {
	marketplaces int
	// applied is the time from the first Marketplace to the last Deployment.
	applied time.Duration
	// fill and quiet are the operator's requests until then, and in the quiet
	// time.
	fill, quiet counts
	// fillProcessor is the operator's processor time until then.
	fillProcessor time.Duration
	// quietProcessor is the share of a processor in the quiet time.
	quietProcessor float64
	fillLooks      int
	quietLooks     int
	// quietAsked is how often pods were asked for their connections.
	quietAsked int64
	// peak and after are the operator's memory, at most and after all.
	peak, after int64
	// change is the longest time until a changed field was applied.
	change time.Duration
}

func (r result) String() string {
	objects := len(r.fill.byObject)
	most, which := r.fill.most()
	return fmt.Sprintf(`%d Marketplaces
  applied after         %.1f s, with %.1f s of processor time in %d looks
  writes until then     %d to %d objects, at most %d to one (%s); %d Events
                        %s
                        answered with an error: %s
  reads until then      %d: %s
  memory                %d MiB at the peak, %d MiB at the end
  the quiet time        %d writes, %d Events, %d of the Lease; %d looks, %d pods asked, %.1f%% of a processor
  a changed field       applied after %.2f s at most (%d tried)
`,
		r.marketplaces,
		r.applied.Seconds(), r.fillProcessor.Seconds(), r.fillLooks,
		r.fill.writes(), objects, most, which, r.fill.events,
		table(r.fill.byKind), table(r.fill.refused),
		r.fill.readSum(), table(r.fill.reads),
		r.peak>>20, r.after>>20,
		r.quiet.writes(), r.quiet.events, r.quiet.leases, r.quietLooks, r.quietAsked, 100*r.quietProcessor,
		r.change.Seconds(), changes)
}

// bench is one run in a cluster of its own.
type bench struct {
	config   config
	back     *backends
	dir      string
	n        int
	cluster  *cluster
	kubelets *kubelets
	loads    *loads
	operator *operator
	audit    *auditLog
}

func measure(ctx context.Context, c config, back *backends, n int) (result, error) {
	b := bench{config: c, back: back, n: n, dir: filepath.Join(c.dir, strconv.Itoa(n))}
	r := result{marketplaces: n}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return r, err
	}
	var err error
	if b.cluster, err = startCluster(ctx, b.dir); err != nil {
		return r, err
	}
	defer b.cluster.stop()
	if b.kubelets, err = startKubelets(ctx, b.cluster); err != nil {
		return r, err
	}
	defer b.kubelets.stop()
	if b.loads, err = startLoads(ctx); err != nil {
		return r, err
	}
	defer b.loads.stop()
	if b.operator, err = startOperator(c.operator, b.cluster.kubeconfig, b.dir); err != nil {
		return r, err
	}
	defer b.operator.Stop()
	b.audit = &auditLog{path: b.cluster.audit}

	for _, phase := range []struct {
		name string
		do   func(context.Context, *result) error
	}{
		{"start", b.start},
		{"fill", b.fill},
		{"settle", b.settle},
		{"quiet", b.rest},
		{"change", b.change},
	} {
		ctx, cancel := context.WithTimeout(ctx, patience)
		err := phase.do(ctx, &r)
		cancel()
		if err != nil {
			return r, fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	return r, b.keepHeap(ctx)
}

func (b *bench) keepHeap(ctx context.Context) error {
	return b.operator.keepProfile(ctx, b.dir, "heap", "heap")
}

// failed returns what has gone wrong in any part meanwhile.
func (b *bench) failed() error {
	if err := b.operator.Failed(); err != nil {
		return err
	}
	return b.kubelets.failed()
}

// until waits until done, and no longer than all parts work.
func (b *bench) until(ctx context.Context, done func(context.Context) (bool, error)) error {
	return wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		if err := b.failed(); err != nil {
			return false, err
		}
		return done(ctx)
	})
}

// start waits until the operator leads, and makes what Marketplaces need.
func (b *bench) start(ctx context.Context, _ *result) error {
	for i := range teams {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team(i)}}
		if err := b.cluster.client.Create(ctx, ns); err != nil {
			return err
		}
		if b.back == nil {
			continue
		}
		for _, secret := range b.back.secrets(ns.Name) {
			if err := b.cluster.client.Create(ctx, secret); err != nil {
				return err
			}
		}
	}
	// One Marketplace shows that the operator works, and is not counted.
	first := b.marketplace(0)
	first.Name = "first"
	if err := b.cluster.client.Create(ctx, first); err != nil {
		return err
	}
	return b.until(ctx, func(context.Context) (bool, error) {
		return b.kubelets.deployments.Load() == int64(len(contract.Services())), nil
	})
}

func team(i int) string { return fmt.Sprintf("team-%d", i) }

// marketplace is the i-th.
func (b *bench) marketplace(i int) *v1alpha1.Marketplace {
	m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Namespace: team(i % teams), Name: fmt.Sprintf("shop-%d", i)}}
	if b.back != nil {
		b.back.shape(&m.Spec)
	}
	return m
}

// fill creates all, and waits until all is applied.
func (b *bench) fill(ctx context.Context, r *result) error {
	if _, err := b.audit.next(); err != nil {
		return err
	}
	processor, err := b.operator.Processor()
	if err != nil {
		return err
	}
	looks, err := b.operator.looks(ctx)
	if err != nil {
		return err
	}
	var profiled sync.WaitGroup
	profiled.Go(func() {
		_ = b.operator.keepProfile(ctx, b.dir, "fill", "profile?seconds=20")
	})
	defer profiled.Wait()

	begin := time.Now()
	if err := b.createAll(ctx); err != nil {
		return err
	}
	want := int64(len(contract.Services()) * (b.n + 1))
	err = b.until(ctx, func(context.Context) (bool, error) { return b.kubelets.deployments.Load() >= want, nil })
	if err != nil {
		return fmt.Errorf("%d of %d Deployments are there: %w", b.kubelets.deployments.Load(), want, err)
	}
	r.applied = b.kubelets.lastDeployment.Load().Sub(begin)
	after, err := b.operator.Processor()
	if err != nil {
		return err
	}
	r.fillProcessor = after - processor
	if r.fillLooks, err = b.operator.looks(ctx); err != nil {
		return err
	}
	r.fillLooks -= looks
	return nil
}

func (b *bench) createAll(ctx context.Context) error {
	numbers := make(chan int)
	errs := make(chan error, creators)
	for range creators {
		go func() {
			var err error
			for i := range numbers {
				if err == nil {
					err = b.cluster.client.Create(ctx, b.marketplace(i))
				}
			}
			errs <- err
		}()
	}
	for i := range b.n {
		numbers <- i
	}
	close(numbers)
	var failed error
	for range creators {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

// settle waits until the operator has told that all is applied, counts what it
// wrote, and then lets everything run.
func (b *bench) settle(ctx context.Context, r *result) error {
	if err := b.silence(ctx); err != nil {
		return err
	}
	var err error
	if r.fill, err = b.audit.next(); err != nil {
		return err
	}
	if err := b.kubelets.runAll(ctx); err != nil {
		return err
	}
	err = b.until(ctx, func(ctx context.Context) (bool, error) {
		var all v1alpha1.MarketplaceList
		if err := b.cluster.client.List(ctx, &all); err != nil {
			return false, err
		}
		for i := range all.Items {
			if !meta.IsStatusConditionTrue(all.Items[i].Status.Conditions, v1alpha1.ConditionReady) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("not every Marketplace becomes ready: %w", err)
	}
	return b.silence(ctx)
}

// silence waits until the operator has written nothing but its Lease for some
// seconds. What it writes about connections may come a minute after the pods.
func (b *bench) silence(ctx context.Context) error {
	const enough = 5 * time.Second
	probe := *b.audit
	since := time.Now()
	return b.until(ctx, func(context.Context) (bool, error) {
		c, err := probe.next()
		if err != nil {
			return false, err
		}
		if c.writes()+c.events > 0 {
			since = time.Now()
		}
		return time.Since(since) > enough, nil
	})
}

// rest looks on while nothing changes.
func (b *bench) rest(ctx context.Context, r *result) error {
	// The connections of the last pods are told once more.
	if err := b.pause(ctx, connectionsInterval); err != nil {
		return err
	}
	if _, err := b.audit.next(); err != nil {
		return err
	}
	looks, err := b.operator.looks(ctx)
	if err != nil {
		return err
	}
	before, err := b.operator.Processor()
	if err != nil {
		return err
	}
	asked := b.loads.asked.Load()
	if err := b.pause(ctx, b.config.quiet); err != nil {
		return err
	}
	if r.quiet, err = b.audit.next(); err != nil {
		return err
	}
	after, err := b.operator.Processor()
	if err != nil {
		return err
	}
	r.quietProcessor = (after - before).Seconds() / b.config.quiet.Seconds()
	r.quietAsked = b.loads.asked.Load() - asked
	if r.quietLooks, err = b.operator.looks(ctx); err != nil {
		return err
	}
	r.quietLooks -= looks
	r.after, r.peak, err = b.operator.Memory()
	return err
}

// connectionsInterval is a little longer than the pause between two looks at
// the connections of messaging pods.
const connectionsInterval = 70 * time.Second

func (b *bench) pause(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return b.until(ctx, func(context.Context) (bool, error) { return time.Now().After(end), nil })
}

// change changes a field of one Marketplace after the other.
func (b *bench) change(ctx context.Context, r *result) error {
	for i := range changes {
		m := b.marketplace(i * b.n / changes)
		if err := b.cluster.client.Get(ctx, client.ObjectKeyFromObject(m), m); err != nil {
			return err
		}
		before := m.DeepCopy()
		replicas := int32(3)
		m.Spec.Tasks.Replicas = &replicas
		begin := time.Now()
		if err := b.cluster.client.Patch(ctx, m, client.MergeFrom(before)); err != nil {
			return err
		}
		key := client.ObjectKey{Namespace: m.Namespace, Name: m.Name + "-" + contract.ComponentTasks}
		err := b.until(ctx, func(ctx context.Context) (bool, error) {
			d := &appsv1.Deployment{}
			if err := b.kubelets.cache.Get(ctx, key, d); err != nil {
				return false, err
			}
			return *d.Spec.Replicas == replicas, nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		r.change = max(r.change, time.Since(begin))
	}
	return nil
}
