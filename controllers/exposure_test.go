package controllers_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/internal/testpg"
)

// awaitExposed waits for what Exposed says, and returns the message.
func (w *world) awaitExposed(m *v1alpha1.Marketplace, status metav1.ConditionStatus, reason string) string {
	w.t.Helper()
	var message string
	w.eventually(fmt.Sprintf("Exposed is %s, %s", status, reason), func() error {
		if err := w.get(m.Name, m); err != nil {
			return err
		}
		if err := checkConditions(m); err != nil {
			return err
		}
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionExposed)
		if c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("Exposed = %+v", c)
		}
		message = c.Message
		return nil
	})
	return message
}

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}

// wantURLs compares the URLs from outside.
func wantURLs(t *testing.T, m *v1alpha1.Marketplace, public, webSocket string) {
	t.Helper()
	got := []string{m.Status.Endpoints.Public, m.Status.Endpoints.WebSocket}
	if diff := cmp.Diff([]string{public, webSocket}, got); diff != "" {
		t.Errorf("URLs from outside (-want +got):\n%s", diff)
	}
}

// admitIngress does what an Ingress controller does.
func (w *world) admitIngress(ingress *networkingv1.Ingress) {
	w.t.Helper()
	ingress.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
	w.must(w.client.Status().Update(w.ctx, ingress))
}

func TestIngress(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "exposure: {hostname: market.example.com, ingress: {className: nginx}}")

	wantText(t, w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonNotAdmitted), "class nginx", "Ingress shop-public")
	wantURLs(t, m, "http://market.example.com", "ws://market.example.com/v1/ws")
	w.eventually("it waits for the controller, and is not stalled", func() error {
		if err := w.get("shop", m); err != nil {
			return err
		}
		c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReconciling)
		if c == nil || c.Reason != v1alpha1.ReasonNotAdmitted {
			return fmt.Errorf("Reconciling = %+v", c)
		}
		return nil
	})
	ingress := &networkingv1.Ingress{}
	w.must(w.get("shop-public", ingress))
	w.admitIngress(ingress)
	w.awaitReady(m)
	wantText(t, w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady), "auth.trustedProxies does not name the proxy")
	w.edit(m, func() { m.Spec.Auth.TrustedProxies = []v1alpha1.Network{"10.244.0.0/16"} })
	w.eventually("no more to say", func() error {
		if message := w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady); strings.Contains(message, "trustedProxies") {
			return errors.New(message)
		}
		return nil
	})

	// A certificate that is not there, that cannot be one, and that can.
	w.edit(m, func() { m.Spec.Exposure.Ingress.TLS = &v1alpha1.IngressTLS{SecretName: "market-tls"} })
	wantText(t, w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing),
		"exposure.ingress.tls.secretName", "no Secret market-tls", "kubernetes.io/tls")
	wantURLs(t, m, "https://market.example.com", "wss://market.example.com/v1/ws")
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "market-tls", Namespace: w.namespace},
		Data:       map[string][]byte{"tls.crt": []byte("certificate")},
	}
	w.must(w.client.Create(w.ctx, secret))
	invalid := func(words ...string) {
		t.Helper()
		w.tells(m, v1alpha1.ConditionExposed, v1alpha1.ReasonSecretInvalid, words...)
	}
	put := func(certificate, key []byte) {
		t.Helper()
		w.edit(secret, func() { secret.Data = map[string][]byte{"tls.crt": certificate, "tls.key": key} })
	}
	invalid("market-tls has no key tls.key")
	put([]byte("certificate"), []byte("hunter2"))
	invalid("market-tls must hold a certificate (tls.crt) and its private key (tls.key), in PEM")
	authority := testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "market.example.com")
	elsewhere, elsewhereKey := authority.Issue(t, "elsewhere.example.com")
	put(certificate, elsewhereKey)
	invalid("must hold a certificate")
	put(elsewhere, elsewhereKey)
	invalid("not for exposure.hostname", "elsewhere.example.com")
	put(certificate, key)
	w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady)
	// It is for another host name once the spec is; and it expires.
	w.edit(m, func() { m.Spec.Exposure.Hostname = "fair.example.com" })
	invalid("valid for market.example.com, not fair.example.com")
	w.edit(m, func() { m.Spec.Exposure.Hostname = "market.example.com" })
	w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady)
	w.ahead.Store(int64(2 * time.Hour))
	invalid("market-tls expired at", "renew it")
	w.keepsFromPeople(m, "hunter2")
	w.ahead.Store(0)
	w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady)
	w.must(w.client.Delete(w.ctx, secret))
	w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing)

	w.edit(m, func() { m.Spec.Exposure = nil })
	w.eventually("the Ingress is gone", func() error {
		if err := w.get("shop-public", ingress); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
	w.awaitReady(m)
	wantURLs(t, m, "", "")
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionExposed); c != nil {
		t.Errorf("Exposed = %+v", c)
	}
}

// gateway plays the controller of a Gateway, and the one who installs its API.
type gateway struct {
	*world
	client client.Client
	crds   envtest.CRDInstallOptions
}

func newGateway(w *world) *gateway {
	w.t.Helper()
	dir, err := exec.CommandContext(w.ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		w.t.Fatalf("find the Gateway API's module: %v", err)
	}
	scheme := runtime.NewScheme()
	w.must(gatewayv1.Install(scheme))
	c, err := client.New(shared.config, client.Options{Scheme: scheme})
	w.must(err)
	g := &gateway{world: w, client: c, crds: envtest.CRDInstallOptions{
		Paths:              []string{filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml")},
		ErrorIfPathMissing: true,
	}}
	w.t.Cleanup(g.uninstall)
	return g
}

func (g *gateway) install() {
	g.t.Helper()
	_, err := envtest.InstallCRDs(shared.config, g.crds)
	g.must(err)
}

func (g *gateway) uninstall() {
	g.t.Helper()
	if err := envtest.UninstallCRDs(shared.config, g.crds); err != nil {
		g.t.Errorf("uninstall the Gateway API: %v", err)
	}
}

// gone waits until the definition is no more: while it is on its way out it is
// not served, and cannot be made again.
func (g *gateway) gone() {
	g.t.Helper()
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	g.eventually("the definition of HTTPRoutes is gone", func() error {
		err := g.world.client.Get(g.ctx, client.ObjectKey{Name: "httproutes." + desired.KindHTTPRoute.Group}, crd)
		if !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
}

// route waits for the HTTPRoute.
func (g *gateway) route() *gatewayv1.HTTPRoute {
	g.t.Helper()
	route := &gatewayv1.HTTPRoute{}
	g.eventually("there is an HTTPRoute", func() error {
		return g.client.Get(g.ctx, client.ObjectKey{Namespace: g.namespace, Name: "shop-public"}, route)
	})
	return route
}

// answer writes what the controller says of the route, of its first parent.
func (g *gateway) answer(accepted, resolved metav1.ConditionStatus, reason, message string) {
	g.t.Helper()
	route := g.route()
	condition := func(kind string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: message,
			ObservedGeneration: route.Generation, LastTransitionTime: metav1.Now(),
		}
	}
	route.Status.Parents = []gatewayv1.RouteParentStatus{{
		ParentRef:      route.Spec.ParentRefs[0],
		ControllerName: "example.com/gateway",
		Conditions:     []metav1.Condition{condition("Accepted", accepted), condition("ResolvedRefs", resolved)},
	}}
	g.must(g.client.Status().Update(g.ctx, route))
}

// The API comes, goes and comes again while the operator runs. What exposed the
// services before goes on until its successor is admitted.
func TestHTTPRoute(t *testing.T) {
	w := newWorld(t)
	g := newGateway(w)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "exposure: {hostname: market.example.com, ingress: {}}")
	ingress := &networkingv1.Ingress{}
	w.eventually("there is an Ingress", func() error { return w.get("shop-public", ingress) })
	w.admitIngress(ingress)
	w.awaitReady(m)

	w.edit(m, func() {
		m.Spec.Exposure.Ingress = nil
		m.Spec.Exposure.HTTPRoute = &v1alpha1.HTTPRouteExposure{
			ParentRefs: []v1alpha1.GatewayReference{{Name: "public", Namespace: "infra"}},
		}
	})
	wantText(t, w.awaitStalled(m, v1alpha1.ReasonAPIMissing),
		"exposure.httpRoute", "httproutes.gateway.networking.k8s.io", "exposure.ingress")
	w.must(w.get("shop-public", ingress))
	w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonAPIMissing)

	g.install()
	g.route()
	wantText(t, w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonNotAdmitted), "Gateway infra/public", "not answered")
	wantURLs(t, m, "https://market.example.com", "wss://market.example.com/v1/ws")
	w.must(w.get("shop-public", ingress))

	g.answer(metav1.ConditionFalse, metav1.ConditionTrue, "NotAllowedByListeners", "no listener wants it")
	w.eventually("the controller's words", func() error {
		message := w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonNotAdmitted)
		if !strings.Contains(message, "example.com/gateway says Accepted=False, NotAllowedByListeners: no listener wants it") {
			return errors.New(message)
		}
		return nil
	})
	g.answer(metav1.ConditionTrue, metav1.ConditionTrue, "Accepted", "")
	w.awaitExposed(m, metav1.ConditionTrue, v1alpha1.ReasonReady)
	w.awaitReady(m)
	w.eventually("the Ingress is gone", func() error {
		if err := w.get("shop-public", ingress); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})

	// What someone changes is changed back.
	route := g.route()
	route.Spec.Hostnames = []gatewayv1.Hostname{"elsewhere.example.com"}
	w.must(g.client.Update(w.ctx, route))
	w.eventually("the host name is as the spec says", func() error {
		if got := g.route().Spec.Hostnames; len(got) != 1 || got[0] != "market.example.com" {
			return fmt.Errorf("hostnames = %v", got)
		}
		return nil
	})

	g.uninstall()
	w.awaitStalled(m, v1alpha1.ReasonAPIMissing)
	g.gone()
	g.install()
	g.answer(metav1.ConditionTrue, metav1.ConditionTrue, "Accepted", "")
	w.awaitReady(m)

	w.edit(m, func() { m.Spec.Exposure = nil })
	w.eventually("the HTTPRoute is gone", func() error {
		err := g.client.Get(w.ctx, client.ObjectKeyFromObject(route), route)
		if !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
	w.awaitReady(m)
}
