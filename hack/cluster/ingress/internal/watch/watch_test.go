package watch

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// apiServer answers reads of one Secret and notes what is patched.
type apiServer struct {
	mu      sync.Mutex
	answer  int // to reads of the Secret shop/cert
	patches []string
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPatch:
		body, _ := io.ReadAll(r.Body)
		s.patches = append(s.patches, r.URL.Path+" "+string(body))
		_, _ = io.WriteString(w, `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress"}`)
	case r.URL.Path == "/api/v1/namespaces/shop/secrets/cert" && s.answer == http.StatusOK:
		_, _ = io.WriteString(w, `{"apiVersion":"v1","kind":"Secret","data":{"tls.crt":"aGVsbG8="}}`)
	default:
		w.WriteHeader(s.answer)
		_, _ = fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","code":%d,"reason":%q}`, s.answer,
			map[int]string{http.StatusNotFound: "NotFound", http.StatusForbidden: "Forbidden"}[s.answer])
	}
}

func (s *apiServer) answers(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = status
}

func newCluster(t *testing.T, s *apiServer) *Cluster {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, err := New(&rest.Config{Host: server.URL}, "local")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ingress(name, class string, age time.Duration) *networkingv1.Ingress {
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age)),
	}}
	if class != "" {
		i.Spec.IngressClassName = &class
	}
	return i
}

func TestStateIsOfTheClassAndTheOldestFirst(t *testing.T) {
	t.Parallel()
	c := newCluster(t, &apiServer{})
	leaving := ingress("leaving", "local", 0)
	leaving.DeletionTimestamp = &metav1.Time{Time: time.Unix(1e9, 0)}
	for _, i := range []*networkingv1.Ingress{
		ingress("young", "local", time.Minute), ingress("old", "local", time.Hour), ingress("b", "local", 0), ingress("a", "local", 0),
		ingress("other", "nginx", 0), ingress("without", "", 0), leaving,
	} {
		if err := c.ingresses.GetStore().Add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.services.GetStore().Add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "auth"}}); err != nil {
		t.Fatal(err)
	}
	state := c.State(t.Context())
	var got []string
	for _, i := range state.Ingresses {
		got = append(got, i.Name)
	}
	if diff := cmp.Diff([]string{"old", "young", "a", "b"}, got); diff != "" {
		t.Errorf("Ingresses (-want +got):\n%s", diff)
	}
	if state.Services[types.NamespacedName{Namespace: "shop", Name: "auth"}] == nil {
		t.Error("the Service is missing")
	}
}

// A certificate goes when its Secret does, and not when it can't be read.
func TestSecretsAreKeptWhileTheyCannotBeRead(t *testing.T) {
	t.Parallel()
	server := &apiServer{answer: http.StatusForbidden}
	c := newCluster(t, server)
	i := ingress("shop", "local", 0)
	i.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "cert"}, {SecretName: "cert"}, {}}
	if err := c.ingresses.GetStore().Add(i); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		answer int
		want   bool
	}{
		{http.StatusForbidden, false},
		{http.StatusOK, true},
		{http.StatusForbidden, true},
		{http.StatusNotFound, false},
		{http.StatusForbidden, false},
	} {
		server.answers(step.answer)
		secret := c.State(t.Context()).Secrets[types.NamespacedName{Namespace: "shop", Name: "cert"}]
		if got := secret != nil && string(secret.Data["tls.crt"]) == "hello"; got != step.want {
			t.Errorf("after %d: there is a certificate: %t, want %t", step.answer, got, step.want)
		}
	}
}

func TestReportWritesWhatIsNotThere(t *testing.T) {
	t.Parallel()
	server := &apiServer{}
	c := newCluster(t, server)
	said := ingress("said", "local", 0)
	said.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "10.96.0.80"}}
	other := ingress("other", "local", 0)
	other.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "10.96.0.80"}, {IP: "10.96.0.81"}}
	for _, i := range []*networkingv1.Ingress{ingress("new", "local", 0), said, other} {
		if err := c.Report(t.Context(), i, "10.96.0.80"); err != nil {
			t.Fatal(err)
		}
	}
	const status = `{"status":{"loadBalancer":{"ingress":[{"ip":"10.96.0.80"}]}}}`
	want := []string{
		"/apis/networking.k8s.io/v1/namespaces/shop/ingresses/new/status " + status,
		"/apis/networking.k8s.io/v1/namespaces/shop/ingresses/other/status " + status,
	}
	if diff := cmp.Diff(want, server.patches); diff != "" {
		t.Errorf("patches (-want +got):\n%s", diff)
	}
}
