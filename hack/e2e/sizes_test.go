//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/watch"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
)

// size is how many pods a component was asked to have, from a time on.
type size struct {
	replicas int32
	since    time.Time
}

// sizes are all sizes that a Marketplace's components had while it was watched.
type sizes struct {
	mu  sync.Mutex
	all map[string][]size // by component
	err error
}

// watchSizes records the sizes until the test ends.
func watchSizes(t *testing.T, m marketplace) *sizes {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &sizes{all: map[string][]size{}}
	var running sync.WaitGroup
	for _, list := range []kube.ObjectList{&appsv1.DeploymentList{}, &appsv1.StatefulSetList{}} {
		w, err := cluster.kube.Watch(ctx, list, kube.InNamespace(m.namespace), kube.MatchingLabels{contract.LabelMarketplace: m.name})
		if err != nil {
			cancel()
			t.Fatalf("watch %T: %v", list, err)
		}
		running.Go(func() {
			for event := range w.ResultChan() {
				s.note(event)
			}
			if ctx.Err() == nil {
				s.fail(fmt.Errorf("the watch of %T ended", list))
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

func (s *sizes) note(event watch.Event) {
	var (
		component string
		replicas  *int32
	)
	switch o := event.Object.(type) {
	case *appsv1.Deployment:
		component, replicas = o.Labels[contract.LabelComponent], o.Spec.Replicas
	case *appsv1.StatefulSet:
		component, replicas = o.Labels[contract.LabelComponent], o.Spec.Replicas
	default:
		s.fail(fmt.Errorf("the watch told of %v", event.Object))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.all[component]
	if n := len(known); n > 0 && known[n-1].replicas == *replicas {
		return
	}
	s.all[component] = append(known, size{replicas: *replicas, since: time.Now()})
}

func (s *sizes) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// of returns the sizes that a component had, in order.
func (s *sizes) of(component string) ([]size, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all[component]), s.err
}

// reaches says what is missing until the component is asked to have that many
// pods, and all of them are ready.
func (m marketplace) reaches(s *sizes, component string, replicas int) func(context.Context) error {
	return func(ctx context.Context) error {
		had, err := s.of(component)
		if err != nil {
			return err
		}
		if len(had) == 0 || had[len(had)-1].replicas != int32(replicas) {
			return fmt.Errorf("%s had the sizes %v", component, had)
		}
		pods, err := m.pods(ctx, component)
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if isPodReady(p) {
				ready++
			}
		}
		if ready != replicas || len(pods) != replicas {
			return fmt.Errorf("of %d pods of %s %d are ready", len(pods), component, ready)
		}
		return nil
	}
}
