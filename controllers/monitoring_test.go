package controllers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// prometheusOperator installs and removes the definitions of the Prometheus
// Operator's kinds, as its own release has them.
type prometheusOperator struct {
	*world
	crds envtest.CRDInstallOptions
}

func newPrometheusOperator(w *world) *prometheusOperator {
	w.t.Helper()
	download := exec.CommandContext(w.ctx, "go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator")
	download.Dir = filepath.Join("..", "hack", "promql")
	answer, err := download.Output()
	if err != nil {
		w.t.Fatalf("find the Prometheus Operator's module: %v", err)
	}
	var module struct{ Dir string }
	w.must(json.Unmarshal(answer, &module))
	folder := filepath.Join(module.Dir, "example", "prometheus-operator-crd")
	p := &prometheusOperator{world: w, crds: envtest.CRDInstallOptions{
		Paths: []string{
			filepath.Join(folder, "monitoring.coreos.com_podmonitors.yaml"),
			filepath.Join(folder, "monitoring.coreos.com_prometheusrules.yaml"),
		},
		ErrorIfPathMissing: true,
	}}
	w.t.Cleanup(p.uninstall)
	return p
}

func (p *prometheusOperator) install() {
	p.t.Helper()
	_, err := envtest.InstallCRDs(shared.config, p.crds)
	p.must(err)
}

// uninstall waits until nobody can see the kinds any more.
func (p *prometheusOperator) uninstall() {
	p.t.Helper()
	p.must(envtest.UninstallCRDs(shared.config, p.crds))
	d, err := discovery.NewDiscoveryClientForConfig(shared.config)
	p.must(err)
	p.eventually("the kinds are gone", func() error {
		_, err := d.ServerResourcesForGroupVersion(desired.KindPodMonitor.GroupVersion().String())
		if !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
}

// object reads one of the optional kinds, nil where there is none.
func (p *prometheusOperator) object(kind schema.GroupVersionKind) *unstructured.Unstructured {
	p.t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(kind)
	err := p.get("shop", u)
	if apierrors.IsNotFound(err) {
		return nil
	}
	p.must(err)
	return u
}

func (p *prometheusOperator) eventuallyWatched() {
	p.t.Helper()
	p.eventually("the Marketplace is watched", func() error {
		monitor, rule := p.object(desired.KindPodMonitor), p.object(desired.KindPrometheusRule)
		if monitor == nil || rule == nil {
			return fmt.Errorf("PodMonitor: %t, PrometheusRule: %t", monitor != nil, rule != nil)
		}
		return p.get("shop-dashboard", &corev1.ConfigMap{})
	})
}

func (p *prometheusOperator) eventuallyNoDashboard() {
	p.t.Helper()
	p.eventually("there is no dashboard", func() error {
		if err := p.get("shop-dashboard", &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
}

// The Prometheus Operator is installed, used, and removed while the operator
// runs; no operator is restarted for it.
func TestMonitoringObjects(t *testing.T) {
	w := newWorldAlone(t)
	p := newPrometheusOperator(w)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "monitoring: {labels: {release: prometheus}, intervalSeconds: 15}")
	w.awaitReady(m)
	if err := w.get("shop-dashboard", &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dashboard without the APIs: %v", orFound(err))
	}

	p.install()
	p.eventuallyWatched()
	w.awaitReady(m)
	for _, kind := range []schema.GroupVersionKind{desired.KindPodMonitor, desired.KindPrometheusRule} {
		if got := p.object(kind).GetLabels(); got["release"] != "prometheus" || got[desired.LabelManagedBy] != desired.ManagedBy {
			t.Errorf("labels of the %s: %v", kind.Kind, got)
		}
	}
	rules, _, err := unstructured.NestedSlice(p.object(desired.KindPrometheusRule).Object, "spec", "groups")
	w.must(err)
	if len(rules) != 1 {
		t.Errorf("rule groups = %v", rules)
	}

	// Nothing is written while nothing changes, though these kinds are known by
	// their metadata alone.
	w.looked()
	before := p.object(desired.KindPrometheusRule).GetResourceVersion()
	requests := w.requests.Load()
	w.looked()
	// Discovery is asked every few seconds.
	if n := w.requests.Load() - requests; n > 10 {
		t.Errorf("%d requests without a change", n)
	}
	if after := p.object(desired.KindPrometheusRule).GetResourceVersion(); after != before {
		t.Errorf("the PrometheusRule was written without a change: %s, then %s", before, after)
	}

	// What someone else does is undone; what the spec asks is done.
	gone := p.object(desired.KindPodMonitor)
	w.must(w.client.Delete(w.ctx, gone))
	p.eventually("the PodMonitor is made again", func() error {
		if found := p.object(desired.KindPodMonitor); found == nil || found.GetUID() == gone.GetUID() {
			return errors.New("it is not")
		}
		return nil
	})
	seconds := int32(60)
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Monitoring.IntervalSeconds = &seconds })
	p.eventually("the interval is the spec's", func() error {
		endpoints, _, err := unstructured.NestedSlice(p.object(desired.KindPodMonitor).Object, "spec", "podMetricsEndpoints")
		if err != nil {
			return err
		}
		if text := fmt.Sprint(endpoints); !strings.Contains(text, "interval:60s") {
			return fmt.Errorf("endpoints = %s", text)
		}
		return nil
	})
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Monitoring.Disabled = true })
	p.eventually("all are removed", func() error {
		for _, kind := range []schema.GroupVersionKind{desired.KindPodMonitor, desired.KindPrometheusRule} {
			if p.object(kind) != nil {
				return fmt.Errorf("the %s is still there", kind.Kind)
			}
		}
		return nil
	})
	p.eventuallyNoDashboard()

	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Monitoring.Disabled = false })
	p.eventuallyWatched()
	p.uninstall()
	p.eventuallyNoDashboard()
	w.awaitReady(m)
}

// Discovery fails when the operator starts. It does not take the APIs for gone:
// nothing is deleted, and nobody is told to install what may be there.
func TestOptionalAPIsThatAreNotKnown(t *testing.T) {
	w := newWorldAlone(t)
	p := newPrometheusOperator(w)
	p.install()
	w.runEverything(true)
	stop := w.startOperator()
	m := w.marketplace("shop", "exposure: {hostname: market.example.com, httpRoute: {parentRefs: [{name: public}]}}")
	p.eventuallyWatched()
	w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonAPIMissing)
	before := &corev1.ConfigMap{}
	w.must(w.get("shop-dashboard", before))

	stop()
	intercept := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		for _, kind := range []schema.GroupVersionKind{desired.KindPodMonitor, desired.KindHTTPRoute} {
			if r.URL.Path == "/apis/"+kind.GroupVersion().String() {
				return nil, errors.New("discovery fails")
			}
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&intercept)
	w.startOperator()
	wantText(t, w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonWaiting), "not known yet whether the cluster serves HTTPRoute")
	w.looked()
	after := &corev1.ConfigMap{}
	w.must(w.get("shop-dashboard", after))
	if diff := cmp.Diff(before.ObjectMeta, after.ObjectMeta); diff != "" {
		t.Errorf("the dashboard was touched (-before +after):\n%s", diff)
	}
	if p.object(desired.KindPodMonitor) == nil || p.object(desired.KindPrometheusRule) == nil {
		t.Error("the PodMonitor or the PrometheusRule was deleted")
	}

	w.intercept.Store(nil)
	w.awaitExposed(m, metav1.ConditionFalse, v1alpha1.ReasonAPIMissing)
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Monitoring.Disabled = true })
	p.eventuallyNoDashboard()
	p.uninstall()
}
