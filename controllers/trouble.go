package controllers

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	// notReadyFor is how long a pod may run without being ready before that is
	// told as a failure.
	notReadyFor = time.Minute
	// creatingFor is the same for one whose containers are being created.
	creatingFor = 2 * time.Minute
	// evictionTold is how long an eviction is told as the reason why a pod is
	// missing.
	evictionTold = 10 * time.Minute
)

// rank orders failures: those first that say most about what is wrong.
type rank int

const (
	rankCrash rank = iota
	rankStart
	rankUnschedulable
	rankEvicted
	rankCreating
	rankNotReady
	rankNone
)

// trouble is why a pod does not do its work.
type trouble struct {
	rank rank
	text string
}

// podTrouble tells of the one pod of a component whose failure says most; it
// is of rankNone where none fails. Pods of the newest revision come first, and among
// equals the order of names decides: the same trouble has the same text at
// every look, or else the status would be written again and again. template is
// what the pods are made from.
func podTrouble(component string, template corev1.PodTemplateSpec, pods []corev1.Pod, now time.Time) trouble {
	newest := newestRevision(pods)
	found, foundOld, foundName := trouble{rank: rankNone}, true, ""
	for i := range pods {
		pod := &pods[i]
		t := troubleOf(pod, component, template, now)
		if t.rank == rankNone {
			continue
		}
		old := revisionOf(pod) != newest
		if found.rank == rankNone || before(old, foundOld, cmp.Or(cmp.Compare(t.rank, found.rank), strings.Compare(pod.Name, foundName))) {
			found, foundOld, foundName = t, old, pod.Name
		}
	}
	if found.rank < rankNone {
		found.text = fmt.Sprintf("pod %s: %s", foundName, found.text)
	}
	return found
}

// before says whether one of the newest revision is compared with an old one,
// or, among those of the same kind, comes first by order.
func before(old, foundOld bool, order int) bool {
	if old != foundOld {
		return foundOld
	}
	return order < 0
}

// revisionOf names what a pod was made from.
func revisionOf(pod *corev1.Pod) string {
	return cmp.Or(pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey], pod.Labels[appsv1.ControllerRevisionHashLabelKey])
}

// newestRevision is that of the pod that was made last.
func newestRevision(pods []corev1.Pod) string {
	var newest *corev1.Pod
	for i := range pods {
		pod := &pods[i]
		if newest == nil || newest.CreationTimestamp.Before(&pod.CreationTimestamp) ||
			newest.CreationTimestamp.Equal(&pod.CreationTimestamp) && revisionOf(newest) < revisionOf(pod) {
			newest = pod
		}
	}
	if newest == nil {
		return ""
	}
	return revisionOf(newest)
}

// troubleOf tells why one pod does not do its work. One that goes has none.
func troubleOf(pod *corev1.Pod, component string, template corev1.PodTemplateSpec, now time.Time) trouble {
	if pod.DeletionTimestamp != nil {
		return trouble{rank: rankNone}
	}
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		if now.Sub(lastTransition(pod)) < evictionTold {
			return trouble{rankEvicted, fmt.Sprintf("%s: %s", pod.Status.Reason, tail(pod.Status.Message))}
		}
		return trouble{rank: rankNone}
	}
	found := trouble{rank: rankNone}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, c := range statuses {
			if t := containerTrouble(c, component, template, now); t.rank < found.rank {
				found = t
			}
		}
	}
	if found.rank < rankNone {
		return found
	}
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionFalse {
			continue
		}
		switch c.Type {
		case corev1.PodScheduled:
			return trouble{rankUnschedulable, fmt.Sprintf("%s: %s", c.Reason, c.Message)}
		case corev1.PodReady:
			if t := notReady(pod, c, now); t.rank < found.rank {
				found = t
			}
		default: // Those that both rest on.
		}
	}
	return found
}

// containerTrouble tells why a container does not run. That it crashes again
// and again is told in the same words whether it has just ended, waits for its
// next start, or has just begun anew.
func containerTrouble(c corev1.ContainerStatus, component string, template corev1.PodTemplateSpec, now time.Time) trouble {
	last := c.LastTerminationState.Terminated
	switch {
	case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
		return crash(c.Name, c.State.Terminated, component, template)
	case c.State.Running != nil && !c.Ready && last != nil && last.ExitCode != 0 &&
		now.Sub(c.State.Running.StartedAt.Time) < notReadyFor:
		return crash(c.Name, last, component, template)
	case c.State.Waiting == nil:
		return trouble{rank: rankNone}
	}
	waiting := c.State.Waiting
	switch waiting.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return trouble{rank: rankNone}
	case "CrashLoopBackOff":
		if last != nil {
			return crash(c.Name, last, component, template)
		}
	case "ErrImagePull", "ImagePullBackOff":
		cause := strings.TrimSpace(backingOff.ReplaceAllString(waiting.Message, ""))
		return trouble{rankStart, fmt.Sprintf("image %s of container %s cannot be pulled: %s", c.Image, c.Name, tail(cmp.Or(cause, waiting.Reason)))}
	}
	return trouble{rankStart, fmt.Sprintf("container %s cannot start: %s: %s", c.Name, waiting.Reason, tail(waiting.Message))}
}

// backingOff is what the kubelet says between two attempts, before what it said
// at the attempt.
var backingOff = regexp.MustCompile(`^Back-off pulling image "[^"]*"(: ErrImagePull)?:? ?`)

func crash(container string, t *corev1.ContainerStateTerminated, component string, template corev1.PodTemplateSpec) trouble {
	if t.Reason != "OOMKilled" {
		return trouble{rankCrash, fmt.Sprintf("container %s: %s", container, words(t))}
	}
	text := fmt.Sprintf("container %s was killed (OOMKilled): it needs more memory than it may use", container)
	for i := range template.Spec.Containers {
		if limit, ok := template.Spec.Containers[i].Resources.Limits[corev1.ResourceMemory]; ok && template.Spec.Containers[i].Name == container {
			text += fmt.Sprintf(", %s", limit.String())
		}
	}
	if section := sectionOf(component); section != "" && container == component {
		text += fmt.Sprintf("; raise %s.resources.limits.memory", section)
	}
	return trouble{rankCrash, text}
}

// notReady tells of a pod that is not ready though nothing of it has failed.
func notReady(pod *corev1.Pod, ready corev1.PodCondition, now time.Time) trouble {
	since := now.Sub(ready.LastTransitionTime.Time)
	for _, c := range pod.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil && since >= creatingFor:
			return trouble{rankCreating, fmt.Sprintf("container %s has not been created for more than %s: kubectl describe pod %s tells of the volume, the Secret or the network that it waits for",
				c.Name, creatingFor, pod.Name)}
		case c.State.Running != nil && !c.Ready && since >= notReadyFor:
			text := fmt.Sprintf("container %s runs and has not been ready for more than %s (restarts: %d)", c.Name, notReadyFor, c.RestartCount)
			if last := c.LastTerminationState.Terminated; last != nil {
				text += "; before, " + words(last)
			}
			return trouble{rankNotReady, text}
		}
	}
	if pod.Status.Phase == corev1.PodRunning && allReady(pod) && since >= notReadyFor {
		return trouble{rankNotReady, strings.TrimSpace(fmt.Sprintf("it runs on node %s and does not count as ready: %s %s", pod.Spec.NodeName, ready.Reason, ready.Message))}
	}
	return trouble{rank: rankNone}
}

func allReady(pod *corev1.Pod) bool {
	return !slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return !c.Ready })
}

// lastTransition is when the pod's conditions changed last: when it failed,
// where it has.
func lastTransition(pod *corev1.Pod) time.Time {
	last := pod.CreationTimestamp.Time
	for _, c := range pod.Status.Conditions {
		if c.LastTransitionTime.After(last) {
			last = c.LastTransitionTime.Time
		}
	}
	return last
}

// podsRefused says why no pod can be made at all: a quota, or an admission rule.
// The refusal names a pod that never was, another one at each attempt.
func podsRefused(d *appsv1.Deployment) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return "no pod can be made: " + refusedPod.ReplaceAllString(c.Message, "")
		}
	}
	return ""
}

var refusedPod = regexp.MustCompile(`^pods "[^"]*" is forbidden: `)

// lastWords is what the pod that failed last said at its end.
func lastWords(pods []corev1.Pod) string {
	var latest *corev1.ContainerStateTerminated
	for i := range pods {
		for _, c := range pods[i].Status.ContainerStatuses {
			t := c.State.Terminated
			if t == nil || t.ExitCode == 0 {
				continue
			}
			if latest == nil || latest.FinishedAt.Before(&t.FinishedAt) {
				latest = t
			}
		}
	}
	if latest == nil {
		return ""
	}
	return words(latest)
}

func words(t *corev1.ContainerStateTerminated) string {
	message := strings.TrimSpace(t.Message)
	if message == "" {
		message = t.Reason
	}
	return fmt.Sprintf("it ended with code %d: %s", t.ExitCode, tail(message))
}

// maxWords bounds what a pod said, in bytes: its condition says more than that.
const maxWords = maxMessage / 2

// tail keeps the end of what a pod said: the last words say why.
func tail(text string) string {
	if len(text) <= maxWords {
		return text
	}
	return "…" + strings.ToValidUTF8(text[len(text)-maxWords:], "")
}
