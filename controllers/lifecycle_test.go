package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// migration returns the one migration Job, waiting for it to be another than
// not.
func (w *world) migration(not string) *batchv1.Job {
	w.t.Helper()
	var found *batchv1.Job
	w.eventually("a migration Job", func() error {
		var jobs batchv1.JobList
		w.must(w.client.List(w.ctx, &jobs, client.InNamespace(w.namespace)))
		for i := range jobs.Items {
			if jobs.Items[i].Name != not && jobs.Items[i].DeletionTimestamp == nil {
				found = &jobs.Items[i]
				return nil
			}
		}
		return fmt.Errorf("there is none")
	})
	return found
}

func (w *world) image(deployment string) string {
	w.t.Helper()
	d := &appsv1.Deployment{}
	w.must(w.get(deployment, d))
	return d.Spec.Template.Spec.Containers[0].Image
}

func TestServicesWaitForTheMigration(t *testing.T) {
	w := newWorld(t)
	w.runEverything(false)
	stop := w.startOperator()
	m := w.marketplace("shop", "")

	// At first nothing runs before the schema is there.
	job := w.migration("")
	w.looked()
	if err := w.get("shop-auth", &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
		t.Errorf("auth runs before its schema is there: %v", err)
	}
	w.must(w.get("shop", m))
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionAuthAvailable); c.Reason != v1alpha1.ReasonWaiting {
		t.Errorf("AuthAvailable = %+v", c)
	}

	// A migration that gives up says why, and what to do.
	w.failedPod(job, "connect: password authentication failed")
	w.must(w.finishJob(w.ctx, job, false))
	message := w.awaitStalled(m, v1alpha1.ReasonMigrationFailed)
	for _, want := range []string{job.Name, "password authentication failed", "delete the Job"} {
		if !strings.Contains(message, want) {
			t.Errorf("message %q lacks %q", message, want)
		}
	}
	w.must(w.client.Delete(w.ctx, job, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.eventually("another Job", func() error {
		again := &batchv1.Job{}
		if err := w.get(job.Name, again); err != nil {
			return err
		}
		if again.UID == job.UID {
			return fmt.Errorf("it is still there")
		}
		job = again
		return nil
	})
	w.must(w.finishJob(w.ctx, job, true))
	w.awaitReady(m)

	// A new release waits too, and what runs goes on as it is.
	stop()
	w.config.Image = "marketplane:two"
	w.startOperator()
	next := w.migration(job.Name)
	w.looked()
	for _, deployment := range []string{"shop-auth", "shop-tasks", "shop-messaging"} {
		if got := w.image(deployment); got != "marketplane:one" {
			t.Errorf("%s runs %s before the schema is there", deployment, got)
		}
	}
	// But messaging still changes its size, and nothing else.
	w.must(w.get("shop", m))
	replicas := int32(4)
	w.edit(m, func() { m.Spec.Messaging.Replicas = &replicas })
	w.eventually("messaging is scaled", func() error {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-messaging", d))
		if *d.Spec.Replicas != 4 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	if got := w.image("shop-messaging"); got != "marketplane:one" {
		t.Errorf("messaging runs %s before the schema is there", got)
	}

	w.must(w.finishJob(w.ctx, next, true))
	w.eventually("the release runs", func() error {
		for _, deployment := range []string{"shop-auth", "shop-tasks", "shop-messaging"} {
			if got := w.image(deployment); got != "marketplane:two" {
				return fmt.Errorf("%s runs %s", deployment, got)
			}
		}
		return nil
	})
	w.awaitReady(m)
	w.eventually("the old Job is gone", func() error {
		if err := w.get(job.Name, &batchv1.Job{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is not gone: %w", orFound(err))
		}
		return nil
	})
}

// deleteOwned does what the garbage collector does, which the test's API
// server does not have.
func (w *world) deleteOwned(m *v1alpha1.Marketplace) {
	w.t.Helper()
	for _, object := range w.inventory() {
		if metav1.IsControlledBy(object, m) {
			w.must(client.IgnoreNotFound(w.client.Delete(w.ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground))))
		}
	}
}

func TestKeptVolumeIsFoundAgain(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	first := w.marketplace("shop", "database: {embedded: {storage: {size: 6Gi}}}")
	w.awaitReady(first)
	w.must(w.client.Delete(w.ctx, first))

	// The next one comes before the first one's objects are collected.
	second := w.marketplace("shop", "")
	w.eventually("it waits", func() error {
		w.must(w.get("shop", second))
		c := meta.FindStatusCondition(second.Status.Conditions, v1alpha1.ConditionReconciling)
		if c == nil || !strings.Contains(c.Message, "of the earlier Marketplace shop is being deleted") {
			return fmt.Errorf("%+v", c)
		}
		if meta.IsStatusConditionTrue(second.Status.Conditions, v1alpha1.ConditionAuthAvailable) {
			t.Error("the first one's pods are taken for its own")
		}
		return checkConditions(second)
	})
	w.deleteOwned(first)
	w.awaitReady(second)

	if diff := cmp.Diff(string(first.UID), second.Status.Installation); diff != "" {
		t.Errorf("installation (-want +got):\n%s", diff)
	}
	w.hasEvent(second, "database: the kept volume shop-database is used, with the data of installation "+string(first.UID))
	secret := &corev1.Secret{}
	w.must(w.get("shop-database-auth", secret))
	role := contract.DatabaseRole(string(first.UID), contract.ComponentAuth)
	if url := string(secret.Data[contract.FileDatabaseURL]); !strings.HasPrefix(url, "postgres://"+role+":") {
		t.Error("the database URL does not name the role of the first installation")
	}
	claim := &corev1.PersistentVolumeClaim{}
	w.must(w.get("shop-database", claim))
	if got := claim.Spec.Resources.Requests.Storage().String(); got != "6Gi" {
		t.Errorf("the kept volume has %s, want its 6Gi", got)
	}
}

func TestVolumeGoesOnlyWithThePolicy(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "database: {embedded: {storage: {deletionPolicy: Delete}}}")
	w.awaitReady(m)
	claim := &corev1.PersistentVolumeClaim{}
	w.must(w.get("shop-database", claim))
	if !metav1.IsControlledBy(claim, m) {
		t.Error("the volume would outlive its Marketplace")
	}
	w.edit(m, func() { m.Spec.Database.Embedded.Storage.DeletionPolicy = v1alpha1.DeletionRetain })
	w.eventually("the volume is kept", func() error {
		w.must(w.get("shop-database", claim))
		if len(claim.OwnerReferences) > 0 {
			return fmt.Errorf("owners: %+v", claim.OwnerReferences)
		}
		return nil
	})
}

func TestScaleSubresource(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	scale := &autoscalingv1.Scale{}
	w.must(w.client.SubResource("scale").Get(w.ctx, m, scale))
	if scale.Spec.Replicas != 2 || scale.Status.Replicas != 2 || scale.Status.Selector == "" {
		t.Errorf("scale = %+v", scale)
	}
	scale.Spec.Replicas = 3
	w.must(w.client.SubResource("scale").Update(w.ctx, m, client.WithSubResourceBody(scale)))
	w.eventually("messaging is scaled", func() error {
		w.must(w.get("shop", m))
		if m.Status.Messaging.Replicas != 3 {
			return fmt.Errorf("%d replicas", m.Status.Messaging.Replicas)
		}
		return w.isReady(m)
	})
}

// What the API server refuses needs someone, and keeps nothing else back.
func TestRefusedObjectStalls(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	// A claim that is not bound yet cannot grow.
	replicas := int32(3)
	w.edit(m, func() {
		m.Spec.Database.Embedded = &v1alpha1.EmbeddedDatabase{}
		m.Spec.Database.Embedded.Storage.Size = resource.MustParse("50Gi")
		m.Spec.Tasks.Replicas = &replicas
	})
	message := w.awaitStalled(m, v1alpha1.ReasonRefused)
	if !strings.Contains(message, "the API server refuses PersistentVolumeClaim shop-database") {
		t.Errorf("message = %q", message)
	}
	w.hasEvent(m, "the API server refuses PersistentVolumeClaim shop-database")
	d := &appsv1.Deployment{}
	w.must(w.get("shop-tasks", d))
	if *d.Spec.Replicas != 3 {
		t.Errorf("tasks has %d replicas, want 3", *d.Spec.Replicas)
	}
}
