package controllers_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	change := other.DeepCopy()
	change.Spec.Database.Installation = "0198-old"
	err := w.client.Patch(w.ctx, change, client.MergeFrom(other))
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.database.installation") || !strings.Contains(err.Error(), "remove the field") {
		t.Errorf("error = %v", err)
	}
	w.edit(other, func() { other.Spec.Database.Installation = string(other.UID) })
	w.awaitReady(other)
}

// A Marketplace whose spec contradicts its data, which a CRD from before let
// through, is told so, and is kept true otherwise: its keys, too.
func TestInstallationThatContradictsTheData(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "database: {installation: 0198-old}")
	w.awaitReady(m)
	before := m.DeepCopy()
	m.Status.Installation = "0198-new"
	w.must(w.client.Status().Patch(w.ctx, m, client.MergeFrom(before)))
	claim := &corev1.PersistentVolumeClaim{}
	w.must(w.get("shop-database", claim))
	w.edit(claim, func() { claim.Labels[contract.LabelInstallation] = "0198-new" })
	message := w.awaitStalled(m, v1alpha1.ReasonInstallationMismatch)
	if !strings.Contains(message, "spec.database.installation is 0198-old, but this Marketplace's data carries 0198-new") {
		t.Errorf("message = %q", message)
	}
	w.must(w.client.Delete(w.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "shop-tasks", Namespace: w.namespace}}))
	w.eventually("the Service is made again", func() error { return w.get("shop-tasks", &corev1.Service{}) })
	active := m.Status.Keys.Active
	w.edit(m, func() { m.Annotations = map[string]string{v1alpha1.AnnotationRotateKeys: "revoke"} })
	w.eventually("the keys are revoked", func() error {
		w.must(w.get("shop", m))
		if m.Status.Keys.Active == active {
			return errors.New("the same key signs")
		}
		for _, condition := range []string{v1alpha1.ConditionKeysCurrent, v1alpha1.ConditionDatabaseReady} {
			if c := meta.FindStatusCondition(m.Status.Conditions, condition); c.Status != metav1.ConditionTrue {
				return fmt.Errorf("%+v", *c)
			}
		}
		return checkConditions(m)
	})
	w.awaitStalled(m, v1alpha1.ReasonInstallationMismatch)
	w.edit(m, func() { m.Spec.Database.Installation = "" })
	w.awaitReady(m)
}

// What cannot be read of the user's Secrets holds up what follows from them, and
// neither the keys nor what is known of everything else.
func TestSecretThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.log = logr.FromSlogHandler(slog.DiscardHandler)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	refuse := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/secrets/postgres") {
			return nil, errors.New("the connection was reset")
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&refuse)
	w.putSecret("postgres", map[string]string{"url": "postgres://boss:hunter2@127.0.0.1:1/market"})
	login := w.secretData("shop-database-auth")
	w.edit(m, func() {
		m.Spec.Database.External = &v1alpha1.ExternalDatabase{URLSecretRef: v1alpha1.SecretKeyReference{Name: "postgres"}}
		m.Annotations = map[string]string{v1alpha1.AnnotationRotateKeys: "revoke"}
	})
	active := m.Status.Keys.Active
	w.eventually("the keys are revoked, and published", func() error {
		w.must(w.get("shop", m))
		if m.Status.Keys.Active == active {
			return errors.New("the same key signs")
		}
		if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionKeysCurrent); c.Status != metav1.ConditionTrue {
			return fmt.Errorf("%+v", *c)
		}
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady)
		if c.Reason != v1alpha1.ReasonApplyFailed || !strings.Contains(c.Message, "postgres") {
			return fmt.Errorf("%+v", *c)
		}
		return checkConditions(m)
	})
	if diff := cmp.Diff(login, w.secretData("shop-database-auth")); diff != "" {
		t.Error("auth was led away from its database by a Secret that could not be read")
	}
	w.intercept.Store(nil)
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnreachable, "connection refused")
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
