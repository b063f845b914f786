package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// A Marketplace that is made for a restored backup takes the id of its data.
func TestInstallationIsThatOfTheData(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "database: {installation: 0198-old}")
	w.awaitReady(m)
	if diff := cmp.Diff("0198-old", m.Status.Installation); diff != "" {
		t.Errorf("installation (-want +got):\n%s", diff)
	}
	w.hasEvent(m, "database: the data of installation 0198-old is used")
	secret := &corev1.Secret{}
	w.must(w.get("shop-database-auth", secret))
	role := contract.DatabaseRole("0198-old", contract.ComponentAuth)
	if url := string(secret.Data[contract.FileDatabaseURL]); !strings.HasPrefix(url, "postgres://"+role+":") {
		t.Error("the database URL does not name the role of the data's installation")
	}

	// Another one says nothing about the data that is there already.
	other := w.marketplace("other", "")
	w.awaitReady(other)
	w.edit(other, func() { other.Spec.Database.Installation = "0198-old" })
	message := w.awaitStalled(other, v1alpha1.ReasonRefused)
	if !strings.Contains(message, "spec.database.installation is 0198-old") {
		t.Errorf("message = %q", message)
	}
	w.edit(other, func() { other.Spec.Database.Installation = string(other.UID) })
	w.awaitReady(other)
}

// While a backup is restored, the services stand at 0, put there by hand. They
// come back together, and only after the migration has run again.
func TestServicesComeBackAfterTheMigration(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.edit(m, func() { m.Spec.Paused = true })
	w.looked()
	for _, component := range contract.Services() {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-"+component, d))
		w.edit(d, func() { *d.Spec.Replicas = 0 })
	}
	w.looked()
	w.frozen.Store(true) // the migration runs on and on
	var jobs batchv1.JobList
	w.must(w.client.List(w.ctx, &jobs, client.InNamespace(w.namespace)))
	for i := range jobs.Items {
		w.must(w.client.Delete(w.ctx, &jobs.Items[i], client.PropagationPolicy("Background")))
	}
	w.edit(m, func() { m.Spec.Paused = false })
	w.eventually("the migration is made again", func() error {
		w.must(w.client.List(w.ctx, &jobs, client.InNamespace(w.namespace)))
		if len(jobs.Items) != 1 {
			return fmt.Errorf("%d jobs", len(jobs.Items))
		}
		return nil
	})
	w.looked()
	for _, component := range contract.Services() {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-"+component, d))
		if *d.Spec.Replicas != 0 {
			t.Errorf("%s has %d replicas before the migration has run", component, *d.Spec.Replicas)
		}
	}
	w.frozen.Store(false)
	job := &jobs.Items[0]
	w.edit(job, func() { job.Labels["test"] = "run" }) // an event of it, to be run by
	w.awaitReady(m)
	for _, component := range contract.Services() {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-"+component, d))
		if *d.Spec.Replicas != 2 {
			t.Errorf("%s has %d replicas, want 2", component, *d.Spec.Replicas)
		}
	}
}
