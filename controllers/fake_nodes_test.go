package controllers_test

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/v1alpha1"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// runEverything stands in for the controller manager and the kubelets, which
// the test's API server does not have: whatever is applied runs at once, and
// every migration succeeds unless the test says otherwise.
func (w *world) runEverything(migrations bool) {
	w.t.Helper()
	lists := []client.ObjectList{&appsv1.DeploymentList{}, &appsv1.StatefulSetList{}}
	if migrations {
		lists = append(lists, &batchv1.JobList{})
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	var wg sync.WaitGroup
	for _, list := range lists {
		watcher, err := w.client.Watch(ctx, list, client.InNamespace(w.namespace))
		if err != nil {
			cancel()
			w.t.Fatal(err)
		}
		wg.Go(func() {
			defer watcher.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case event, ok := <-watcher.ResultChan():
					if !ok {
						return
					}
					if event.Type == watch.Added || event.Type == watch.Modified {
						w.runObject(ctx, event.Object)
					}
				}
			}
		})
	}
	w.t.Cleanup(func() { cancel(); wg.Wait() })
}

// runObject writes the status of an object that runs. A conflict is another
// change, which comes as another event.
func (w *world) runObject(ctx context.Context, object any) {
	if w.frozen.Load() {
		return
	}
	switch o := object.(type) {
	case *appsv1.Deployment:
		if o.Status.ObservedGeneration == o.Generation {
			return
		}
		n := *o.Spec.Replicas
		o.Status = appsv1.DeploymentStatus{
			ObservedGeneration: o.Generation,
			Replicas:           n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n,
		}
		_ = w.client.Status().Update(ctx, o)
	case *appsv1.StatefulSet:
		if o.Status.ObservedGeneration == o.Generation {
			return
		}
		n := *o.Spec.Replicas
		o.Status = appsv1.StatefulSetStatus{
			ObservedGeneration: o.Generation,
			Replicas:           n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n, CurrentReplicas: n,
		}
		_ = w.client.Status().Update(ctx, o)
	case *batchv1.Job:
		if len(o.Status.Conditions) == 0 {
			_ = w.finishJob(ctx, o, true)
		}
	}
}

// finishJob gives a Job its end.
func (w *world) finishJob(ctx context.Context, job *batchv1.Job, succeeded bool) error {
	now := metav1.Now()
	job.Status.StartTime = &now
	condition := func(t batchv1.JobConditionType) batchv1.JobCondition {
		return batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now, Reason: "Test"}
	}
	if succeeded {
		job.Status.CompletionTime = &now
		job.Status.Succeeded = 1
		job.Status.Conditions = []batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet), condition(batchv1.JobComplete)}
	} else {
		job.Status.Failed = 1
		job.Status.Conditions = []batchv1.JobCondition{condition(batchv1.JobFailureTarget), condition(batchv1.JobFailed)}
	}
	return w.client.Status().Update(ctx, job)
}

// runningPod makes a pod of a component whose container runs at address.
func (w *world) runningPod(name string, labels map[string]string, container, address string) *corev1.Pod {
	w.t.Helper()
	pod := w.pod(name, labels, container, nil)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = address
	pod.Status.PodIPs = []corev1.PodIP{{IP: address}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: container, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	w.must(w.client.Status().Update(w.ctx, pod))
	return pod
}

// failedPod makes a pod of a Job that ended with these words.
func (w *world) failedPod(job *batchv1.Job, words string) {
	w.t.Helper()
	pod := w.pod(job.Name+"-pod", job.Spec.Template.Labels, "migrate", metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job")))
	pod.Status.Phase = corev1.PodFailed
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "migrate", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 1, Reason: "Error", Message: words, FinishedAt: metav1.Now(),
		}},
	}}
	w.must(w.client.Status().Update(w.ctx, pod))
}

func (w *world) pod(name string, labels map[string]string, container string, owner *metav1.OwnerReference) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace, Labels: labels},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: container, Image: "marketplane:one"}},
		},
	}
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	w.must(w.client.Create(w.ctx, pod))
	return pod
}

// unstructuredMarketplace is m with a spec in YAML, sent as written: a typed
// object would drop what the type does not know.
func unstructuredMarketplace(m *v1alpha1.Marketplace, spec string) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(v1alpha1.GroupVersion.String())
	u.SetKind(v1alpha1.Kind)
	u.SetName(m.Name)
	u.SetNamespace(m.Namespace)
	u.SetResourceVersion(m.ResourceVersion)
	if spec == "" {
		return u, nil
	}
	var content map[string]any
	if err := yaml.Unmarshal([]byte(spec), &content); err != nil {
		return nil, fmt.Errorf("spec of the test: %w", err)
	}
	u.Object["spec"] = content
	return u, nil
}
