//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
)

// readyWithin bounds how long a new Marketplace may take.
const readyWithin = 4 * time.Minute

// marketplace is one Marketplace in a namespace of its own.
type marketplace struct {
	name, namespace string
}

// small is a Marketplace that fits many times on a small machine, and drains
// quickly.
func small() v1alpha1.MarketplaceSpec {
	return v1alpha1.MarketplaceSpec{
		Database: v1alpha1.DatabaseSpec{Embedded: &v1alpha1.EmbeddedDatabase{Storage: v1alpha1.StorageSpec{
			Size: resource.MustParse("1Gi"), DeletionPolicy: v1alpha1.DeletionDelete,
		}}},
		Auth:  v1alpha1.AuthSpec{Replicas: new(int32(1))},
		Tasks: v1alpha1.TasksSpec{Replicas: new(int32(1))},
		Messaging: v1alpha1.MessagingSpec{
			Replicas: new(int32(1)),
			Drain:    v1alpha1.DrainSpec{FloorSeconds: new(int32(3)), WindowSeconds: new(int32(12))},
		},
	}
}

// makeNamespace makes a namespace for the test, in which only pods that need no
// privilege may run, and deletes it with all that is in it at the end. What Kubernetes
// puts into every namespace is there.
func makeNamespace(t *testing.T, prefix string) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + prefix + "-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := cluster.kube.Create(t.Context(), ns); err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's has ended
		defer cancel()
		if t.Failed() {
			explain(ctx, t, ns.Name)
		}
		if err := empty(ctx, ns); err != nil {
			t.Errorf("empty namespace %s: %v", ns.Name, err)
		}
		cluster.left = append(cluster.left, ns)
	})
	eventually(t, time.Minute, "Kubernetes has put its own into "+ns.Name, func(ctx context.Context) error {
		in := func(name string) kube.ObjectKey { return kube.ObjectKey{Namespace: ns.Name, Name: name} }
		return errors.Join(
			cluster.kube.Get(ctx, in("default"), &corev1.ServiceAccount{}),
			cluster.kube.Get(ctx, in("kube-root-ca.crt"), &corev1.ConfigMap{}),
		)
	})
	return ns.Name
}

// empty makes room for the next journey: it deletes a namespace, and kills the pods in
// it at once. Kubernetes comes back for the rest after half of the grace that they
// had, which leftNothing waits for.
func empty(ctx context.Context, ns *corev1.Namespace) error {
	if err := cluster.kube.Delete(ctx, ns); err != nil {
		return err
	}
	return poll(ctx, time.Minute, func(ctx context.Context) error {
		list := &corev1.PodList{}
		err := errors.Join(
			cluster.kube.DeleteAllOf(ctx, &corev1.Pod{}, kube.InNamespace(ns.Name), kube.GracePeriodSeconds(0)),
			cluster.kube.List(ctx, list, kube.InNamespace(ns.Name)),
		)
		if n := len(list.Items); err == nil && n > 0 {
			err = fmt.Errorf("%d pods are still there", n)
		}
		return err
	})
}

// leftNothing waits until all that journeys made is gone.
func leftNothing(ctx context.Context) error {
	var errs []error
	for _, ns := range cluster.left {
		if err := poll(ctx, 3*time.Minute, func(ctx context.Context) error { return isGone(ctx, ns) }); err != nil {
			errs = append(errs, fmt.Errorf("namespace %s does not go: %w: %v", ns.Name, err, ns.Status.Conditions))
		}
	}
	return errors.Join(errs...)
}

// isGone says what is missing until the object does not exist any more.
func isGone(ctx context.Context, object kube.Object) error {
	err := cluster.kube.Get(ctx, kube.ObjectKeyFromObject(object), object)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s is still there", object.GetName())
}

// apply makes the Marketplace.
func (m marketplace) apply(t *testing.T, spec v1alpha1.MarketplaceSpec) {
	t.Helper()
	object := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: m.name, Namespace: m.namespace}, Spec: spec}
	if err := cluster.kube.Create(t.Context(), object); err != nil {
		t.Fatalf("make Marketplace %s: %v", m.name, err)
	}
}

// start makes a namespace and a Marketplace in it, and waits until it is ready.
func start(t *testing.T, name string, spec v1alpha1.MarketplaceSpec) marketplace {
	t.Helper()
	m := marketplace{name: name, namespace: makeNamespace(t, name)}
	m.apply(t, spec)
	m.waitReady(t)
	return m
}

func (m marketplace) get(ctx context.Context) (*v1alpha1.Marketplace, error) {
	object := &v1alpha1.Marketplace{}
	return object, cluster.kube.Get(ctx, kube.ObjectKey{Namespace: m.namespace, Name: m.name}, object)
}

// change edits the spec.
func (m marketplace) change(t *testing.T, edit func(*v1alpha1.MarketplaceSpec)) {
	t.Helper()
	object, err := m.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := object.DeepCopy()
	edit(&object.Spec)
	if err := cluster.kube.Patch(t.Context(), object, kube.MergeFrom(before)); err != nil {
		t.Fatalf("change Marketplace %s: %v", m.name, err)
	}
}

// isReady says what is missing until the Marketplace is ready as it is
// specified now.
func (m marketplace) isReady(ctx context.Context) error {
	object, err := m.get(ctx)
	if err != nil {
		return err
	}
	if object.Status.ObservedGeneration != object.Generation {
		return fmt.Errorf("generation %d is not observed yet", object.Generation)
	}
	if !meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionReady) {
		return fmt.Errorf("conditions:\n%s", conditionsOf(object))
	}
	if meta.IsStatusConditionTrue(object.Status.Conditions, v1alpha1.ConditionReconciling) {
		return fmt.Errorf("it is ready, and still on its way:\n%s", conditionsOf(object))
	}
	return nil
}

func (m marketplace) waitReady(t *testing.T) {
	t.Helper()
	eventually(t, readyWithin, "Marketplace "+m.name+" is ready", m.isReady)
}

func conditionsOf(object *v1alpha1.Marketplace) string {
	var b strings.Builder
	for _, c := range object.Status.Conditions {
		fmt.Fprintf(&b, "  %s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// urls are the addresses of the Services, as the host reaches them.
func (m marketplace) urls(t *testing.T) client.URLs {
	t.Helper()
	address := func(component string) string { return "http://" + m.clusterIP(t, component) }
	return client.URLs{
		Auth:      address(contract.ComponentAuth),
		Tasks:     address(contract.ComponentTasks),
		Messaging: address(contract.ComponentMessaging),
	}
}

// clusterIP is the address of a component's Service.
func (m marketplace) clusterIP(t *testing.T, component string) string {
	t.Helper()
	service := &corev1.Service{}
	key := kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-" + component}
	if err := cluster.kube.Get(t.Context(), key, service); err != nil {
		t.Fatalf("find Service %s: %v", key, err)
	}
	return service.Spec.ClusterIP
}

// client returns a client with room for the connections of many users.
func (m marketplace) client(t *testing.T) *client.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	return client.New(m.urls(t), transport)
}

// pods lists a component's pods, those that terminate too.
func (m marketplace) pods(ctx context.Context, component string) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	err := cluster.kube.List(ctx, list, kube.InNamespace(m.namespace), kube.MatchingLabels{
		contract.LabelMarketplace: m.name, contract.LabelComponent: component,
	})
	return list.Items, err
}

// explain logs what one would look at after a failure.
func explain(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	marketplaces := &v1alpha1.MarketplaceList{}
	pods, system, events := &corev1.PodList{}, &corev1.PodList{}, &corev1.EventList{}
	for _, list := range []kube.ObjectList{marketplaces, pods, events} {
		if err := cluster.kube.List(ctx, list, kube.InNamespace(namespace)); err != nil {
			t.Logf("list %T: %v", list, err)
		}
	}
	if err := cluster.kube.List(ctx, system, kube.InNamespace(systemNamespace)); err != nil {
		t.Logf("list the operator's pods: %v", err)
	}
	for i := range marketplaces.Items {
		t.Logf("Marketplace %s:\n%s", marketplaces.Items[i].Name, conditionsOf(&marketplaces.Items[i]))
	}
	for _, e := range events.Items {
		t.Logf("event: %s %s/%s %s: %s", e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	for _, p := range append(pods.Items, system.Items...) {
		t.Logf("pod %s: %s, its last lines:\n%s", p.Name, p.Status.Phase, lastLines(ctx, p))
	}
}

func lastLines(ctx context.Context, pod corev1.Pod) string {
	stream, err := cluster.logs.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		TailLines: new(int64(15)),
	}).Stream(ctx)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = stream.Close() }()
	const enough = 16 << 10
	text, err := io.ReadAll(io.LimitReader(stream, enough))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
