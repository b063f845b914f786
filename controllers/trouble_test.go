package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// A pod that crashes, starts and crashes again is told once.
func TestCrashLoopIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.eventually("the database is applied", func() error { return w.get("shop-database", &appsv1.StatefulSet{}) })

	ended := &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: "no space left", FinishedAt: metav1.Now()}
	pod := w.pod("shop-database-0", desired.SelectorLabels(m, contract.ComponentDatabase), "database", nil)
	pod.Labels[desired.LabelManagedBy] = desired.ManagedBy
	w.must(w.client.Update(w.ctx, pod))
	restarts := int32(0)
	crash := func() {
		restarts++
		for _, state := range []corev1.ContainerState{
			{Terminated: ended},
			{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off %ds", 10*restarts)}},
			{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		} {
			pod.Status.Phase = corev1.PodRunning
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
				Name: "database", RestartCount: restarts, State: state, LastTerminationState: corev1.ContainerState{Terminated: ended},
			}}
			w.must(w.client.Status().Update(w.ctx, pod))
			w.looked()
		}
	}
	crash()
	w.must(w.get("shop", m))
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionDatabaseReady)
	if c.Reason != v1alpha1.ReasonPodFailing || !strings.Contains(c.Message, "no space left") {
		t.Fatalf("DatabaseReady = %+v", c)
	}
	before := w.versions(m)
	crash()
	crash()
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("the same crash was written anew (-before +after):\n%s", diff)
	}
}

// A pod that cannot start is told in the status of what it belongs to.
func TestPodThatCannotStartIsTold(t *testing.T) {
	tests := map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"its image cannot be pulled": {
			corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
				Name: "database", Image: "postgres:17",
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "rpc error: not found"}},
			}}},
			"pod shop-database-0: image postgres:17 of container database cannot be pulled: rpc error: not found",
		},
		"no node takes it": {
			corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
				Message: "0/2 nodes are available: 2 Insufficient memory.", LastTransitionTime: metav1.Now(),
			}}},
			"pod shop-database-0: Unschedulable: 0/2 nodes are available: 2 Insufficient memory.",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			m := w.marketplace("shop", "")
			w.eventually("the database is applied", func() error { return w.get("shop-database", &appsv1.StatefulSet{}) })
			pod := w.pod("shop-database-0", desired.SelectorLabels(m, contract.ComponentDatabase), "database", nil)
			pod.Labels[desired.LabelManagedBy] = desired.ManagedBy
			w.must(w.client.Update(w.ctx, pod))
			pod.Status = tt.status
			w.must(w.client.Status().Update(w.ctx, pod))
			w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonPodFailing, tt.want)
			if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady); c.Reason != v1alpha1.ReasonPodFailing || !strings.Contains(c.Message, tt.want) {
				t.Errorf("Ready = %+v", *c)
			}
		})
	}
}
