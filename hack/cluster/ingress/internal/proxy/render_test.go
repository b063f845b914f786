package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/watch"
)

var listen = Listen{HTTP: ":80", HTTPS: ":443"}

// ingress makes an Ingress of one host; paths are "PATH -> SERVICE:PORT", with
// a "=" before PATH for an exact one.
func ingress(name, host string, paths ...string) networkingv1.Ingress {
	value := &networkingv1.HTTPIngressRuleValue{}
	for _, p := range paths {
		path, target, _ := strings.Cut(p, " -> ")
		service, port, _ := strings.Cut(target, ":")
		kind := networkingv1.PathTypePrefix
		if strings.HasPrefix(path, "=") {
			kind, path = networkingv1.PathTypeExact, path[1:]
		}
		value.Paths = append(value.Paths, networkingv1.HTTPIngressPath{
			Path: path, PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
				Name: service, Port: networkingv1.ServiceBackendPort{Name: port},
			}},
		})
	}
	return networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: host, IngressRuleValue: networkingv1.IngressRuleValue{HTTP: value},
		}}},
	}
}

func withTLS(i networkingv1.Ingress, secret string, hosts ...string) networkingv1.Ingress {
	i.Spec.TLS = []networkingv1.IngressTLS{{SecretName: secret, Hosts: hosts}}
	return i
}

func key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: name}
}

// service makes a Service with the port http.
func service(address string, port int32) *corev1.Service {
	return &corev1.Service{Spec: corev1.ServiceSpec{
		ClusterIP: address, Ports: []corev1.ServicePort{{Name: "http", Port: port}},
	}}
}

// certificateFor makes a Secret of type kubernetes.io/tls.
func certificateFor(t *testing.T, host string) *corev1.Secret {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	chain, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}}
}

func TestRenderSaysWhatCannotBeServed(t *testing.T) {
	t.Parallel()
	services := map[types.NamespacedName]*corev1.Service{
		key("auth"): service("10.96.0.20", 80), key("headless"): service(corev1.ClusterIPNone, 80),
	}
	resource := ingress("odd", "a.test")
	resource.Spec.DefaultBackend = &networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket", Name: "b"}}
	for name, test := range map[string]struct {
		ingresses    []networkingv1.Ingress
		secrets      map[types.NamespacedName]*corev1.Secret
		wantProblems []string
	}{
		"nothing at all":   {},
		"all is well":      {ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/v1 -> auth:http")}},
		"no such Service":  {ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/v1 -> tasks:http")}, wantProblems: []string{`Ingress shop/shop: host "a.test", path "/v1": there is no Service "tasks"`}},
		"headless Service": {ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/v1 -> headless:http")}, wantProblems: []string{`Ingress shop/shop: host "a.test", path "/v1": the Service "headless" has no ClusterIP`}},
		"no such port":     {ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/v1 -> auth:grpc")}, wantProblems: []string{`Ingress shop/shop: host "a.test", path "/v1": the Service "auth" has no port grpc`}},
		"a resource":       {ingresses: []networkingv1.Ingress{resource}, wantProblems: []string{`Ingress shop/odd: host "", path "": only a Service can be a backend here`}},
		"taken": {
			ingresses:    []networkingv1.Ingress{ingress("old", "a.test", "/v1 -> auth:http"), ingress("new", "a.test", "/v1/ -> auth:http", "=/v1 -> auth:http")},
			wantProblems: []string{`Ingress shop/new: host "a.test", path "/v1/": an older Ingress has it`},
		},
		"no certificate": {
			ingresses:    []networkingv1.Ingress{withTLS(ingress("shop", "a.test", "/v1 -> auth:http"), "cert")},
			wantProblems: []string{`Ingress shop/shop: spec.tls: Secret "cert": there is none`},
		},
		"half a certificate": {
			ingresses:    []networkingv1.Ingress{withTLS(ingress("shop", "a.test", "/v1 -> auth:http"), "cert")},
			secrets:      map[types.NamespacedName]*corev1.Secret{key("cert"): {Data: map[string][]byte{corev1.TLSCertKey: certificateFor(t, "a.test").Data[corev1.TLSCertKey]}}},
			wantProblems: []string{`Ingress shop/shop: spec.tls: Secret "cert": tls.crt and tls.key: tls: failed to find any PEM data in key input`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := watch.State{Ingresses: test.ingresses, Services: services, Secrets: test.secrets}
			config, problems, err := Render(state, listen)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.wantProblems, problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			again, _, _ := Render(state, listen)
			if diff := cmp.Diff(string(config), string(again)); diff != "" {
				t.Errorf("the second rendering differs:\n%s", diff)
			}
		})
	}
}

// What Caddy does with a configuration is seen by running it. One process has
// one Caddy, so these tests follow one another.
func TestRequestsReachTheirService(t *testing.T) {
	p := newServed(t)
	defaults := ingress("z-default", "")
	defaults.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: "rest", Port: networkingv1.ServiceBackendPort{Name: "http"},
	}}
	defaults.Spec.Rules = nil
	p.serve(t, watch.State{
		Ingresses: []networkingv1.Ingress{
			ingress("shop", "a.test", "/v1/auth -> auth:http", "/v1 -> tasks:http", "=/v1/ws -> messaging:http", "/socket.io/ -> messaging:http", "/gone -> gone:http"),
			ingress("wild", "*.wild.test", "/ -> wild:http"),
			ingress("any", "", "/any -> any:http"),
			withTLS(ingress("safe", "safe.test", "/ -> auth:http"), "cert", "safe.test"),
			withTLS(ingress("unsafe", "unsafe.test", "/ -> auth:http"), "missing", "unsafe.test"),
			defaults,
		},
		Services: p.services("auth", "tasks", "messaging", "wild", "any", "rest"),
		Secrets:  map[types.NamespacedName]*corev1.Secret{key("cert"): certificateFor(t, "safe.test")},
	})
	for name, test := range map[string]struct {
		host, path   string
		wantStatus   int
		wantBody     string
		wantLocation string
	}{
		"prefix":                   {host: "a.test", path: "/v1/auth/login", wantStatus: http.StatusOK, wantBody: "auth /v1/auth/login a.test"},
		"the prefix itself":        {host: "a.test", path: "/v1/auth", wantStatus: http.StatusOK, wantBody: "auth /v1/auth a.test"},
		"longer paths first":       {host: "a.test", path: "/v1/tasks?x=1", wantStatus: http.StatusOK, wantBody: "tasks /v1/tasks?x=1 a.test"},
		"elements, not characters": {host: "a.test", path: "/v1/authority", wantStatus: http.StatusOK, wantBody: "tasks /v1/authority a.test"},
		"exact":                    {host: "a.test", path: "/v1/ws", wantStatus: http.StatusOK, wantBody: "messaging /v1/ws a.test"},
		"below an exact one":       {host: "a.test", path: "/v1/ws/x", wantStatus: http.StatusOK, wantBody: "tasks /v1/ws/x a.test"},
		"the slash of a prefix":    {host: "a.test", path: "/socket.io/?EIO=4", wantStatus: http.StatusOK, wantBody: "messaging /socket.io/?EIO=4 a.test"},
		"case counts":              {host: "a.test", path: "/V1/auth", wantStatus: http.StatusOK, wantBody: "rest /V1/auth a.test"},
		"a port in the host":       {host: "a.test:8080", path: "/v1/ws", wantStatus: http.StatusOK, wantBody: "messaging /v1/ws a.test:8080"},
		"wildcard":                 {host: "b.wild.test", path: "/", wantStatus: http.StatusOK, wantBody: "wild / b.wild.test"},
		"no host":                  {host: "elsewhere.example", path: "/any/thing", wantStatus: http.StatusOK, wantBody: "any /any/thing elsewhere.example"},
		"default backend":          {host: "elsewhere.example", path: "/", wantStatus: http.StatusOK, wantBody: "rest / elsewhere.example"},
		"no Service":               {host: "a.test", path: "/gone", wantStatus: http.StatusServiceUnavailable, wantBody: "Ingress shop/shop: host \"a.test\", path \"/gone\": there is no Service \"gone\"\n"},
		"to HTTPS":                 {host: "safe.test", path: "/v1?x=1", wantStatus: http.StatusPermanentRedirect, wantLocation: "https://safe.test/v1?x=1"},
		"no certificate":           {host: "unsafe.test", path: "/", wantStatus: http.StatusServiceUnavailable, wantBody: "Ingress shop/unsafe: spec.tls: Secret \"missing\": there is none\n"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body, header := p.get(t, "http://"+test.host+test.path)
			if status != test.wantStatus {
				t.Errorf("status %d, want %d", status, test.wantStatus)
			}
			if diff := cmp.Diff(test.wantBody, body); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if got := header.Get("Location"); got != test.wantLocation {
				t.Errorf("Location %q, want %q", got, test.wantLocation)
			}
		})
	}
}

func TestTLSIsOfTheIngressesSecret(t *testing.T) {
	p := newServed(t)
	secret := certificateFor(t, "safe.test")
	p.trust(secret)
	p.serve(t, watch.State{
		Ingresses: []networkingv1.Ingress{withTLS(ingress("safe", "safe.test", "/ -> auth:http"), "cert")},
		Services:  p.services("auth"),
		Secrets:   map[types.NamespacedName]*corev1.Secret{key("cert"): secret},
	})
	status, body, _ := p.get(t, "https://safe.test/v1")
	if status != http.StatusOK || body != "auth /v1 safe.test" {
		t.Errorf("got %d %q", status, body)
	}
}

// Sockets stay while Ingresses come and go.
func TestAReloadEndsNoWebSocket(t *testing.T) {
	p := newServed(t)
	state := watch.State{
		Ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/ws -> echo:http")},
		Services:  p.services("echo"),
	}
	p.serve(t, state)
	socket := p.dial(t, "ws://a.test/ws")
	p.echoes(t, socket, "before")

	state.Ingresses = append(state.Ingresses, ingress("other", "b.test", "/ -> echo:http"))
	p.serve(t, state)
	p.echoes(t, socket, "after another Ingress came")

	state.Ingresses = state.Ingresses[1:]
	p.serve(t, state)
	p.echoes(t, socket, "after its own Ingress went")
	if status, _, _ := p.get(t, "http://a.test/ws"); status != http.StatusNotFound {
		t.Errorf("new requests get %d, want 404", status)
	}
}

func TestLoadKeepsTheOldConfigurationAfterAnError(t *testing.T) {
	p := newServed(t)
	p.serve(t, watch.State{
		Ingresses: []networkingv1.Ingress{ingress("shop", "a.test", "/ -> auth:http")}, Services: p.services("auth"),
	})
	if err := Load([]byte(`{"apps":{"unheard-of":{}}}`)); err == nil {
		t.Error("no error")
	}
	if status, _, _ := p.get(t, "http://a.test/"); status != http.StatusOK {
		t.Errorf("got %d, want 200", status)
	}
}
