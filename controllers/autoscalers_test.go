package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// replicasSeen are the replicas of every version of every Deployment.
type replicasSeen struct {
	mu   sync.Mutex
	seen map[string][]int32
}

// watchReplicas looks on until the test ends. What stands already counts.
func (w *world) watchReplicas() *replicasSeen {
	w.t.Helper()
	s := &replicasSeen{seen: map[string][]int32{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	watcher, err := w.client.Watch(ctx, &appsv1.DeploymentList{}, client.InNamespace(w.namespace))
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for event := range watcher.ResultChan() {
			if d, ok := event.Object.(*appsv1.Deployment); ok {
				s.mu.Lock()
				s.seen[d.Name] = append(s.seen[d.Name], *d.Spec.Replicas)
				s.mu.Unlock()
			}
		}
	})
	w.t.Cleanup(func() { cancel(); watcher.Stop(); wg.Wait() })
	return s
}

// of returns the sizes that a Deployment had, in order, without repetitions.
func (s *replicasSeen) of(name string) []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes []int32
	for _, n := range s.seen[name] {
		if len(sizes) == 0 || sizes[len(sizes)-1] != n {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// hadSizes waits for a Deployment to have had these sizes, and no other.
func (w *world) hadSizes(s *replicasSeen, name string, want []int32) {
	w.t.Helper()
	w.eventually("sizes of "+name, func() error {
		if diff := cmp.Diff(want, s.of(name)); diff != "" {
			return fmt.Errorf("sizes (-want +got):\n%s", diff)
		}
		return nil
	})
}

// scale does what the HPA controller does to its target.
func (w *world) scale(object client.Object, replicas int32) {
	w.t.Helper()
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	w.must(w.client.SubResource("scale").Update(w.ctx, object, client.WithSubResourceBody(scale), client.FieldOwner("kube-controller-manager")))
}

// managers are those that hold a Deployment's replicas.
func managers(d *appsv1.Deployment) []string {
	var found []string
	for _, f := range d.ManagedFields {
		if strings.Contains(f.FieldsV1.GetRawString(), `"f:replicas"`) && f.Subresource != "status" {
			found = append(found, f.Manager)
		}
	}
	return found
}

// What runs goes on running when an autoscaler takes over, and nothing that the
// operator applies afterwards changes what the autoscaler decided.
func TestAutoscalerTakesOverWhatRuns(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "auth: {replicas: 6}")
	w.awaitReady(m)
	sizes := w.watchReplicas()

	w.edit(m, func() {
		m.Spec.Auth.Autoscaling = &v1alpha1.CPUAutoscalingSpec{MinReplicas: new(int32(2)), MaxReplicas: 9, TargetCPUUtilizationPercentage: new(int32(60))}
	})
	hpa := &autoscalingv2.HorizontalPodAutoscaler{}
	w.eventually("the autoscaler is there", func() error { return w.get("shop-auth", hpa) })
	if metric := hpa.Spec.Metrics[0].ContainerResource; *hpa.Spec.MinReplicas != 2 || hpa.Spec.MaxReplicas != 9 ||
		hpa.Spec.ScaleTargetRef != (autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop-auth"}) ||
		metric == nil || metric.Name != corev1.ResourceCPU || metric.Container != "auth" || *metric.Target.AverageUtilization != 60 {
		t.Errorf("autoscaler = %+v", hpa.Spec)
	}
	d := &appsv1.Deployment{}
	w.must(w.get("shop-auth", d))
	if diff := cmp.Diff([]string{"marketplane-scaling"}, managers(d)); diff != "" {
		t.Errorf("who holds the replicas (-want +got):\n%s", diff)
	}
	w.awaitReady(m)

	// The autoscaler decides; a repair, a change and a new operator leave that.
	w.scale(d, 4)
	w.awaitReady(m)
	w.must(w.get("shop-auth", d))
	w.edit(d, func() { d.Spec.Template.Spec.Containers[0].Image = "someone:else" })
	w.eventually("the edited Deployment is as it was", func() error {
		if got := w.image("shop-auth"); got != "marketplane:one" {
			return fmt.Errorf("it runs %s", got)
		}
		return nil
	})
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Auth.Template = &v1alpha1.PodTemplate{Annotations: map[string]string{"a": "b"}} })
	w.eventually("the change is applied", func() error {
		w.must(w.get("shop-auth", d))
		if d.Spec.Template.Annotations["a"] != "b" {
			return fmt.Errorf("annotations %v", d.Spec.Template.Annotations)
		}
		return nil
	})
	stop()
	stop = w.startOperator()
	w.looked()
	w.awaitReady(m)
	w.hadSizes(sizes, "shop-auth", []int32{6, 4})

	// What the autoscaler writes about itself is no reason to write anything.
	w.looked()
	before, requests := w.versions(m), w.requests.Load()
	w.must(w.get("shop-auth", hpa))
	hpa.Status.DesiredReplicas = 4
	hpa.Status.CurrentMetrics = []autoscalingv2.MetricStatus{{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{
		Name: corev1.ResourceCPU, Container: "auth", Current: autoscalingv2.MetricValueStatus{AverageUtilization: new(int32(31))},
	}}}
	w.must(w.client.Status().Update(w.ctx, hpa))
	w.looked()
	if n := w.requests.Load() - requests; n > 0 {
		t.Errorf("%d requests because of an autoscaler's figures", n)
	}
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("something was written (-before +after):\n%s", diff)
	}

	// A Deployment that is made anew begins with what the autoscaler wanted.
	w.must(w.client.Delete(w.ctx, d))
	w.eventually("the Deployment is made again", func() error {
		again := &appsv1.Deployment{}
		if err := w.get("shop-auth", again); err != nil {
			return err
		}
		if again.UID == d.UID || cmp.Diff([]string{"marketplane-scaling"}, managers(again)) != "" {
			return fmt.Errorf("held by %v", managers(again))
		}
		return nil
	})
	w.awaitReady(m)
	w.hadSizes(sizes, "shop-auth", []int32{6, 4})

	// Without autoscaling the spec's own number counts again.
	stop()
	w.startOperator()
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Auth.Autoscaling = nil })
	w.eventually("the autoscaler is gone", func() error {
		if err := w.get("shop-auth", hpa); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is not gone: %w", orFound(err))
		}
		return nil
	})
	w.awaitReady(m)
	w.must(w.get("shop-auth", d))
	if *d.Spec.Replicas != 6 || cmp.Diff([]string{"marketplane"}, managers(d)) != "" {
		t.Errorf("%d replicas, held by %v", *d.Spec.Replicas, managers(d))
	}
}

// A new service that is autoscaled begins with its least number of pods, and a
// stopped one comes back: an autoscaler does nothing about either.
func TestAutoscaledServiceBegins(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	sizes := w.watchReplicas()
	m := w.marketplace("shop", "tasks: {autoscaling: {minReplicas: 3, maxReplicas: 5}}")
	w.awaitReady(m)
	d := &appsv1.Deployment{}
	w.eventually("the replicas are given up", func() error {
		w.must(w.get("shop-tasks", d))
		if diff := cmp.Diff([]string{"marketplane-scaling"}, managers(d)); diff != "" {
			return fmt.Errorf("who holds the replicas (-want +got):\n%s", diff)
		}
		return nil
	})
	w.scale(d, 0)
	w.awaitReady(m)
	w.eventually("it runs again", func() error {
		w.must(w.get("shop-tasks", d))
		if *d.Spec.Replicas != 3 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	w.hadSizes(sizes, "shop-tasks", []int32{3, 0, 3})
}

func (w *world) foreignAutoscaler(name, apiVersion, kind, target string) *autoscalingv2.HorizontalPodAutoscaler {
	w.t.Helper()
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: target},
			MaxReplicas:    9,
		},
	}
	w.must(w.client.Create(w.ctx, hpa))
	return hpa
}

// conflict waits for the condition to say this, or to be gone where it is
// empty.
func (w *world) conflict(m *v1alpha1.Marketplace, want string) {
	w.t.Helper()
	w.eventually("the conflict is told", func() error {
		w.must(w.get(m.Name, m))
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionScalingConflict)
		switch {
		case c == nil && want == "":
			return nil
		case c == nil || c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonAutoscalerConflict || c.Message != want:
			return fmt.Errorf("ScalingConflict = %+v, want %q", c, want)
		}
		return checkConditions(m)
	})
}

// Two deciders about one number are told, each with what to do; those of whom
// the operator is one do not fight.
func TestScalingConflict(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	other := w.marketplace("other", "")
	w.awaitReady(m)
	w.awaitReady(other)

	// An HPA of the Marketplace is welcome while no one else decides.
	hpa := w.foreignAutoscaler("by-cpu", "marketplane.dev/v1alpha1", "Marketplace", "shop")
	w.looked()
	w.conflict(m, "")
	w.must(w.get("shop", m))
	w.edit(m, func() {
		m.Spec.Messaging.Autoscaling = &v1alpha1.AutoscalingSpec{MinReplicas: new(int32(2)), MaxReplicas: 3}
	})
	w.conflict(m, "HorizontalPodAutoscaler by-cpu scales this Marketplace, and is ignored while spec.messaging.autoscaling is set: delete it, or remove spec.messaging.autoscaling")
	w.awaitReady(m)
	w.must(w.client.Delete(w.ctx, hpa))
	w.conflict(m, "")

	// One of a workload is left to it, so that nobody's pods come and go.
	for component, remedy := range map[string]string{
		"messaging": "delete it, or let it scale Marketplace shop",
		"tasks":     "delete it, and set spec.tasks.autoscaling instead",
	} {
		name := "shop-" + component
		sizes := w.watchReplicas()
		hpa = w.foreignAutoscaler("rival", "apps/v1", "Deployment", name)
		w.conflict(m, "HorizontalPodAutoscaler rival scales Deployment "+name+", and the operator leaves it the number of pods meanwhile: "+remedy)
		d := &appsv1.Deployment{}
		w.eventually("the replicas are given up", func() error {
			w.must(w.get(name, d))
			if diff := cmp.Diff([]string{"marketplane-scaling"}, managers(d)); diff != "" {
				return fmt.Errorf("who holds the replicas (-want +got):\n%s", diff)
			}
			return nil
		})
		w.scale(d, 5)
		w.looked()
		w.awaitReady(m)
		w.hadSizes(sizes, name, []int32{2, 5})
		w.must(w.client.Delete(w.ctx, hpa))
		w.conflict(m, "")
		w.eventually("the spec counts again", func() error {
			w.must(w.get(name, d))
			if n := *d.Spec.Replicas; n != 2 && component == "tasks" || n > 3 {
				return fmt.Errorf("%d replicas", n)
			}
			return nil
		})
	}

	// A database of two servers on one volume would be none: it is set back.
	hpa = w.foreignAutoscaler("keda-hpa-db", "apps/v1", "StatefulSet", "shop-database")
	w.conflict(m, "HorizontalPodAutoscaler keda-hpa-db scales StatefulSet shop-database, which the operator sets back each time: delete it")
	hpa.OwnerReferences = []metav1.OwnerReference{{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledObject", Name: "db", UID: "1", Controller: new(true)}}
	w.must(w.client.Update(w.ctx, hpa))
	w.conflict(m, "HorizontalPodAutoscaler keda-hpa-db of ScaledObject db scales StatefulSet shop-database, which the operator sets back each time: delete that ScaledObject")

	// What it turns to is told, and what it turned from forgets it.
	hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "other-auth"}
	w.must(w.client.Update(w.ctx, hpa))
	w.conflict(m, "")
	w.conflict(other, "HorizontalPodAutoscaler keda-hpa-db of ScaledObject db scales Deployment other-auth, and the operator leaves it the number of pods meanwhile: delete that ScaledObject, and set spec.auth.autoscaling instead")
}
