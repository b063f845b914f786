package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/autoscale"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/load"
)

// loadFresh is how old a look at the connections may be to be used again, so
// that a burst of changes to objects does not become a burst of requests.
const loadFresh = time.Second

// size is how many messaging pods are wanted, and why.
type size struct {
	replicas int32
	reason   string
}

// observeLoad asks every messaging pod that runs for its connections. Those
// that terminate count too: what they hold comes back to the others.
func (r *Reconciler) observeLoad(ctx context.Context, mem *memory, seen *observation) {
	if age := r.Now().Sub(mem.loadAt); age >= 0 && age < loadFresh {
		seen.load = mem.load
		return
	}
	pods := runningPods(seen.pods[contract.ComponentMessaging], contract.ComponentMessaging)
	total, err := mem.tier.Sum(ctx, r.Load, pods, r.Now())
	if err != nil {
		ctrl.LoggerFrom(ctx).V(1).Info("some pods did not tell their connections", "missing", total.Missing, "reason", err.Error())
	}
	mem.load, mem.loadAt = total, r.Now()
	seen.load = total
}

// runningPods are those whose container runs: others hold no connection.
func runningPods(pods []corev1.Pod, container string) []load.Pod {
	var running []load.Pod
	for i := range pods {
		pod := &pods[i]
		if pod.Status.PodIP == "" {
			continue
		}
		for _, status := range pod.Status.ContainerStatuses {
			if status.Name == container && status.State.Running != nil {
				running = append(running, load.Pod{
					Name:        pod.Name,
					Address:     pod.Status.PodIP,
					Terminating: pod.DeletionTimestamp != nil,
				})
			}
		}
	}
	return running
}

// decideSize says how many messaging pods there should be.
func (r *Reconciler) decideSize(m *v1alpha1.Marketplace, mem *memory, seen observation) size {
	spec := m.Spec.Messaging
	name := desired.NamesOf(m).Component(contract.ComponentMessaging)
	d := seen.deployment(desired.NamesOf(m), contract.ComponentMessaging)
	if rival := seen.rival(kindDeployment, name); rival != nil && d != nil && replicasIn(d) > 0 {
		mem.history, mem.size = autoscale.History{}, 0
		return size{replicasIn(d), fmt.Sprintf("left to HorizontalPodAutoscaler %s, which scales Deployment %s", rival.Name, name)}
	}
	if spec.Autoscaling == nil {
		mem.history, mem.size = autoscale.History{}, 0
		return size{spec.ReplicasOrDefault(), "as spec.messaging.replicas says"}
	}
	policy := autoscale.Policy{
		Min:           spec.Autoscaling.MinReplicasOrDefault(),
		Max:           spec.Autoscaling.MaxReplicas,
		Target:        spec.Autoscaling.TargetConnectionsOrDefault(),
		Stabilization: spec.Autoscaling.ScaleDownStabilization(),
	}
	recommendation, history := autoscale.Recommend(policy, mem.history, autoscale.Observation{
		Now:     r.Now(),
		Current: currentSize(m, mem, seen, policy.Min),
		Demand:  seen.load.Demand(),
		Told:    seen.load.Told,
		Missing: seen.load.Missing,
	})
	mem.history, mem.size = history, recommendation.Replicas
	return size{recommendation.Replicas, recommendation.Reason}
}

// currentSize is how many messaging pods are wanted at present: what the
// Deployment says, or, where it was deleted, what was last decided. A cache
// that lags behind the last scale-up would let the next look undo it without
// waiting for the window.
func currentSize(m *v1alpha1.Marketplace, mem *memory, seen observation, otherwise int32) int32 {
	d := seen.deployment(desired.NamesOf(m), contract.ComponentMessaging)
	switch {
	case d != nil && mem.size > 0 && seen.generation(kindDeployment, d) > d.GetGeneration():
		return mem.size
	case d != nil && d.Spec.Replicas != nil:
		return *d.Spec.Replicas
	case m.Status.Messaging != nil && m.Status.Messaging.TargetReplicas > 0:
		return m.Status.Messaging.TargetReplicas
	default:
		return otherwise
	}
}

// connectionsStatus is what the status tells of the connections. To spare
// writes it stays as it was unless a count changed by a tenth or more, or
// changed at all and was written half a minute ago.
func connectionsStatus(before *v1alpha1.ConnectionsStatus, now time.Time, total load.Total) *v1alpha1.ConnectionsStatus {
	next := newConnectionsStatus(now, total)
	if before == nil {
		return next
	}
	changed, much := false, false
	for _, c := range [][2]int32{
		{before.Live, next.Live},
		{before.Draining, next.Draining},
		{before.Pending, next.Pending},
		{before.Forwarded, next.Forwarded},
		{before.UnknownPods, next.UnknownPods},
	} {
		difference := max(c[0]-c[1], c[1]-c[0])
		changed = changed || difference > 0
		much = much || difference > 0 && int64(difference)*10 >= int64(c[0])
	}
	if much || changed && now.Sub(before.ObservedAt.Time) >= connectionsInterval {
		return next
	}
	return before
}

// connectionsInterval is how often small changes of the connections are told.
const connectionsInterval = 30 * time.Second

// scalingText says to what size messaging was brought, and why.
func scalingText(from int32, to size) string {
	return fmt.Sprintf("scaled from %d to %d: %s", from, to.replicas, to.reason)
}
