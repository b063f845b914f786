package controllers

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
)

var troubleNow = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// ago is a moment before the look.
func ago(d time.Duration) metav1.Time { return metav1.NewTime(troubleNow.Add(-d)) }

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}}
}

func running(since time.Duration) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(since)}}
}

// podWith is a pod of auth with one container.
func podWith(name string, c corev1.ContainerStatus, conditions ...corev1.PodCondition) corev1.Pod {
	c.Name, c.Image = contract.ComponentAuth, "marketplane:one"
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: ago(time.Hour)},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{c}, Conditions: conditions},
	}
}

func condition(t corev1.PodConditionType, since time.Duration, reason, message string) corev1.PodCondition {
	return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: ago(since)}
}

func authTemplate() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name:      contract.ComponentAuth,
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")}},
	}}}}
}

func TestPodTrouble(t *testing.T) {
	unready := func(since time.Duration) corev1.PodCondition {
		return condition(corev1.PodReady, since, "ContainersNotReady", "containers with unready status: [auth]")
	}
	leaving := podWith("p", corev1.ContainerStatus{State: ended(1, "Error", "late")})
	leaving.DeletionTimestamp = new(ago(time.Second))
	evicted := func(since time.Duration) corev1.Pod {
		pod := podWith("p", corev1.ContainerStatus{State: ended(137, "Error", "")}, condition(corev1.PodReady, since, "PodFailed", ""))
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
		return pod
	}
	injected := podWith("p", corev1.ContainerStatus{State: waiting("PodInitializing", "")})
	injected.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "mesh-init", State: waiting("CrashLoopBackOff", "back-off"), LastTerminationState: ended(2, "Error", "no iptables")}}
	tests := map[string]struct {
		pod  corev1.Pod
		want string
	}{
		"runs":        {podWith("p", corev1.ContainerStatus{Ready: true, State: running(time.Hour)}), ""},
		"starts":      {podWith("p", corev1.ContainerStatus{State: waiting("ContainerCreating", "")}, unready(time.Minute)), ""},
		"has started": {podWith("p", corev1.ContainerStatus{State: running(10 * time.Second)}, unready(30*time.Second)), ""},
		"done":        {podWith("p", corev1.ContainerStatus{State: ended(0, "Completed", "")}), ""},
		"goes":        {leaving, ""},
		"no image": {
			podWith("p", corev1.ContainerStatus{State: waiting("ErrImagePull", "rpc error: not found")}),
			"pod p: image marketplane:one of container auth cannot be pulled: rpc error: not found",
		},
		"still no image": {
			podWith("p", corev1.ContainerStatus{State: waiting("ImagePullBackOff", `Back-off pulling image "marketplane:one": ErrImagePull: rpc error: not found`)}),
			"pod p: image marketplane:one of container auth cannot be pulled: rpc error: not found",
		},
		"no image, and no word why": {
			podWith("p", corev1.ContainerStatus{State: waiting("ImagePullBackOff", `Back-off pulling image "marketplane:one"`)}),
			"pod p: image marketplane:one of container auth cannot be pulled: ImagePullBackOff",
		},
		"an image's name that is none": {
			podWith("p", corev1.ContainerStatus{State: waiting("InvalidImageName", "couldn't parse image name")}),
			"pod p: container auth cannot start: InvalidImageName: couldn't parse image name",
		},
		"a Secret that is missing": {
			podWith("p", corev1.ContainerStatus{State: waiting("CreateContainerConfigError", `secret "shop-bus" not found`)}),
			`pod p: container auth cannot start: CreateContainerConfigError: secret "shop-bus" not found`,
		},
		"crashes": {
			podWith("p", corev1.ContainerStatus{State: ended(1, "Error", "no key\n")}),
			"pod p: container auth: it ended with code 1: no key",
		},
		"waits to be started again": {
			podWith("p", corev1.ContainerStatus{State: waiting("CrashLoopBackOff", "back-off 10s"), LastTerminationState: ended(1, "Error", "no key\n")}),
			"pod p: container auth: it ended with code 1: no key",
		},
		"is started again": {
			podWith("p", corev1.ContainerStatus{State: running(time.Second), LastTerminationState: ended(1, "Error", "no key\n")}, unready(time.Hour)),
			"pod p: container auth: it ended with code 1: no key",
		},
		"was started again, and works": {
			podWith("p", corev1.ContainerStatus{Ready: true, State: running(time.Second), LastTerminationState: ended(1, "Error", "no key\n")}), "",
		},
		"ended in silence": {podWith("p", corev1.ContainerStatus{State: ended(137, "Error", "")}), "pod p: container auth: it ended with code 137: Error"},
		"too little memory": {
			podWith("p", corev1.ContainerStatus{State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(137, "OOMKilled", "")}),
			"pod p: container auth was killed (OOMKilled): it needs more memory than it may use, 512Mi; raise spec.auth.resources.limits.memory",
		},
		"an injected container": {injected, "pod p: container mesh-init: it ended with code 2: no iptables"},
		"no room": {
			podWith("p", corev1.ContainerStatus{}, condition(corev1.PodReady, time.Hour, "Unschedulable", ""), condition(corev1.PodScheduled, time.Second, "Unschedulable", "0/2 nodes")),
			"pod p: Unschedulable: 0/2 nodes",
		},
		"evicted":            {evicted(time.Minute), "pod p: Evicted: The node was low on resource: memory."},
		"evicted long since": {evicted(time.Hour), ""},
		"waits for a volume": {
			podWith("p", corev1.ContainerStatus{State: waiting("ContainerCreating", "")}, unready(3*time.Minute)),
			"pod p: container auth has not been created for more than 2m0s: kubectl describe pod p tells of the volume, the Secret or the network that it waits for",
		},
		"never ready": {
			podWith("p", corev1.ContainerStatus{State: running(time.Hour), RestartCount: 3, LastTerminationState: ended(2, "Error", "probe failed")}, unready(2*time.Minute)),
			"pod p: container auth runs and has not been ready for more than 1m0s (restarts: 3); before, it ended with code 2: probe failed",
		},
		"on a lost node": {
			podWith("p", corev1.ContainerStatus{Ready: true, State: running(time.Hour)}, condition(corev1.PodReady, 2*time.Minute, "NodeNotReady", "")),
			"pod p: it runs on node node-1 and does not count as ready: NodeNotReady",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := podTrouble(contract.ComponentAuth, authTemplate(), []corev1.Pod{tt.pod}, troubleNow).text
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("trouble (-want +got):\n%s", diff)
			}
		})
	}
}

// Which pod is told of depends on nothing but the pods: not on the order in
// which they come, nor on which of several equal ones has just been restarted.
func TestPodTroubleIsStable(t *testing.T) {
	of := func(name, revision string, age time.Duration, c corev1.ContainerStatus) corev1.Pod {
		pod := podWith(name, c)
		pod.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: revision}
		pod.CreationTimestamp = ago(age)
		return pod
	}
	crashing := corev1.ContainerStatus{State: waiting("CrashLoopBackOff", ""), LastTerminationState: ended(1, "Error", "no key")}
	crashed := corev1.ContainerStatus{State: ended(1, "Error", "no key")}
	restarted := corev1.ContainerStatus{State: running(time.Second), LastTerminationState: ended(1, "Error", "no key")}
	noImage := corev1.ContainerStatus{State: waiting("ErrImagePull", "not found")}
	fine := corev1.ContainerStatus{Ready: true, State: running(time.Hour)}
	tests := map[string]struct {
		pods []corev1.Pod
		want string
	}{
		"the newest revision before an older one": {
			[]corev1.Pod{of("a", "one", time.Hour, crashing), of("b", "two", time.Minute, noImage)},
			"pod b: image marketplane:one of container auth cannot be pulled: not found",
		},
		"an older one where the newest works": {
			[]corev1.Pod{of("a", "one", time.Hour, crashing), of("b", "two", time.Minute, fine)},
			"pod a: container auth: it ended with code 1: no key",
		},
		"what says more": {
			[]corev1.Pod{of("a", "one", time.Hour, noImage), of("b", "one", time.Minute, crashing), of("c", "one", time.Minute, fine)},
			"pod b: container auth: it ended with code 1: no key",
		},
		"the first of equals": {
			[]corev1.Pod{of("c", "one", time.Minute, crashing), of("a", "one", time.Minute, restarted), of("b", "one", time.Minute, crashed)},
			"pod a: container auth: it ended with code 1: no key",
		},
		"two revisions at one time": {
			[]corev1.Pod{of("a", "one", time.Minute, crashing), of("b", "two", time.Minute, crashing)},
			"pod b: container auth: it ended with code 1: no key",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			permute(tt.pods, func(pods []corev1.Pod) {
				got := podTrouble(contract.ComponentAuth, authTemplate(), pods, troubleNow).text
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("trouble (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// permute calls see with every order of the pods.
func permute(pods []corev1.Pod, see func([]corev1.Pod)) {
	if len(pods) < 2 {
		see(pods)
		return
	}
	for i := range pods {
		rest := slices.Delete(slices.Clone(pods), i, i+1)
		permute(rest, func(order []corev1.Pod) { see(append([]corev1.Pod{pods[i]}, order...)) })
	}
}

// A refusal names another pod at each attempt; the text must not.
func TestPodsRefused(t *testing.T) {
	d := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
		Message: `pods "shop-auth-7b5d6-x2x9z" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4`,
	}}}}
	want := "no pod can be made: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4"
	if diff := cmp.Diff(want, podsRefused(d)); diff != "" {
		t.Errorf("refusal (-want +got):\n%s", diff)
	}
}
