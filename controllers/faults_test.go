package controllers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// cuts ends what an operator does for a Marketplace after so many writes, as if
// it were killed then: the write is done, and no request for that Marketplace
// comes through any more. Marketplaces are told apart by their names, which no
// two of them begin with alike.
type cuts struct {
	mu     sync.Mutex
	limits map[string]int
	writes map[string]int
}

// limit cuts the named Marketplace off after so many writes.
func (c *cuts) limit(name string, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits[name] = writes
}

// written says how often something was written for the named Marketplace.
func (c *cuts) written(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes[name]
}

var errKilled = errors.New("the operator was killed")

func (c *cuts) intercept(r *http.Request, next http.RoundTripper) (*http.Response, error) {
	if r.URL.Query().Get("watch") != "" || strings.Contains(r.URL.Path, "/events") {
		return next.RoundTrip(r)
	}
	// New Secrets are named in the body alone.
	told := []byte(r.URL.Path)
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		_ = r.Body.Close()
		r.Body = io.NopCloser(bytes.NewReader(body))
		told = append(told, body...)
	}
	if !c.passes(told, r.Method != http.MethodGet) {
		return nil, errKilled
	}
	return next.RoundTrip(r)
}

// passes says whether a request comes through, and counts it if it writes.
func (c *cuts) passes(told []byte, writes bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, limit := range c.limits {
		if !bytes.Contains(told, []byte(name)) {
			continue
		}
		if c.writes[name] >= limit {
			return false
		}
		if writes {
			c.writes[name]++
		}
	}
	return true
}

// The operator is killed after its first write for a Marketplace, after its
// second one, and so on, while it makes it: whatever is there then, the next one
// brings it to where an operator brings it that lives.
func TestKilledAfterEveryWrite(t *testing.T) {
	w := newWorld(t)
	w.killAfterEveryWrite("", nil)
}

// The same while it changes one that is ready: to another release, with another
// one who decides on replicas, and to a smaller bus.
func TestKilledAfterEveryWriteOfAChange(t *testing.T) {
	w := newWorld(t)
	spec := "{version: " + contract.PreviousRelease + ", bus: {embedded: {replicas: 3}}}"
	w.killAfterEveryWrite(spec, func(m *v1alpha1.Marketplace) {
		m.Spec.Version = contract.Release
		m.Spec.Auth.Autoscaling = &v1alpha1.CPUAutoscalingSpec{MaxReplicas: 4}
		m.Spec.Bus.Embedded.Replicas = 1
	})
}

// killAfterEveryWrite makes Marketplaces of this spec and, unless change is nil,
// changes them once they are ready; one operator lives through it, and those
// after it are killed after so many writes.
func (w *world) killAfterEveryWrite(spec string, change func(*v1alpha1.Marketplace)) {
	w.t.Helper()
	w.runEverything(true)
	// Many are looked at only when something happens.
	w.longestPause = 0
	c := &cuts{limits: map[string]int{}, writes: map[string]int{}}
	intercept := interceptor(c.intercept)
	w.intercept.Store(&intercept)
	log := w.log
	w.log = logr.FromSlogHandler(slog.DiscardHandler)
	stop := w.startOperator()
	begin := func(name string, writes int) *v1alpha1.Marketplace {
		w.t.Helper()
		if change == nil {
			c.limit(name, writes)
			return w.marketplace(name, spec)
		}
		m := w.marketplace(name, spec)
		w.awaitReady(m)
		c.limit(name, writes)
		w.edit(m, func() { change(m) })
		return m
	}
	whole := begin("whole", 1000)
	w.awaitReady(whole)
	writes := c.written("whole")
	if least := len(w.shapes(whole)); change == nil && writes < least {
		w.t.Fatalf("%d writes were seen for %d objects", writes, least)
	}

	var cut []*v1alpha1.Marketplace
	for k := 1; k <= writes; k++ {
		cut = append(cut, begin(fmt.Sprintf("cut%02d", k), k))
	}
	for k, m := range cut {
		w.eventually(m.Name+" is cut off, or complete", func() error {
			if c.written(m.Name) > k {
				return nil
			}
			return w.isReady(m)
		})
	}
	stop()

	before := w.secrets()
	w.intercept.Store(nil)
	w.log = log
	w.startOperator()
	want := w.shapes(whole)
	for _, m := range cut {
		w.awaitReady(m)
		if diff := cmp.Diff(want, w.shapes(m)); diff != "" {
			w.t.Errorf("%s: objects, against those of an operator that lives (-want +got):\n%s", m.Name, diff)
		}
	}
	after := w.secrets()
	for name, data := range before {
		if diff := cmp.Diff(data, after[name]); diff != "" {
			w.t.Errorf("the contents of Secret %s were replaced", name)
		}
	}
}

// secrets are the contents of all Secrets.
func (w *world) secrets() map[string]map[string][]byte {
	w.t.Helper()
	var list corev1.SecretList
	w.must(w.client.List(w.ctx, &list, client.InNamespace(w.namespace)))
	contents := map[string]map[string][]byte{}
	for _, secret := range list.Items {
		contents[secret.Name] = secret.Data
	}
	return contents
}

var (
	hashes      = regexp.MustCompile(`-migrate-[0-9a-f]+`)
	identifiers = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// shapes are the objects of a Marketplace without what no two of them share:
// its name, ids, addresses and random contents.
func (w *world) shapes(m *v1alpha1.Marketplace) map[string]string {
	w.t.Helper()
	objects := w.inventory()
	var autoscalers autoscalingv2.HorizontalPodAutoscalerList
	w.must(w.client.List(w.ctx, &autoscalers, client.InNamespace(w.namespace)))
	for i := range autoscalers.Items {
		objects["HorizontalPodAutoscaler/"+autoscalers.Items[i].Name] = &autoscalers.Items[i]
	}
	shapes := map[string]string{}
	for key, object := range objects {
		if !strings.HasPrefix(object.GetName(), m.Name+"-") {
			continue
		}
		document, err := json.Marshal(object)
		w.must(err)
		var content map[string]any
		w.must(json.Unmarshal(document, &content))
		w.blank(content)
		document, err = json.MarshalIndent(content, "", " ")
		w.must(err)
		text := strings.ReplaceAll(string(document), m.Name, "NAME")
		text = identifiers.ReplaceAllString(hashes.ReplaceAllString(text, "-migrate-HASH"), "ID")
		shapes[strings.ReplaceAll(key, m.Name, "NAME")] = text
	}
	return shapes
}

// blank removes what differs between two objects of one shape.
func (w *world) blank(content map[string]any) {
	delete(content, "status")
	for key, value := range content {
		switch v := value.(type) {
		case map[string]any:
			if key == "data" {
				for name := range maps.Keys(v) {
					v[name] = "DATA"
				}
			}
			w.blank(v)
		case []any:
			for _, item := range v {
				if item, ok := item.(map[string]any); ok {
					w.blank(item)
				}
			}
		}
		switch key {
		case "uid", "resourceVersion", "creationTimestamp", "managedFields", "clusterIP", "clusterIPs", desired.AnnotationConfig:
			delete(content, key)
		}
	}
}

// An object of someone else's that appears between the look and the apply is
// not taken over.
func TestForeignObjectThatAppearsMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	foreign := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "shop-tasks", Namespace: w.namespace},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1234}}},
	}
	var once sync.Once
	var failed error
	intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/services/shop-tasks") {
			once.Do(func() { failed = w.client.Create(w.ctx, foreign) })
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&intercept)
	w.startOperator()
	m := w.marketplace("shop", "")

	message := w.awaitStalled(m, v1alpha1.ReasonNameTaken)
	w.must(failed)
	if !strings.Contains(message, "Service shop-tasks exists and belongs to someone else") {
		t.Errorf("message = %q", message)
	}
	seen := &corev1.Service{}
	w.must(w.get("shop-tasks", seen))
	if diff := cmp.Diff(foreign, seen); diff != "" {
		t.Errorf("the foreign Service was written (-want +got):\n%s", diff)
	}
	w.must(w.client.Delete(w.ctx, seen))
	w.awaitReady(m)
}

// A Marketplace that is deleted while it is being made leaves nothing behind
// that nobody owns, but the volume that is to be kept; and nothing is made for
// it afterwards.
func TestDeletedMidway(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	deleted := make(chan struct{})
	var once sync.Once
	intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		// The last of what comes before the migration waits until the
		// Marketplace is gone.
		if strings.HasSuffix(r.URL.Path, "/poddisruptionbudgets/shop-messaging") {
			once.Do(func() { <-deleted })
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&intercept)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.eventually("it is half made", func() error { return w.get("shop-messaging", &corev1.Service{}) })
	w.must(w.client.Delete(w.ctx, m))
	close(deleted)
	w.eventually("the last of it is made", func() error { return w.get("shop-messaging", &policyv1.PodDisruptionBudget{}) })

	// Another one shows that the operator has looked since: the look that the
	// deletion met is over, and what it made still is the deleted one's.
	w.awaitReady(w.marketplace("next", ""))
	w.deleteOwned(m)
	w.looked()
	for key := range w.inventory() {
		if !strings.Contains(key, "/next-") && key != "PersistentVolumeClaim/shop-database" {
			t.Errorf("%s is left", key)
		}
	}
}

// While its namespace is being deleted, a Marketplace waits, and says so where
// it still can; the operator neither fails nor tries without end.
func TestNamespaceIsDeletedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.must(w.client.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	service := &corev1.Service{}
	w.must(w.get("shop-tasks", service))
	w.must(w.client.Delete(w.ctx, service))
	w.eventually("it waits", func() error {
		w.must(w.get("shop", m))
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReconciling)
		if c == nil || !strings.Contains(c.Message, "Service shop-tasks: the namespace is being deleted") {
			return fmt.Errorf("%+v", c)
		}
		return checkConditions(m)
	})
	before := w.versions(m)
	w.looked()
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("something was written (-before +after):\n%s", diff)
	}
}

// What waits for someone is told once, and not written again while it waits.
func TestMissingSecretIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	m := w.marketplace("shop", "database: {external: {urlSecretRef: {name: elsewhere}}}")
	w.eventually("it says what is missing", func() error {
		w.must(w.get("shop", m))
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionDatabaseReady)
		if c == nil || !strings.Contains(c.Message, "database.external.urlSecretRef") || !strings.Contains(c.Message, "elsewhere") {
			return fmt.Errorf("%+v", c)
		}
		return checkConditions(m)
	})
	w.looked()
	before := w.versions(m)
	w.looked()
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("something was written (-before +after):\n%s", diff)
	}
}
