//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
)

const (
	// localClass is the IngressClass of the local cluster's proxy.
	localClass = "local"
	// localPods is where that proxy runs.
	localPods = "10.244.0.0/16"
)

// A platform team exposes a Marketplace under a name, moves it to HTTPS, and
// changes other Ingresses meanwhile; whoever is connected stays connected.
func TestAMarketplaceIsReachedFromOutsideByItsName(t *testing.T) {
	const host = "shop.example.test"
	spec := small()
	spec.Auth.TrustedProxies = []v1alpha1.Network{localPods}
	spec.Exposure = &v1alpha1.ExposureSpec{
		Hostname: host, Ingress: &v1alpha1.IngressExposure{ClassName: new(localClass)},
	}
	m := start(t, "exposed", spec)
	m.wantPublic(t, "http://"+host)
	proxy := m.proxyAddress(t)
	m.walkBy(t, "http://"+host, proxy)
	m.browse(t, host, proxy)

	plain := client.Transport(proxy, nil)
	t.Cleanup(plain.CloseIdleConnections)
	sockets := connectAll(t, signUp(t, client.New(client.At("http://"+host), plain), 4))

	// Another Ingress makes the proxy load another configuration.
	other := m.otherIngress("other.example.test")
	if err := cluster.kube.Create(t.Context(), other); err != nil {
		t.Fatalf("make another Ingress: %v", err)
	}
	eventually(t, 30*time.Second, "the proxy serves another Ingress", func(ctx context.Context) error {
		return wantStatus(ctx, plain, "http://other.example.test/.well-known/jwks.json", http.StatusOK)
	})
	wantSameConnections(t, sockets, "another Ingress came")
	if err := cluster.kube.Delete(t.Context(), other); err != nil {
		t.Fatalf("delete the other Ingress: %v", err)
	}
	eventually(t, 30*time.Second, "the proxy serves the other Ingress no more", func(ctx context.Context) error {
		return wantStatus(ctx, plain, "http://other.example.test/.well-known/jwks.json", http.StatusNotFound)
	})
	wantSameConnections(t, sockets, "the other Ingress went")

	// HTTPS, with a certificate of the test's own.
	certificate, key := selfSigned(t, host)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "certificate", Namespace: m.namespace}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
	if err := cluster.kube.Create(t.Context(), secret); err != nil {
		t.Fatalf("make the certificate's Secret: %v", err)
	}
	m.change(t, func(s *v1alpha1.MarketplaceSpec) {
		s.Exposure.Ingress.TLS = &v1alpha1.IngressTLS{SecretName: secret.Name}
	})
	m.waitReady(t)
	m.wantPublic(t, "https://"+host)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the proxy sends clients to HTTPS", func(ctx context.Context) error {
		return wantStatus(ctx, plain, "http://"+host+"/.well-known/jwks.json", http.StatusPermanentRedirect)
	})
	m.walkBy(t, "https://"+host, proxy, "--ca", ca)
	wantSameConnections(t, sockets, "the Marketplace went to HTTPS")
}

// wantPublic holds the status to the URL that clients use.
func (m marketplace) wantPublic(t *testing.T, url string) {
	t.Helper()
	object, err := m.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if object.Status.Endpoints == nil || object.Status.Endpoints.Public != url {
		t.Fatalf("status.endpoints is %+v, want public %s", object.Status.Endpoints, url)
	}
}

// proxyAddress is what the Marketplace's Ingress tells of its proxy.
func (m marketplace) proxyAddress(t *testing.T) netip.Addr {
	t.Helper()
	list := &networkingv1.IngressList{}
	err := cluster.kube.List(t.Context(), list, kube.InNamespace(m.namespace), kube.MatchingLabels{contract.LabelMarketplace: m.name})
	if err != nil || len(list.Items) != 1 || len(list.Items[0].Status.LoadBalancer.Ingress) != 1 {
		t.Fatalf("Ingresses of %s: %v %+v; want one with one address", m.name, err, list.Items)
	}
	address, err := netip.ParseAddr(list.Items[0].Status.LoadBalancer.Ingress[0].IP)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// walkBy tells the whole story through a proxy, as its own process.
func (m marketplace) walkBy(t *testing.T, url string, proxy netip.Addr, more ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cluster.program, append([]string{"smoke", "--url", url, "--connect-to", proxy.String()}, more...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("the walk by %s: %v\n%s", url, err, out.String())
	}
	t.Logf("the walk by %s:\n%s", url, out.String())
}

// otherIngress brings another name to the Marketplace's auth service.
func (m marketplace) otherIngress(host string) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: m.namespace},
		Spec:       ingressTo(host, "/", m.name+"-"+contract.ComponentAuth),
	}
}

// ingressTo brings what lies below a path of a host to port 80 of a Service.
func ingressTo(host, path, service string) networkingv1.IngressSpec {
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: service, Port: networkingv1.ServiceBackendPort{Number: 80},
	}}
	return networkingv1.IngressSpec{
		IngressClassName: new(localClass),
		Rules: []networkingv1.IngressRule{{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Path: path, PathType: new(networkingv1.PathTypePrefix), Backend: backend,
			}}},
		}}},
	}
}

// wantStatus asks once, and says what came instead.
func wantStatus(ctx context.Context, transport http.RoundTripper, url string, want int) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	const enough = 1 << 10
	body, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err != nil || response.StatusCode != want {
		return fmt.Errorf("%s answers %d %q, %w", url, response.StatusCode, body, err)
	}
	return nil
}

// wantSameConnections asks something over each socket, and wants that it
// connected once in its life.
func wantSameConnections(t *testing.T, sockets []*client.Socket, after string) {
	t.Helper()
	for i, s := range sockets {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		// There is no such conversation: the refusal is the answer.
		_, err := s.Send(ctx, uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7()), map[string]string{"text": "Hello?"})
		cancel()
		var refusal *client.WireError
		if !errors.As(err, &refusal) {
			t.Fatalf("socket %d, after %s: %v; want an answer", i, after, err)
		}
		if stats := s.Stats(); stats.Connects != 1 {
			t.Errorf("socket %d, after %s: %+v; want one connection", i, after, stats)
		}
	}
}

// selfSigned makes a certificate for a host that vouches for itself.
func selfSigned(t *testing.T, host string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}
