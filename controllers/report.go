package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/load"
)

// report writes the status, once and only when it changed, and says when to
// look again. p is nil where nothing could be decided.
func (r *Reconciler) report(ctx context.Context, m *v1alpha1.Marketplace, seen observation, messaging size, p *plan, failure error) (ctrl.Result, error) {
	o := outcomeOf(failure)
	before := m.DeepCopy()
	r.fillStatus(m, seen, messaging, p, o)
	if !equality.Semantic.DeepEqual(before.Status, m.Status) {
		o.failed = errors.Join(o.failed, r.writeStatus(ctx, before, m))
	}
	if o.failed == nil {
		var attempt migration
		if p != nil {
			attempt = p.attempt
		}
		return ctrl.Result{RequeueAfter: r.pause(m, seen, attempt, o)}, nil
	}
	if ctx.Err() != nil {
		// The operator stops: whoever comes next looks at everything anew.
		return ctrl.Result{}, nil //nolint:nilerr // The error is that it stops.
	}
	if transient(o.failed) {
		// The cache will tell what is newer.
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	return ctrl.Result{}, o.failed
}

// writeStatus writes m's status over that of before, and tells in an Event when
// m has taken over a kept volume or has become stalled.
func (r *Reconciler) writeStatus(ctx context.Context, before, m *v1alpha1.Marketplace) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err := r.Client.Status().Patch(ctx, m, patch, client.FieldOwner(FieldOwner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status: %w", err)
	}
	switch id := m.Status.Installation; {
	case id == before.Status.Installation || id == string(m.UID):
	case id == m.Spec.Database.Installation:
		r.event(m, m, corev1.EventTypeNormal, "InstallationAdopted", "database: the data of installation %s is used, as spec.database.installation says", id)
	case m.Spec.Database.External != nil:
		r.event(m, m, corev1.EventTypeNormal, "InstallationAdopted", "database: the data of installation %s is used, as the kept volume %s has it",
			id, desired.NamesOf(m).Component(contract.ComponentDatabase))
	default:
		r.event(m, m, corev1.EventTypeNormal, "VolumeAdopted", "database: the kept volume %s is used, with the data of installation %s",
			desired.NamesOf(m).Component(contract.ComponentDatabase), id)
	}
	r.tellRelease(before, m)
	r.tellActiveKey(m, before.Status.Keys)
	was := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionStalled)
	is := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionStalled)
	if is != nil && (was == nil || was.Message != is.Message) {
		r.event(m, m, corev1.EventTypeWarning, is.Reason, "%s", is.Message)
	}
	return nil
}

// fillStatus computes the whole status.
func (r *Reconciler) fillStatus(m *v1alpha1.Marketplace, seen observation, messaging size, p *plan, o outcome) {
	names := desired.NamesOf(m)
	s := &m.Status
	s.Messaging = r.messagingStatus(m, seen, messaging)
	s.ObservedGeneration = m.Generation
	if !m.Spec.Paused {
		r.pinReleases(m, seen, p)
		if s.Installation == "" {
			s.Installation = seen.installation
		}
	}
	s.Endpoints = endpoints(m)
	if keys := seen.keys(names); keys != nil && seen.rotation != nil {
		s.Keys = keysStatus(seen.rotation, keys.answered)
	}
	seen.settle(m, p)
	setConditions(m, seen, p, o)
}

// messagingStatus is written before the rest: it compares with the generation
// that was observed last.
func (r *Reconciler) messagingStatus(m *v1alpha1.Marketplace, seen observation, wanted size) *v1alpha1.MessagingStatus {
	before := m.Status.Messaging
	next := &v1alpha1.MessagingStatus{
		Selector: labels.SelectorFromSet(desired.SelectorLabels(m, contract.ComponentMessaging)).String(),
	}
	if before != nil {
		next.TargetReplicas, next.ScalingReason = before.TargetReplicas, before.ScalingReason
		next.Connections = before.Connections
	}
	if d := seen.deployment(desired.NamesOf(m), contract.ComponentMessaging); d != nil {
		next.Replicas = d.Status.Replicas
		next.Connections = connectionsStatus(next.Connections, r.Now(), seen.load)
	}
	if m.Spec.Paused {
		return next
	}
	// The reason quotes counts: it is told anew with a new spec, a new size or
	// new counts, not whenever a client comes or goes.
	told := before != nil && before.ScalingReason != "" && before.TargetReplicas == wanted.replicas &&
		m.Status.ObservedGeneration == m.Generation &&
		equality.Semantic.DeepEqual(before.Connections, next.Connections)
	if !told {
		next.ScalingReason = wanted.reason
	}
	next.TargetReplicas = wanted.replicas
	return next
}

func newConnectionsStatus(now time.Time, total load.Total) *v1alpha1.ConnectionsStatus {
	return &v1alpha1.ConnectionsStatus{
		Live:        count(total.Live),
		Draining:    count(total.Draining),
		Pending:     count(total.Pending),
		Forwarded:   count(total.Forwarded),
		UnknownPods: count(total.Missing),
		ObservedAt:  timestamp(now),
	}
}
