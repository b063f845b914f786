package controllers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers"
)

// before makes the world's operator one of the release before.
func (w *world) before() {
	w.config.Release, w.config.Image = contract.PreviousRelease, "marketplane:before-1"
	w.config.PreviousRelease, w.config.PreviousImage = "", ""
}

// upgraded makes it one of this release, with other defaults in all.
func (w *world) upgraded() {
	w.config.Release, w.config.Image = contract.Release, "marketplane:after"
	w.config.PreviousRelease, w.config.PreviousImage = contract.PreviousRelease, ""
	w.config.PostgresImage = "postgres:18"
}

// workloads are the generations and UIDs of all that makes pods.
func (w *world) workloads() map[string]string {
	w.t.Helper()
	found := map[string]string{}
	for name, object := range w.inventory() {
		switch object.(type) {
		case *appsv1.Deployment, *appsv1.StatefulSet, *batchv1.Job:
			found[name] = fmt.Sprintf("%s generation %d", object.GetUID(), object.GetGeneration())
		}
	}
	return found
}

// serviceImages are the images of the release's program.
func (w *world) serviceImages() []string {
	w.t.Helper()
	images := map[string]bool{}
	for _, object := range w.inventory() {
		switch o := object.(type) {
		case *appsv1.Deployment:
			images[o.Spec.Template.Spec.Containers[0].Image] = true
		case *appsv1.StatefulSet:
			if o.Labels[contract.LabelComponent] == contract.ComponentBus {
				images[o.Spec.Template.Spec.Containers[0].Image] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(images))
}

// awaitRelease waits until the Marketplace is ready, of this release, and run
// from this image alone.
func (w *world) awaitRelease(m *v1alpha1.Marketplace, version, image string) {
	w.t.Helper()
	w.eventually("it is of release "+version, func() error {
		if err := w.isReady(m); err != nil {
			return err
		}
		if m.Status.Version != version || m.Status.Image != image {
			return fmt.Errorf("status: version %q, image %q", m.Status.Version, m.Status.Image)
		}
		if diff := cmp.Diff([]string{image}, w.serviceImages()); diff != "" {
			return fmt.Errorf("images (-want +got):\n%s", diff)
		}
		return nil
	})
}

// setVersion asks for a release.
func (w *world) setVersion(m *v1alpha1.Marketplace, version string) {
	w.t.Helper()
	w.must(w.get(m.Name, m))
	w.edit(m, func() { m.Spec.Version = version })
}

// A newer operator writes to no object of a Marketplace that it finds, however
// the one before left the status.
func TestOperatorUpgradeRestartsNothing(t *testing.T) {
	asWritten := func(*v1alpha1.MarketplaceStatus) {}
	asTold := func(version string) func(*v1alpha1.MarketplaceStatus) {
		return func(s *v1alpha1.MarketplaceStatus) { s.Version, s.Image, s.DatabaseImage = version, "", "" }
	}
	tests := map[string]struct {
		status func(*v1alpha1.MarketplaceStatus)
		spec   string
	}{
		"pinned":                                  {asWritten, ""},
		"left by v0.1.0, built in a work tree":    {asTold("dev"), ""},
		"left by v0.1.0, built from a commit":     {asTold("e8c02dd"), "bus: {embedded: {replicas: 3}}"},
		"left by v0.1.0, built after a tag":       {asTold("v0.1.0-4-gabcdef0"), ""},
		"left by v0.1.0, built from the tag":      {asTold("v0.1.0"), "database: {embedded: {image: 'postgres:16'}}"},
		"the status was lost, as after a restore": {asTold(""), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.before()
			w.runEverything(true)
			stop := w.startOperator()
			m := w.marketplace("shop", tt.spec)
			w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
			w.looked()
			stop()
			w.leaveStatus(m, tt.status)
			generations, versions := w.workloads(), w.versions(m)

			w.upgraded()
			w.startOperator()
			w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
			w.looked()
			if diff := cmp.Diff(generations, w.workloads()); diff != "" {
				t.Errorf("workloads (-before +after):\n%s", diff)
			}
			database := &appsv1.StatefulSet{}
			w.must(w.get("shop-database", database))
			if got := database.Spec.Template.Spec.Containers[0].Image; m.Status.DatabaseImage != got || got == "postgres:18" {
				t.Errorf("the database runs %s, and the status pins %q", got, m.Status.DatabaseImage)
			}
			after := w.versions(m)
			for _, name := range []string{"Marketplace/shop", "PersistentVolumeClaim/shop-database"} {
				// The status pins more now, and the API server stores a claim once
				// more, unchanged, at the first apply after the one that made it.
				delete(versions, name)
				delete(after, name)
			}
			if diff := cmp.Diff(versions, after); diff != "" {
				t.Errorf("something was written (-before +after):\n%s", diff)
			}
		})
	}
}

// leaveStatus writes a status as an operator that stopped may have left it.
func (w *world) leaveStatus(m *v1alpha1.Marketplace, change func(*v1alpha1.MarketplaceStatus)) {
	w.t.Helper()
	w.must(w.get(m.Name, m))
	before := m.DeepCopy()
	change(&m.Status)
	w.must(w.client.Status().Patch(w.ctx, m, client.MergeFrom(before)))
}

// To another release and back: the migration first, then the services, then
// the status.
func TestVersionRollsAndRollsBack(t *testing.T) {
	w := newWorld(t)
	w.before()
	w.runEverything(false)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	old := w.migration("")
	w.must(w.finishJob(w.ctx, old, true))
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
	stop()
	w.upgraded()
	w.startOperator()
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")

	w.setVersion(m, contract.Release)
	job := w.migration(old.Name)
	if got := job.Spec.Template.Spec.Containers[0].Image; got != "marketplane:after" {
		t.Errorf("the migration runs %s, want that of the new release", got)
	}
	w.looked()
	if diff := cmp.Diff([]string{"marketplane:before-1"}, w.serviceImages()); diff != "" {
		t.Errorf("images before the schema is there (-want +got):\n%s", diff)
	}
	w.must(w.get("shop", m))
	if m.Status.Version != contract.PreviousRelease || m.Status.Image != "marketplane:before-1" {
		t.Errorf("status before the schema is there: version %s, image %s", m.Status.Version, m.Status.Image)
	}
	w.must(w.finishJob(w.ctx, job, true))
	w.awaitRelease(m, contract.Release, "marketplane:after")
	for _, want := range []string{
		"auth: rolled because the image changed from marketplane:before-1 to marketplane:after",
		"bus: rolled because the image changed from marketplane:before-1 to marketplane:after",
		"the services are of release " + contract.Release + ", image marketplane:after; before, the status said " + contract.PreviousRelease,
	} {
		w.hasEvent(m, want)
	}

	w.setVersion(m, contract.PreviousRelease)
	back := w.migration(job.Name)
	w.must(w.finishJob(w.ctx, back, true))
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")

	// To ask no more is to stay.
	generations := w.workloads()
	w.setVersion(m, "")
	w.eventually("it is seen", func() error { return w.isReady(m) })
	w.looked()
	if diff := cmp.Diff(generations, w.workloads()); diff != "" {
		t.Errorf("workloads (-before +after):\n%s", diff)
	}
}

func TestAutomaticFollowsTheOperator(t *testing.T) {
	w := newWorld(t)
	w.before()
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "upgradePolicy: Automatic")
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
	stop()
	w.upgraded()
	stop = w.startOperator()
	w.awaitRelease(m, contract.Release, "marketplane:after")
	database := &appsv1.StatefulSet{}
	w.must(w.get("shop-database", database))
	if got := database.Spec.Template.Spec.Containers[0].Image; got != "postgres:17" {
		t.Errorf("the database runs %s: its volume can be read by the version that made it alone", got)
	}

	// Another build of the same release is rolled out, whatever the policy.
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.UpgradePolicy = v1alpha1.UpgradePinned })
	stop()
	w.config.Image = "marketplane:after-2"
	w.startOperator()
	w.awaitRelease(m, contract.Release, "marketplane:after-2")

	// A newer server of the same major version is someone's decision.
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Database.Embedded = &v1alpha1.EmbeddedDatabase{Image: "postgres:17.9"} })
	w.eventually("the database follows its spec", func() error {
		w.must(w.get("shop-database", database))
		if got := database.Spec.Template.Spec.Containers[0].Image; got != "postgres:17.9" {
			return fmt.Errorf("it runs %s", got)
		}
		return nil
	})
	w.hasEvent(m, "database: rolled because the image changed from postgres:17 to postgres:17.9")
	w.awaitReady(m)
	if m.Status.DatabaseImage != "postgres:17.9" {
		t.Errorf("the status pins %q", m.Status.DatabaseImage)
	}
}

// The release that runs goes on serving, and to go back is a way out.
func TestFailedMigrationStopsTheRollout(t *testing.T) {
	w := newWorld(t)
	w.before()
	w.runEverything(false)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	old := w.migration("")
	w.must(w.finishJob(w.ctx, old, true))
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
	stop()
	w.upgraded()
	w.startOperator()
	generations := w.workloads()

	w.setVersion(m, contract.Release)
	job := w.migration(old.Name)
	w.failedPod(job, `migrate events: ERROR: permission denied (SQLSTATE 42501)`)
	w.must(w.finishJob(w.ctx, job, false))
	message := w.awaitStalled(m, v1alpha1.ReasonMigrationFailed)
	if !strings.Contains(message, "permission denied") {
		t.Errorf("message = %q", message)
	}
	w.looked()
	after := w.workloads()
	for _, workloads := range []map[string]string{generations, after} {
		delete(workloads, "Job/shop-migrate-HASH")
	}
	if diff := cmp.Diff(generations, after); diff != "" {
		t.Errorf("workloads (-before +after):\n%s", diff)
	}
	for _, available := range []string{v1alpha1.ConditionAuthAvailable, v1alpha1.ConditionTasksAvailable, v1alpha1.ConditionMessagingAvailable} {
		if !meta.IsStatusConditionTrue(m.Status.Conditions, available) {
			t.Errorf("%s is not true, though the release before serves", available)
		}
	}
	if m.Status.Version != contract.PreviousRelease || m.Status.Image != "marketplane:before-1" {
		t.Errorf("status: version %s, image %s", m.Status.Version, m.Status.Image)
	}

	w.setVersion(m, contract.PreviousRelease)
	w.must(w.finishJob(w.ctx, w.migration(job.Name), true))
	w.awaitRelease(m, contract.PreviousRelease, "marketplane:before-1")
	after = w.workloads()
	delete(after, "Job/shop-migrate-HASH")
	if diff := cmp.Diff(generations, after); diff != "" {
		t.Errorf("workloads after going back (-before +after):\n%s", diff)
	}
}

// What cannot be rendered stays as it is; what does not depend on the release
// goes on.
func TestUnknownVersionStallsAndHeals(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitRelease(m, contract.Release, "marketplane:one")
	generations := w.workloads()

	w.setVersion(m, "v9.9.9")
	message := w.awaitStalled(m, v1alpha1.ReasonVersionUnsupported)
	for _, want := range []string{"spec.version", contract.Release, contract.PreviousRelease, "v9.9.9", "install the operator"} {
		if !strings.Contains(message, want) {
			t.Errorf("message %q lacks %q", message, want)
		}
	}
	w.hasEvent(m, "spec.version: this operator knows")
	w.looked()
	if diff := cmp.Diff(generations, w.workloads()); diff != "" {
		t.Errorf("workloads (-before +after):\n%s", diff)
	}
	if m.Status.Version != contract.Release {
		t.Errorf("the status says that the services are of %s", m.Status.Version)
	}

	replicas := int32(4)
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Messaging.Replicas = &replicas })
	w.eventually("messaging is scaled", func() error {
		w.must(w.get("shop", m))
		if m.Status.Messaging.Replicas != 4 {
			return fmt.Errorf("%+v", m.Status.Messaging)
		}
		return nil
	})
	w.must(w.client.Delete(w.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "shop-jwks", Namespace: w.namespace}}))
	w.eventually("the public keys are published", func() error { return w.get("shop-jwks", &corev1.ConfigMap{}) })

	w.setVersion(m, contract.Release)
	w.awaitRelease(m, contract.Release, "marketplane:one")
	if got, want := w.image("shop-messaging"), "marketplane:one"; got != want {
		t.Errorf("messaging runs %s, want %s", got, want)
	}
}

// An operator that is two releases ahead leaves everything as it is, and the
// way goes by the release between.
func TestPinnedVersionThatIsTooOld(t *testing.T) {
	w := newWorld(t)
	w.before()
	w.config.Release = contract.Release
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitRelease(m, contract.Release, "marketplane:before-1")
	generations := w.workloads()
	stop()

	w.config = controllers.Config{
		Release: "v0.4.0", Image: "marketplane:four", PreviousRelease: "v0.3.0", PreviousImage: "marketplane:three",
		PostgresImage: "postgres:18", Namespace: w.config.Namespace,
	}
	w.startOperator()
	message := w.awaitStalled(m, v1alpha1.ReasonVersionUnsupported)
	if want := "the services are of " + contract.Release; !strings.Contains(message, want) || !strings.Contains(message, "set spec.version to v0.3.0") {
		t.Errorf("message = %q", message)
	}
	w.setVersion(m, "v0.4.0")
	w.eventually("a release is not skipped", func() error {
		if message := w.awaitStalled(m, v1alpha1.ReasonVersionUnsupported); !strings.Contains(message, "would skip a release") {
			return fmt.Errorf("message = %q", message)
		}
		return nil
	})
	w.looked()
	if diff := cmp.Diff(generations, w.workloads()); diff != "" {
		t.Errorf("workloads (-before +after):\n%s", diff)
	}
	w.setVersion(m, "v0.3.0")
	w.awaitRelease(m, "v0.3.0", "marketplane:three")
	w.setVersion(m, "v0.4.0")
	w.awaitRelease(m, "v0.4.0", "marketplane:four")
}
