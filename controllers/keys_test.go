package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// signing is the signing Secret and its keys.
func (w *world) signing() (*corev1.Secret, contract.SigningKeys) {
	w.t.Helper()
	secret := &corev1.Secret{}
	w.must(w.get("shop-signing", secret))
	keys, err := contract.ParseSigningKeys(secret.Data[contract.FileSigningKeys])
	w.must(err)
	return secret, keys
}

func ids(keys contract.SigningKeys) []string {
	var all []string
	for _, k := range keys.Keys {
		all = append(all, k.ID)
	}
	return all
}

// rotate asks for a new key, or takes the request away.
func (w *world) rotate(m *v1alpha1.Marketplace, value string) {
	w.t.Helper()
	w.annotate(m, v1alpha1.AnnotationRotateKeys, value)
}

// annotate sets an annotation, or removes it where the value is empty.
func (w *world) annotate(m *v1alpha1.Marketplace, name, value string) {
	w.t.Helper()
	w.must(w.get(m.Name, m))
	w.edit(m, func() {
		if m.Annotations == nil {
			m.Annotations = map[string]string{}
		}
		m.Annotations[name] = value
		if value == "" {
			delete(m.Annotations, name)
		}
	})
}

// pass lets the operator's clock go on by d.
func (w *world) pass(m *v1alpha1.Marketplace, d time.Duration) {
	w.t.Helper()
	ahead := w.ahead.Add(int64(d))
	// It would look by itself, but later.
	w.annotate(m, "test.marketplane.dev/clock", time.Duration(ahead).String())
}

// awaitKeys waits until the status tells of so many keys, of the answered
// request and of the key that signs (any, where it is empty), and until
// ConfigMap and Secret agree with it.
func (w *world) awaitKeys(m *v1alpha1.Marketplace, published int, answered, active string) v1alpha1.KeysStatus {
	w.t.Helper()
	w.eventually("the keys", func() error {
		if err := w.isReady(m); err != nil {
			return err
		}
		s := m.Status.Keys
		if s == nil || len(s.Published) != published || s.RotateRequest != answered || active != "" && s.Active != active {
			return fmt.Errorf("%+v, want %d keys, answered %q, active %q", s, published, answered, active)
		}
		_, keys := w.signing()
		if diff := cmp.Diff(ids(keys), s.Published); diff != "" {
			return fmt.Errorf("status and Secret (-Secret +status):\n%s", diff)
		}
		return w.publishes(keys)
	})
	return *m.Status.Keys
}

// publishes complains unless the ConfigMap holds exactly these keys.
func (w *world) publishes(keys contract.SigningKeys) error {
	jwks, err := keys.JWKS()
	if err != nil {
		return err
	}
	published := &corev1.ConfigMap{}
	if err := w.get("shop-jwks", published); err != nil {
		return err
	}
	if diff := cmp.Diff(string(jwks), published.Data[contract.FileJWKS]); diff != "" {
		return fmt.Errorf("JWKS (-Secret +ConfigMap):\n%s", diff)
	}
	return nil
}

// generations are those of the services' Deployments: they tell whether pods
// were rolled.
func (w *world) generations() map[string]int64 {
	w.t.Helper()
	var list appsv1.DeploymentList
	w.must(w.client.List(w.ctx, &list, client.InNamespace(w.namespace)))
	generations := map[string]int64{}
	for _, d := range list.Items {
		generations[d.Name] = d.Generation
	}
	return generations
}

func TestKeysAreRotatedOnRequest(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.looked()
	first := w.awaitKeys(m, 1, "", "")
	secret, _ := w.signing()
	refresh, pods := secret.Data[contract.FileRefreshKey], w.generations()
	w.hasEvent(m, "auth: key "+first.Active+" signs")
	if got, want := first.NextRotation.Sub(first.Schedule[0].ActivatesAt.Time), 720*time.Hour-contract.KeyLead; got != want {
		t.Errorf("the next key is made after %s, want %s", got, want)
	}

	// A request: the new key is published, and waits.
	w.rotate(m, "now")
	waiting := w.awaitKeys(m, 2, "now", first.Active)
	next := waiting.Schedule[1]
	if ahead := next.ActivatesAt.Sub(w.now()); ahead > contract.KeyLead+time.Second || ahead < contract.KeyLead-patience {
		t.Errorf("it signs in %s, want %s", ahead, contract.KeyLead)
	}
	if got, want := waiting.Schedule[0].RetiresAt.Time, next.ActivatesAt.Add(time.Hour); !got.Equal(want) {
		t.Errorf("the old key is retired at %s, want %s", got, want)
	}
	w.hasEvent(m, "auth: key "+next.ID+" is published, and signs from ")

	// Another request meanwhile is answered without another key, and no request
	// is answered twice, whoever looks.
	w.rotate(m, "again")
	w.awaitKeys(m, 2, "again", first.Active)
	w.hasEvent(m, "auth: key "+next.ID+", which was made before, signs from ")
	stop()
	stop = w.startOperator()
	w.looked()
	if diff := cmp.Diff(waiting.Published, w.awaitKeys(m, 2, "again", first.Active).Published); diff != "" {
		t.Errorf("another operator changed the keys (-before +after):\n%s", diff)
	}

	// The time comes while no operator is there: the next one tells of it.
	stop()
	w.ahead.Add(int64(contract.KeyLead))
	w.startOperator()
	w.awaitKeys(m, 2, "again", next.ID)
	w.hasEvent(m, "auth: key "+next.ID+" signs")

	w.pass(m, 59*time.Minute)
	w.looked()
	w.awaitKeys(m, 2, "again", next.ID)
	w.pass(m, 2*time.Minute)
	w.awaitKeys(m, 1, "again", next.ID)
	w.hasEvent(m, "auth: key "+first.Active+" is not published any more: no token of it is good any more")
	w.hasEvent(m, "ConfigMap shop-jwks: applied because the signing keys changed")

	// The same word may come again once it was taken away.
	w.rotate(m, "")
	w.awaitKeys(m, 1, "", next.ID)
	w.rotate(m, "again")
	w.awaitKeys(m, 2, "again", next.ID)

	secret, keys := w.signing()
	if !bytes.Equal(refresh, secret.Data[contract.FileRefreshKey]) {
		t.Error("the refresh key was changed")
	}
	if diff := cmp.Diff(pods, w.generations()); diff != "" {
		t.Errorf("pods were rolled (-before +after):\n%s", diff)
	}
	w.keepsSecret(keys)
}

// keepsSecret complains about private keys in Events, in the status and in the
// operator's log.
func (w *world) keepsSecret(keys contract.SigningKeys) {
	w.t.Helper()
	var events eventsv1.EventList
	w.must(w.client.List(w.ctx, &events, client.InNamespace(w.namespace)))
	m := &v1alpha1.Marketplace{}
	w.must(w.get("shop", m))
	texts := []string{fmt.Sprintf("%+v", m.Status), w.logged.String()}
	for _, e := range events.Items {
		texts = append(texts, e.Note)
	}
	for _, text := range texts {
		for _, k := range keys.Keys {
			lines := strings.Split(k.PrivateKey, "\n")
			if strings.Contains(text, lines[1]) || strings.Contains(text, "PRIVATE") {
				w.t.Errorf("a private key is told: %s", text)
			}
		}
	}
}

func TestKeysAreRotatedByPeriod(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "auth: {keyRotation: {period: 1h, overlap: 10m}}")
	w.awaitReady(m)
	active := w.awaitKeys(m, 1, "", "").Active
	for range 3 {
		// To the moment when the next key is made; a minute is for the test itself.
		w.pass(m, m.Status.Keys.NextRotation.Sub(w.now())+time.Second)
		next := w.awaitKeys(m, 2, "", active).Published[1]
		w.pass(m, contract.KeyLead)
		w.awaitKeys(m, 2, "", next)
		w.pass(m, 10*time.Minute)
		w.awaitKeys(m, 1, "", next)
		active = next
	}
	// A longer period counts at once.
	w.edit(m, func() { m.Spec.Auth.KeyRotation.Period.Duration = 48 * time.Hour })
	w.pass(m, 2*time.Hour)
	w.looked()
	w.awaitKeys(m, 1, "", active)
	// And a shorter one.
	w.edit(m, func() { m.Spec.Auth.KeyRotation.Period.Duration = 90 * time.Minute })
	w.awaitKeys(m, 2, "", active)
}

func TestKeysAreRevoked(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.rotate(m, "now")
	before := w.awaitKeys(m, 2, "now", "")
	secret, _ := w.signing()

	w.rotate(m, "revoke-1")
	after := w.awaitKeys(m, 1, "revoke-1", "")
	if slices.Contains(before.Published, after.Active) {
		t.Errorf("key %s is still there", after.Active)
	}
	w.hasEvent(m, fmt.Sprintf(`auth: key %s is not published any more: asked for by "revoke-1", at once; key %s`, before.Published[0], before.Published[1]))
	again, _ := w.signing()
	if !bytes.Equal(secret.Data[contract.FileRefreshKey], again.Data[contract.FileRefreshKey]) {
		t.Error("the refresh key was changed: every session has ended")
	}
}

func TestPausedRotatesNoKeys(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	before := w.awaitKeys(m, 1, "", "")
	w.edit(m, func() { m.Spec.Paused = true })
	w.rotate(m, "now")
	w.pass(m, 1000*time.Hour)
	w.looked()
	w.eventually("what is due is told", func() error {
		w.must(w.get("shop", m))
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionKeysCurrent)
		if c.Status != "True" || !strings.Contains(c.Message, "is not made while spec.paused is set") {
			return fmt.Errorf("%+v", c)
		}
		return checkConditions(m)
	})
	if diff := cmp.Diff(before, *m.Status.Keys); diff != "" {
		t.Errorf("keys (-before +after):\n%s", diff)
	}
	_, keys := w.signing()
	w.must(w.publishes(keys))

	w.edit(m, func() { m.Spec.Paused = false })
	w.awaitKeys(m, 2, "now", before.Active)
}

// A Secret that was deleted is made again, and what was asked before is not
// asked of it; one that lacks a part is left alone.
func TestSigningSecretByHand(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.rotate(m, "now")
	before := w.awaitKeys(m, 2, "now", "")

	secret, _ := w.signing()
	w.must(w.client.Delete(w.ctx, secret))
	w.eventually("new keys", func() error {
		w.must(w.get("shop", m))
		if m.Status.Keys == nil || slices.Contains(before.Published, m.Status.Keys.Active) {
			return fmt.Errorf("%+v", m.Status.Keys)
		}
		return nil
	})
	after := w.awaitKeys(m, 1, "now", "")

	for _, part := range []string{contract.FileRefreshKey, contract.FileSigningKeys} {
		secret, _ = w.signing()
		whole := secret.Data[part]
		w.edit(secret, func() { delete(secret.Data, part) })
		message := w.awaitStalled(m, v1alpha1.ReasonSecretInvalid)
		if !strings.Contains(message, fmt.Sprintf("Secret shop-signing has no key %q", part)) {
			t.Errorf("message = %q", message)
		}
		w.rotate(m, "while "+part+" is missing")
		w.looked()
		w.must(w.get("shop-signing", secret))
		if len(secret.Data[part]) > 0 {
			t.Errorf("%s was made anew", part)
		}
		w.edit(secret, func() { secret.Data[part] = whole })
		w.eventually("it is answered", func() error {
			if err := w.isReady(m); err != nil {
				return err
			}
			if got := m.Status.Keys.RotateRequest; got != "while "+part+" is missing" {
				return fmt.Errorf("answered %q", got)
			}
			return nil
		})
	}
	// The first of them made a key; the second came while that one waited.
	if got := w.awaitKeys(m, 2, m.Status.Keys.RotateRequest, after.Active).Published; got[0] != after.Active {
		t.Errorf("the key that was restored is lost: %q", got)
	}
}

// isWrite says whether a request changes the named object.
func isWrite(r *http.Request, resource, name string) bool {
	return r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/"+resource+"/"+name)
}

// Someone writes the Secret in the same moment as the operator, who has not
// seen it yet: no key is lost.
func TestKeysOfOthersAreNotLost(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.looked()

	other, err := contract.NewSigningKey(w.now().Add(-time.Hour))
	w.must(err)
	var once atomic.Bool
	intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if isWrite(r, "secrets", "shop-signing") && once.CompareAndSwap(false, true) {
			secret, keys := w.signing()
			keys.Keys = append([]contract.SigningKey{other}, keys.Keys...)
			document, err := keys.Marshal()
			w.must(err)
			w.edit(secret, func() { secret.Data[contract.FileSigningKeys] = document })
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&intercept)
	w.rotate(m, "now")
	w.eventually("both keys are there", func() error {
		_, keys := w.signing()
		if len(keys.Keys) != 3 || keys.Keys[0].ID != other.ID {
			return fmt.Errorf("%q", ids(keys))
		}
		return w.publishes(keys)
	})
	if !once.Load() {
		t.Error("nobody came between")
	}
}

// The operator ends, or loses the API server, at every step of a rotation: the
// next look finishes it, with one new key, and no key was ever in the Secret
// that was not published before.
func TestRotationIsFinishedAfterAFailure(t *testing.T) {
	tests := map[string]struct {
		resource, name string
		// after: the request arrives, and its answer is lost.
		after bool
	}{
		"before the public keys": {"configmaps", "shop-jwks", false},
		"after the public keys":  {"configmaps", "shop-jwks", true},
		"before the Secret":      {"secrets", "shop-signing", false},
		"after the Secret":       {"secrets", "shop-signing", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runEverything(true)
			stop := w.startOperator()
			m := w.marketplace("shop", "")
			w.awaitReady(m)
			w.looked()

			lost := make(chan struct{})
			var broken atomic.Bool
			intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if broken.Load() && r.Method != http.MethodGet {
					return nil, errors.New("test: no connection")
				}
				if isWrite(r, "secrets", "shop-signing") {
					published := &corev1.ConfigMap{}
					w.must(w.get("shop-jwks", published))
					if n := strings.Count(published.Data[contract.FileJWKS], `"kid"`); n != 2 {
						t.Errorf("%d keys are published before the Secret is written, want 2", n)
					}
				}
				if !isWrite(r, tt.resource, tt.name) || !broken.CompareAndSwap(false, true) {
					return next.RoundTrip(r)
				}
				defer close(lost)
				if tt.after {
					if answer, err := next.RoundTrip(r); err == nil {
						_ = answer.Body.Close()
					}
				}
				return nil, errors.New("test: no connection")
			})
			w.intercept.Store(&intercept)
			w.rotate(m, "now")
			select {
			case <-lost:
			case <-time.After(patience):
				t.Fatal("nothing was written")
			}
			stop()
			w.intercept.Store(nil)
			w.startOperator()
			w.awaitKeys(m, 2, "now", "")
			w.looked()
			w.awaitKeys(m, 2, "now", "")
		})
	}
}

// The Secret is written, and the operator does not hear of it: until it knows,
// it takes no key out of what is published.
func TestUnknownKeyStaysPublished(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)
	w.looked()

	var lost atomic.Bool
	intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		switch {
		case isWrite(r, "secrets", "shop-signing") && lost.CompareAndSwap(false, true):
			if answer, err := next.RoundTrip(r); err == nil {
				_ = answer.Body.Close()
			}
			return nil, errors.New("test: no connection")
		case isWrite(r, "configmaps", "shop-jwks") && lost.Load():
			body, err := io.ReadAll(r.Body)
			w.must(err)
			if n := bytes.Count(body, []byte("kid")); n != 2 {
				t.Errorf("%d keys are published, want 2", n)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&intercept)
	w.rotate(m, "now")
	w.awaitKeys(m, 2, "now", "")
	w.looked()
	if !lost.Load() {
		t.Error("no answer was lost")
	}
}
