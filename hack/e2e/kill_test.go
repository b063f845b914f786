//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// The loss of any one pod, without a warning, delays what users do and does not
// make it fail.
func TestLosingAPodDelaysAndFailsNothing(t *testing.T) {
	spec := small()
	spec.Messaging.Replicas = new(int32(2))
	spec.Bus.Embedded = &v1alpha1.EmbeddedBus{Replicas: 3}
	m := start(t, "kill", spec)
	urls := m.urls(t)

	of := func(component string) func(context.Context) ([]corev1.Pod, error) {
		return func(ctx context.Context) ([]corev1.Pod, error) { return m.pods(ctx, component) }
	}
	for _, tt := range []struct {
		kind string
		pods func(context.Context) ([]corev1.Pod, error)
		port int // one that the process listens on
	}{
		{contract.ComponentAuth, of(contract.ComponentAuth), contract.InternalPort},
		{contract.ComponentTasks, of(contract.ComponentTasks), contract.InternalPort},
		{contract.ComponentMessaging, of(contract.ComponentMessaging), contract.InternalPort},
		{contract.ComponentBus, of(contract.ComponentBus), contract.InternalPort},
		{contract.ComponentDatabase, of(contract.ComponentDatabase), contract.DatabasePort},
		{"operator", operatorPods, operatorProbes},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			before, err := tt.pods(t.Context())
			if err != nil || len(before) == 0 {
				t.Fatalf("%d pods of %s: %v", len(before), tt.kind, err)
			}
			stories := tellStories(t, urls)
			victim := &before[0]
			if err := cluster.kube.Delete(t.Context(), victim, kube.GracePeriodSeconds(0)); err != nil {
				t.Fatalf("kill %s: %v", victim.Name, err)
			}
			eventually(t, 2*time.Minute, "another "+tt.kind+" pod is ready", func(ctx context.Context) error {
				now, err := tt.pods(ctx)
				if err != nil {
					return err
				}
				return replaced(now, *victim, len(before))
			})
			// The object goes at once, the process a moment later.
			eventually(t, time.Minute, "the killed process is dead", func(ctx context.Context) error {
				return isDead(ctx, victim.Status.PodIP, tt.port)
			})
			stories.another(t)
			m.waitReady(t)
			told, err := stories.end()
			if err != nil {
				t.Fatal(err)
			}
			t.Log(told)
		})
	}
}

// operatorProbes is the port of the operator's probes.
const operatorProbes = 8081

// isDead says what is missing until nothing listens on the port any more.
func isDead(ctx context.Context, address string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s still listens on port %d", address, port)
	}
	return nil
}

func operatorPods(ctx context.Context) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	err := cluster.kube.List(ctx, list, kube.InNamespace(systemNamespace),
		kube.MatchingLabels{"app.kubernetes.io/name": "marketplane-operator"})
	return list.Items, err
}

// replaced says what is missing until the victim is gone and as many pods as
// before are ready.
func replaced(pods []corev1.Pod, victim corev1.Pod, want int) error {
	ready := 0
	for _, p := range pods {
		if p.UID == victim.UID {
			return errors.New("the killed pod is still there")
		}
		if isPodReady(p) {
			ready++
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d pods are ready", ready, want)
	}
	return nil
}

func isPodReady(p corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}
