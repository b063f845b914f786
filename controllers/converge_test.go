package controllers_test

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// inventory is every object of the namespace that a Marketplace may consist
// of, by kind and name; a Job's hash is left out.
func (w *world) inventory() map[string]client.Object {
	w.t.Helper()
	found := map[string]client.Object{}
	for kind, list := range map[string]client.ObjectList{
		"Deployment":            &appsv1.DeploymentList{},
		"StatefulSet":           &appsv1.StatefulSetList{},
		"Job":                   &batchv1.JobList{},
		"Service":               &corev1.ServiceList{},
		"ConfigMap":             &corev1.ConfigMapList{},
		"Secret":                &corev1.SecretList{},
		"PersistentVolumeClaim": &corev1.PersistentVolumeClaimList{},
		"PodDisruptionBudget":   &policyv1.PodDisruptionBudgetList{},
		"NetworkPolicy":         &networkingv1.NetworkPolicyList{},
	} {
		w.must(w.client.List(w.ctx, list, client.InNamespace(w.namespace)))
		objects, err := meta.ExtractList(list)
		w.must(err)
		for _, o := range objects {
			object, ok := o.(client.Object)
			if !ok {
				w.t.Fatalf("a %T is no object", o)
			}
			name := object.GetName()
			if kind == "Job" {
				name = name[:strings.LastIndex(name, "-")+1] + "HASH"
			}
			found[kind+"/"+name] = object
		}
	}
	return found
}

func names(objects map[string]client.Object) []string {
	var all []string
	for name := range objects {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}

// versions are the resource versions of everything, the Marketplace included.
func (w *world) versions(m *v1alpha1.Marketplace) map[string]string {
	w.t.Helper()
	w.must(w.get(m.Name, m))
	versions := map[string]string{"Marketplace/" + m.Name: m.ResourceVersion}
	for name, object := range w.inventory() {
		versions[name] = object.GetResourceVersion()
	}
	return versions
}

var wantInventory = []string{
	"ConfigMap/shop-database-scripts",
	"ConfigMap/shop-jwks",
	"Deployment/shop-auth",
	"Deployment/shop-messaging",
	"Deployment/shop-tasks",
	"Job/shop-migrate-HASH",
	"NetworkPolicy/shop-bus",
	"NetworkPolicy/shop-database",
	"NetworkPolicy/shop-migrate",
	"NetworkPolicy/shop-services",
	"NetworkPolicy/shop-sessions",
	"PersistentVolumeClaim/shop-database",
	"PodDisruptionBudget/shop-auth",
	"PodDisruptionBudget/shop-messaging",
	"PodDisruptionBudget/shop-tasks",
	"Secret/shop-bus",
	"Secret/shop-database-admin",
	"Secret/shop-database-auth",
	"Secret/shop-database-messaging",
	"Secret/shop-database-tasks",
	"Secret/shop-signing",
	"Service/shop-auth",
	"Service/shop-bus",
	"Service/shop-database",
	"Service/shop-messaging",
	"Service/shop-tasks",
	"StatefulSet/shop-bus",
	"StatefulSet/shop-database",
}

func TestEmptySpecConvergesAndThenNothingIsWritten(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	objects := w.inventory()
	if diff := cmp.Diff(wantInventory, names(objects)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	for name, object := range objects {
		owned := metav1.IsControlledBy(object, m)
		if kept := name == "PersistentVolumeClaim/shop-database"; kept == owned {
			t.Errorf("%s: owned by the Marketplace: %v", name, owned)
		}
	}
	if diff := cmp.Diff(string(m.UID), m.Status.Installation); diff != "" {
		t.Errorf("installation (-want +got):\n%s", diff)
	}
	if got := m.Status.Messaging; got.Replicas != 2 || got.TargetReplicas != 2 ||
		got.Selector != "marketplane.dev/component=messaging,marketplane.dev/marketplace=shop" {
		t.Errorf("messaging = %+v", got)
	}
	if m.Status.Version != contract.Release || m.Status.Keys == nil || len(m.Status.Keys.Published) != 1 ||
		m.Status.Keys.Active != m.Status.Keys.Published[0] {
		t.Errorf("version %q, keys %+v", m.Status.Version, m.Status.Keys)
	}

	// Each workload has its own Event, though all came at once.
	for _, want := range []string{"StatefulSet shop-bus: created", "Deployment shop-auth: created", "Deployment shop-tasks: created"} {
		w.hasEvent(m, want)
	}

	w.looked()
	before, requests := w.versions(m), w.requests.Load()
	w.looked()
	if n := w.requests.Load() - requests; n > 0 {
		t.Errorf("%d requests without a change: all that is needed should be in the caches", n)
	}
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("something was written without a change (-before +after):\n%s", diff)
	}

	// An operator that starts anew knows nothing, and still changes nothing.
	stop()
	w.startOperator()
	w.looked()
	after := w.versions(m)
	// The API server stores a claim once more, unchanged, at the first apply
	// after the one that made it.
	delete(before, "PersistentVolumeClaim/shop-database")
	delete(after, "PersistentVolumeClaim/shop-database")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a new operator wrote something (-before +after):\n%s", diff)
	}
}

func TestRepairs(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "bus: {embedded: {replicas: 3}}")
	w.awaitReady(m)

	service := &corev1.Service{}
	w.must(w.get("shop-tasks", service))
	gone := service.UID
	w.must(w.client.Delete(w.ctx, service))
	w.eventually("the deleted Service is made again", func() error {
		if err := w.get("shop-tasks", service); err != nil {
			return err
		}
		if service.UID == gone {
			return fmt.Errorf("it is still there")
		}
		return nil
	})

	w.hasEvent(m, "Service shop-tasks: it was gone; it is made again")

	deployment := &appsv1.Deployment{}
	w.must(w.get("shop-auth", deployment))
	image := deployment.Spec.Template.Spec.Containers[0].Image
	w.edit(deployment, func() {
		deployment.Spec.Template.Spec.Containers[0].Image = "someone:else"
		*deployment.Spec.Replicas = 7
	})
	w.eventually("the edited Deployment is as it was", func() error {
		if err := w.get("shop-auth", deployment); err != nil {
			return err
		}
		if got := deployment.Spec.Template.Spec.Containers[0].Image; got != image || *deployment.Spec.Replicas != 2 {
			return fmt.Errorf("image %s, %d replicas", got, *deployment.Spec.Replicas)
		}
		return nil
	})

	for _, kind := range []string{"Service", "Deployment"} {
		w.eventuallyCounted(kind, metrics.Created)
		w.eventuallyCounted(kind, metrics.Repaired)
	}

	secret := &corev1.Secret{}
	w.must(w.get("shop-bus", secret))
	w.must(w.client.Delete(w.ctx, secret))
	w.eventually("the deleted Secret is made again", func() error {
		fresh := &corev1.Secret{}
		if err := w.get("shop-bus", fresh); err != nil {
			return err
		}
		if fresh.UID == secret.UID {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
	w.eventuallyCounted("Secret", metrics.Created)
	w.eventuallyCounted("Secret", metrics.Repaired)

	// A smaller bus needs no routes any more.
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Bus.Embedded.Replicas = 1 })
	w.eventually("the routes of the bus are removed", func() error {
		if err := w.get("shop-bus-routes", &corev1.Service{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is not gone: %w", orFound(err))
		}
		return nil
	})
	w.awaitReady(m)
	w.eventuallyCounted("Service", metrics.Deleted)
}

// eventuallyCounted waits until a change has been counted, which it is after it
// was made.
func (w *world) eventuallyCounted(kind string, change metrics.Change) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s %s is counted", kind, change), func() error {
		if w.counted(kind, change) == 0 {
			return errors.New("it is not counted yet")
		}
		return nil
	})
}

// counted returns how many changes of a kind of object the operator counted.
func (w *world) counted(kind string, change metrics.Change) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	w.must(err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["kind"] == kind && labels["change"] == string(change) {
				return metric.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestForeignObjectsAreLeftAlone(t *testing.T) {
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "theirs"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "theirs", Image: "theirs"}}},
	}
	foreign := map[string]client.Object{
		"Service shop-tasks":   &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1234}}}},
		"Secret shop-signing":  &corev1.Secret{Data: map[string][]byte{contract.FileSigningKeys: []byte("theirs")}},
		"Deployment shop-auth": &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: metav1.SetAsLabelSelector(template.Labels), Template: template}},
		"PersistentVolumeClaim shop-database": &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse("1Gi"),
			}},
		}},
	}
	for what, object := range foreign {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.runEverything(true)
			_, name, _ := strings.Cut(what, " ")
			object.SetName(name)
			object.SetNamespace(w.namespace)
			w.must(w.client.Create(w.ctx, object))
			w.startOperator()
			m := w.marketplace("shop", "")

			message := w.awaitStalled(m, v1alpha1.ReasonNameTaken)
			if !strings.Contains(message, what+" exists and belongs to someone else") {
				t.Errorf("message = %q", message)
			}
			w.looked()
			seen, ok := object.DeepCopyObject().(client.Object)
			if !ok {
				t.Fatalf("a copy of a %T is no object", object)
			}
			w.must(w.get(name, seen))
			if diff := cmp.Diff(withoutStatus(t, object), withoutStatus(t, seen)); diff != "" {
				t.Errorf("it was written (-want +got):\n%s", diff)
			}

			// All else is made, meanwhile or once the name is free.
			seen.SetFinalizers(nil) // nobody here takes away that of volumes in use
			w.must(w.client.Update(w.ctx, seen))
			w.must(w.client.Delete(w.ctx, seen))
			w.awaitReady(m)
		})
	}
}

// withoutStatus is what of an object its owner decides.
func withoutStatus(t *testing.T, object client.Object) map[string]any {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	delete(content, "status")
	for _, field := range []string{"managedFields", "resourceVersion"} {
		unstructured.RemoveNestedField(content, "metadata", field)
	}
	return content
}

func TestDamagedSecretIsNotOverwritten(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	secret := &corev1.Secret{}
	w.must(w.get("shop-signing", secret))
	w.edit(secret, func() { secret.Data[contract.FileSigningKeys] = []byte("damaged") })
	message := w.awaitStalled(m, v1alpha1.ReasonSecretInvalid)
	if !strings.Contains(message, "delete the Secret to have a new one made") || strings.Contains(message, "damaged") {
		t.Errorf("message = %q", message)
	}

	// Nothing can be rendered without it, but messaging still changes its size.
	w.must(w.get("shop", m))
	replicas := int32(4)
	w.edit(m, func() { m.Spec.Messaging.Replicas = &replicas })
	w.eventually("messaging is scaled", func() error {
		w.must(w.get("shop", m))
		if m.Status.Messaging.Replicas != 4 || m.Status.Messaging.TargetReplicas != 4 {
			return fmt.Errorf("%+v", m.Status.Messaging)
		}
		return nil
	})
	w.must(w.client.Delete(w.ctx, secret))
	w.awaitReady(m)
}

func TestPausedChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	replicas := int32(5)
	w.edit(m, func() { m.Spec.Paused, m.Spec.Messaging.Replicas = true, &replicas })
	w.eventually("the pause is told", func() error {
		w.must(w.get("shop", m))
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady)
		if c.Reason != v1alpha1.ReasonPaused || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("%+v", c)
		}
		return checkConditions(m)
	})
	w.must(w.client.Delete(w.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "shop-tasks", Namespace: w.namespace}}))
	w.looked()
	if err := w.get("shop-tasks", &corev1.Service{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Service was made again while paused: %v", err)
	}

	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Paused = false })
	w.awaitReady(m)
	if m.Status.Messaging.Replicas != 5 {
		t.Errorf("messaging has %d replicas, want 5", m.Status.Messaging.Replicas)
	}
}

// The first status about a new spec must not call it ready because the old one
// was.
func TestReadyDoesNotSpeakOfTheSpecBefore(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.looked()

	w.frozen.Store(true)
	watcher, err := w.client.Watch(w.ctx, &v1alpha1.MarketplaceList{}, client.InNamespace(w.namespace))
	w.must(err)
	defer watcher.Stop()
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Tasks.Template = &v1alpha1.PodTemplate{Annotations: map[string]string{"a": "b"}} })
	for event := range watcher.ResultChan() {
		seen, ok := event.Object.(*v1alpha1.Marketplace)
		if !ok {
			t.Fatalf("a %T came", event.Object)
		}
		if seen.Status.ObservedGeneration != m.Generation {
			continue
		}
		if err := checkConditions(seen); err != nil {
			t.Error(err)
		}
		if meta.IsStatusConditionTrue(seen.Status.Conditions, v1alpha1.ConditionReady) {
			t.Error("ready, though no new pod can be there")
		}
		break
	}
	w.looked()
	w.must(w.get("shop", m))
	if meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReady) {
		t.Error("ready, though no new pod is there")
	}

	w.frozen.Store(false)
	d := &appsv1.Deployment{}
	w.must(w.get("shop-tasks", d))
	w.runObject(w.ctx, d)
	w.awaitReady(m)
}
