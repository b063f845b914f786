package controllers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Who watches Ready is not called for a tier that grows: neither at its
// beginning, nor when another operator takes over in its midst; but at once
// when a pod of those that ran is lost.
func TestReadyWhileMessagingGrows(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.frozen.Store(true)

	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	watcher, err := w.client.Watch(ctx, &v1alpha1.MarketplaceList{}, client.InNamespace(w.namespace))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var (
		mu       sync.Mutex
		watched  sync.WaitGroup
		notReady []string
	)
	watched.Go(func() {
		for event := range watcher.ResultChan() {
			seen, ok := event.Object.(*v1alpha1.Marketplace)
			if !ok {
				continue
			}
			if c := meta.FindStatusCondition(seen.Status.Conditions, v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue {
				mu.Lock()
				notReady = append(notReady, c.Message)
				mu.Unlock()
			}
		}
	})
	defer func() { cancel(); watcher.Stop(); watched.Wait() }()

	w.scale(m, 4)
	grows := func(available int32) {
		t.Helper()
		w.eventually("messaging grows", func() error {
			w.must(w.get("shop", m))
			want := fmt.Sprintf("MessagingAvailable: %d pods are available, on the way to 4", available)
			ready := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady)
			reconciling := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReconciling)
			if ready.Status != metav1.ConditionTrue || ready.Reason != v1alpha1.ReasonScaling ||
				reconciling == nil || reconciling.Message != want {
				return fmt.Errorf("Ready = %+v, Reconciling = %+v", ready, reconciling)
			}
			return checkConditions(m)
		})
	}
	available := func(n int32) {
		t.Helper()
		d := &appsv1.Deployment{}
		w.must(w.get("shop-messaging", d))
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 4, UpdatedReplicas: 4, ReadyReplicas: n, AvailableReplicas: n}
		w.must(w.client.Status().Update(w.ctx, d))
	}
	grows(2)
	available(3)
	grows(3)
	stop()
	w.startOperator()
	w.looked()
	grows(3)
	mu.Lock()
	if len(notReady) > 0 {
		t.Errorf("not ready while it grew: %q", notReady)
	}
	mu.Unlock()

	available(2)
	w.eventually("the loss is told", func() error {
		w.must(w.get("shop", m))
		if meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("ready")
		}
		return checkConditions(m)
	})
	available(4)
	w.awaitReady(m)
}
