package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// tasksAt is a look at tasks.
type tasksAt struct {
	after      time.Duration
	generation int64
	observed   int64
	image      string
	wanted     int32
	pods       int32 // all of them, of the newest template
	available  int32
	trouble    corev1.ContainerState
	begins     bool // the operator remembers nothing
	want       string
}

// What keeps the number of pods that it had is available all the way to another
// number, however it goes about it; what loses one, or is rolled, is not.
func TestScalingKeepsAvailable(t *testing.T) {
	const available, not = "True", "False"
	full := func(n int32) tasksAt {
		return tasksAt{generation: 1, observed: 1, wanted: n, pods: n, available: n, want: available + " Ready"}
	}
	tests := map[string][]tasksAt{
		"it begins": {
			{generation: 1, wanted: 2, want: not + " Progressing"},
			{generation: 1, observed: 1, wanted: 2, pods: 2, available: 1, want: not + " Progressing"},
			full(2),
		},
		"it grows": {
			full(2),
			{generation: 2, observed: 1, wanted: 4, pods: 2, available: 2, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 2, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 4, want: available + " Ready"},
		},
		"it shrinks": {
			full(4),
			{generation: 2, observed: 1, wanted: 1, pods: 4, available: 4, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 1, pods: 1, available: 1, want: available + " Ready"},
		},
		"it grows, and loses one that had come": {
			full(2),
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 2, want: not + " Progressing"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
		},
		"it grows, and loses one that it had": {
			full(2),
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 1, want: not + " Progressing"},
		},
		"it loses one": {
			full(3),
			{generation: 1, observed: 1, wanted: 3, pods: 3, available: 2, want: not + " Progressing"},
		},
		"it is rolled": {
			full(2),
			{generation: 2, observed: 1, image: "two", wanted: 2, pods: 2, available: 2, want: not + " Progressing"},
			{generation: 2, observed: 2, image: "two", wanted: 2, pods: 3, available: 2, want: not + " Progressing"},
			{generation: 2, observed: 2, image: "two", wanted: 2, pods: 2, available: 2, want: available + " Ready"},
		},
		"it grows and is rolled at once": {
			full(2),
			{generation: 2, observed: 1, image: "two", wanted: 3, pods: 2, available: 2, want: not + " Progressing"},
		},
		"it turns back midway": {
			full(2),
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 2, want: available + " Scaling"},
			{generation: 3, observed: 2, wanted: 2, pods: 4, available: 2, want: available + " Scaling"},
			{generation: 3, observed: 3, wanted: 2, pods: 2, available: 2, want: available + " Ready"},
		},
		"the cluster has no room for a while": {
			full(2),
			{after: time.Minute, generation: 2, observed: 2, wanted: 3, pods: 3, available: 2, trouble: waiting("", ""), want: available + " Scaling"},
			{after: 9 * time.Minute, generation: 2, observed: 2, wanted: 3, pods: 3, available: 2, want: available + " Scaling"},
			{after: 12 * time.Minute, generation: 2, observed: 2, wanted: 3, pods: 3, available: 2, want: not + " Progressing"},
		},
		"it comes nearer, slowly": {
			full(2),
			{after: time.Hour, generation: 2, observed: 2, wanted: 4, pods: 4, available: 2, want: available + " Scaling"},
			{after: time.Hour + 9*time.Minute, generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
			{after: time.Hour + 18*time.Minute, generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
		},
		"what comes crashes": {
			full(2),
			{generation: 2, observed: 2, wanted: 3, pods: 3, available: 2, trouble: ended(1, "Error", "no key"), want: not + " PodFailing"},
		},
		"the operator begins anew midway": {
			full(2),
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
			{begins: true, generation: 2, observed: 2, wanted: 4, pods: 4, available: 3, want: available + " Scaling"},
			{generation: 2, observed: 2, wanted: 4, pods: 4, available: 2, want: not + " Progressing"},
		},
		"the operator begins anew, and a pod is lost": {
			full(2),
			{begins: true, generation: 1, observed: 1, wanted: 2, pods: 2, available: 1, want: not + " Progressing"},
		},
	}
	for name, looks := range tests {
		t.Run(name, func(t *testing.T) {
			m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "m"}}
			remembered := map[string]settled{}
			var got, want []string
			for i, look := range looks {
				if look.begins {
					remembered = map[string]settled{}
				}
				m.Spec.Tasks.Replicas = &looks[i].wanted
				seen := look.observation(m, remembered)
				p := &plan{migrationState: migrationSucceeded}
				seen.settle(m, p)
				s := serviceState(m, seen, p, contract.ComponentTasks)
				set(m, v1alpha1.ConditionTasksAvailable, s.ok, s.reason, s.message)
				c := m.Status.Conditions[0]
				got = append(got, fmt.Sprint(c.Status, " ", c.Reason))
				want = append(want, look.want)
				if s.growing != strings.HasSuffix(look.want, "Scaling") {
					t.Errorf("look %d: growing = %v: %s", i, s.growing, s.message)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

func (l tasksAt) observation(m *v1alpha1.Marketplace, remembered map[string]settled) observation {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: "shop-tasks", UID: "d", Generation: l.generation,
			OwnerReferences: []metav1.OwnerReference{{UID: m.UID, Controller: new(true)}},
		},
		Spec: appsv1.DeploymentSpec{Replicas: new(l.wanted)},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: l.observed, Replicas: l.pods, UpdatedReplicas: l.pods,
			ReadyReplicas: l.available, AvailableReplicas: l.available,
		},
	}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: contract.ComponentTasks, Image: l.image}}
	pod := podWith("p", corev1.ContainerStatus{State: l.trouble})
	return observation{
		owner:   m.UID,
		objects: map[objectKey]client.Object{{kindDeployment, d.Name}: d},
		pods:    map[string][]corev1.Pod{contract.ComponentTasks: {pod}},
		settled: remembered,
		at:      troubleNow.Add(l.after),
	}
}

// Ready stays True while a service grows, and Reconciling tells of it.
func TestSummaryWhileScaling(t *testing.T) {
	m := &v1alpha1.Marketplace{}
	concerns := []concern{
		{v1alpha1.ConditionAuthAvailable, ready("2 of 2 pods are available")},
		{v1alpha1.ConditionMessagingAvailable, growing(2, 3, "pod p: Unschedulable: 0/2 nodes")},
	}
	summarise(m, concerns, nil, outcome{})
	var got []string
	for _, c := range m.Status.Conditions {
		got = append(got, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	want := []string{
		"Ready=True Scaling: every part is available; MessagingAvailable: 2 pods are available, on the way to 3; pod p: Unschedulable: 0/2 nodes",
		"Reconciling=True Scaling: MessagingAvailable: 2 pods are available, on the way to 3; pod p: Unschedulable: 0/2 nodes",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}
