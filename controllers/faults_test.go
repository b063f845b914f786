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
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

func (c *cuts) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
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
	})
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
// second one, and so on: whatever is there then, the next one brings it to
// where an operator brings it that lives.
func TestKilledAfterEveryWrite(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	// Many are looked at only when something happens.
	w.config.LongestPause = 0
	c := &cuts{limits: map[string]int{"whole": 1000}, writes: map[string]int{}}
	w.wrap, w.log = c.wrap, logr.FromSlogHandler(slog.DiscardHandler)
	stop := w.startOperator()
	whole := w.marketplace("whole", "")
	w.awaitReady(whole)
	writes := c.written("whole")
	if least := len(w.shapes(whole)); writes < least {
		t.Fatalf("%d writes were seen for %d objects", writes, least)
	}

	var cut []*v1alpha1.Marketplace
	for k := 1; k <= writes; k++ {
		name := fmt.Sprintf("cut%02d", k)
		c.limit(name, k)
		cut = append(cut, w.marketplace(name, ""))
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
	w.wrap, w.log = nil, logr.Logger{}
	w.startOperator()
	want := w.shapes(whole)
	for _, m := range cut {
		w.awaitReady(m)
		if diff := cmp.Diff(want, w.shapes(m)); diff != "" {
			t.Errorf("%s: objects, against those of an operator that lives (-want +got):\n%s", m.Name, diff)
		}
	}
	after := w.secrets()
	for name, data := range before {
		if diff := cmp.Diff(data, after[name]); diff != "" {
			t.Errorf("the contents of Secret %s were replaced", name)
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
	shapes := map[string]string{}
	for key, object := range w.inventory() {
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
