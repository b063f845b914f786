package controllers_test

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// positive are the conditions of which True is good, and which are always there.
var positive = []string{
	v1alpha1.ConditionReady, v1alpha1.ConditionDatabaseReady, v1alpha1.ConditionSchemaCurrent,
	v1alpha1.ConditionBusReady, v1alpha1.ConditionAuthAvailable, v1alpha1.ConditionTasksAvailable,
	v1alpha1.ConditionMessagingAvailable, v1alpha1.ConditionKeysCurrent,
}

// checkConditions complains about conditions that contradict each other or
// kstatus.
func checkConditions(m *v1alpha1.Marketplace) error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	conditions := m.Status.Conditions
	known := map[string]bool{v1alpha1.ConditionReconciling: true, v1alpha1.ConditionStalled: true, v1alpha1.ConditionScalingConflict: true}
	positive := positive
	if m.Spec.Exposure != nil {
		positive = append(slices.Clone(positive), v1alpha1.ConditionExposed)
	}
	if m.Spec.Messaging.Notifications != nil {
		positive = append(slices.Clone(positive), v1alpha1.ConditionNotificationsReady)
	}
	for _, t := range positive {
		known[t] = true
		if meta.FindStatusCondition(conditions, t) == nil {
			complain("condition %s is missing", t)
		}
	}
	for _, c := range conditions {
		if !known[c.Type] {
			complain("condition %s is not documented", c.Type)
		}
		if c.Reason == "" || c.Message == "" {
			complain("condition %s has no reason or no message", c.Type)
		}
		if c.ObservedGeneration != m.Generation {
			complain("condition %s is about generation %d of %d", c.Type, c.ObservedGeneration, m.Generation)
		}
	}
	if m.Status.ObservedGeneration != m.Generation {
		complain("the status is about generation %d of %d", m.Status.ObservedGeneration, m.Generation)
	}
	ready := meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReady)
	reconciling := meta.FindStatusCondition(conditions, v1alpha1.ConditionReconciling)
	stalled := meta.FindStatusCondition(conditions, v1alpha1.ConditionStalled)
	for _, c := range []*metav1.Condition{reconciling, stalled} {
		if c != nil && c.Status != metav1.ConditionTrue {
			complain("condition %s is there and not True", c.Type)
		}
		if c != nil && ready && (c != reconciling || c.Reason != v1alpha1.ReasonScaling) {
			complain("Ready and %s", c.Type)
		}
	}
	if reconciling != nil && stalled != nil {
		complain("Reconciling and Stalled")
	}
	if !ready && reconciling == nil && stalled == nil && !m.Spec.Paused {
		complain("neither Ready nor Reconciling nor Stalled")
	}
	if ready {
		for _, t := range positive {
			if !meta.IsStatusConditionTrue(conditions, t) {
				complain("Ready, and %s is not True", t)
			}
		}
	}
	return errors.Join(errs...)
}

// isReady complains unless the Marketplace is ready, now, for this spec, and at
// the size that is wanted.
func (w *world) isReady(m *v1alpha1.Marketplace) error {
	if err := w.get(m.Name, m); err != nil {
		return err
	}
	if err := checkConditions(m); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue {
		return fmt.Errorf("not ready: %s: %s", ready.Reason, ready.Message)
	}
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReconciling); c != nil {
		return fmt.Errorf("not there yet: %s: %s", c.Reason, c.Message)
	}
	return nil
}

// awaitReady waits until the Marketplace is ready.
func (w *world) awaitReady(m *v1alpha1.Marketplace) {
	w.t.Helper()
	w.eventually("ready", func() error { return w.isReady(m) })
}

// awaitStalled waits until the Marketplace is stalled for this reason, and
// returns the message.
func (w *world) awaitStalled(m *v1alpha1.Marketplace, reason string) string {
	w.t.Helper()
	var message string
	w.eventually("stalled", func() error {
		if err := w.get(m.Name, m); err != nil {
			return err
		}
		if err := checkConditions(m); err != nil {
			return err
		}
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionStalled)
		if c == nil || c.Reason != reason {
			return fmt.Errorf("not stalled for %s: %+v", reason, m.Status.Conditions)
		}
		message = c.Message
		return nil
	})
	return message
}
