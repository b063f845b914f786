// Package proxy turns Ingress objects into a configuration of Caddy, and runs
// it. Render is pure; it never makes a configuration that Caddy refuses as a
// whole, since one wrong Ingress must not take the others along.
package proxy

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/watch"
)

// Listen says where to serve.
type Listen struct{ HTTP, HTTPS string }

const (
	// gracePeriod lets long polls end when the configuration changes: a client
	// of Socket.IO is answered after 25 s at the latest.
	gracePeriod       = 30 * time.Second
	readHeaderTimeout = 10 * time.Second
)

// Render returns the configuration as JSON, the same bytes for the same state,
// and says what in the Ingresses cannot be served. A request for such a part is
// answered with 503 and that reason.
func Render(state watch.State, listen Listen) (config []byte, problems []string, err error) {
	r := &renderer{state: state, certificates: []keyPair{}, secured: map[string]bool{}, broken: map[string]string{}}
	for i := range state.Ingresses {
		r.addCertificates(&state.Ingresses[i])
	}
	for i := range state.Ingresses {
		r.addRules(&state.Ingresses[i])
	}
	plain, secure := r.routes()
	config, err = json.Marshal(caddyConfig{
		Admin:   admin{Disabled: true},
		Logging: logging{Logs: map[string]logger{"default": {Level: "WARN", Exclude: []string{"admin"}}}},
		Apps: apps{
			HTTP: httpApp{GracePeriod: gracePeriod, Servers: map[string]server{
				"http":  serverAt(listen.HTTP, plain, nil),
				"https": serverAt(listen.HTTPS, secure, []tlsConnection{{}}),
			}},
			TLS: tlsApp{
				Certificates:        certificates{LoadPEM: r.certificates},
				DisableStorageCheck: true, DisableStorageClean: true, DisableOCSPStapling: true,
			},
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("encode the configuration: %w", err)
	}
	return config, r.problems, nil
}

func serverAt(address string, routes []route, tls []tlsConnection) server {
	return server{
		Listen: []string{address}, Routes: routes, TLSConnectionPolicies: tls, ReadHeaderTimeout: readHeaderTimeout,
		// WebSockets want HTTP/1.1, and nothing here is large.
		Protocols:      []string{"h1"},
		AutomaticHTTPS: automaticHTTPS{Disable: true},
	}
}

// rule is one path of an Ingress, or its default backend.
type rule struct {
	host    string // "" for all
	path    string // without a slash at its end; "" for all
	exact   bool
	last    bool // a default backend
	handler handler
}

// renderer gathers what all Ingresses say.
type renderer struct {
	state        watch.State
	rules        []rule
	certificates []keyPair
	secured      map[string]bool   // hosts with a certificate
	broken       map[string]string // hosts that should have one, and why they have not
	problems     []string
}

func (r *renderer) problem(ingress *networkingv1.Ingress, format string, args ...any) string {
	p := fmt.Sprintf("Ingress %s/%s: ", ingress.Namespace, ingress.Name) + fmt.Sprintf(format, args...)
	r.problems = append(r.problems, p)
	return p
}

func (r *renderer) addCertificates(ingress *networkingv1.Ingress) {
	for _, entry := range ingress.Spec.TLS {
		hosts := entry.Hosts
		if len(hosts) == 0 {
			for _, rule := range ingress.Spec.Rules {
				hosts = append(hosts, rule.Host)
			}
		}
		loaded, err := certificate(r.state.Secrets[types.NamespacedName{Namespace: ingress.Namespace, Name: entry.SecretName}])
		if err != nil {
			reason := r.problem(ingress, "spec.tls: Secret %q: %v", entry.SecretName, err)
			for _, host := range hosts {
				r.broken[host] = reason
			}
			continue
		}
		r.certificates = append(r.certificates, loaded)
		for _, host := range hosts {
			r.secured[host] = true
		}
	}
}

// certificate reads a Secret of type kubernetes.io/tls.
func certificate(secret *corev1.Secret) (keyPair, error) {
	if secret == nil {
		return keyPair{}, errors.New("there is none")
	}
	chain, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return keyPair{}, fmt.Errorf("%s and %s: %w", corev1.TLSCertKey, corev1.TLSPrivateKeyKey, err)
	}
	return keyPair{Certificate: string(chain), Key: string(key)}, nil
}

func (r *renderer) addRules(ingress *networkingv1.Ingress) {
	for _, hostRule := range ingress.Spec.Rules {
		if hostRule.HTTP == nil {
			continue
		}
		for _, path := range hostRule.HTTP.Paths {
			r.add(ingress, rule{
				host: hostRule.Host, path: strings.TrimRight(path.Path, "/"),
				exact: path.PathType != nil && *path.PathType == networkingv1.PathTypeExact,
			}, path.Path, &path.Backend)
		}
	}
	if ingress.Spec.DefaultBackend != nil {
		r.add(ingress, rule{last: true}, "", ingress.Spec.DefaultBackend)
	}
}

func (r *renderer) add(ingress *networkingv1.Ingress, wanted rule, path string, backend *networkingv1.IngressBackend) {
	if wanted.exact {
		wanted.path = path // an exact path's last slash counts
	}
	for _, have := range r.rules {
		if have.host == wanted.host && have.path == wanted.path && have.exact == wanted.exact && have.last == wanted.last {
			r.problem(ingress, "host %q, path %q: an older Ingress has it", wanted.host, path)
			return
		}
	}
	dial, err := r.dial(ingress.Namespace, backend)
	switch {
	case r.broken[wanted.host] != "" && !r.secured[wanted.host]:
		wanted.handler = unavailable(r.broken[wanted.host])
	case err != nil:
		wanted.handler = unavailable(r.problem(ingress, "host %q, path %q: %v", wanted.host, path, err))
	default:
		wanted.handler = proxyTo(dial)
	}
	r.rules = append(r.rules, wanted)
}

// dial returns the address of a Service. kube-proxy spreads connections over
// its pods, and knows those that drain.
func (r *renderer) dial(namespace string, backend *networkingv1.IngressBackend) (string, error) {
	if backend.Service == nil {
		return "", errors.New("only a Service can be a backend here")
	}
	name := backend.Service.Name
	service := r.state.Services[types.NamespacedName{Namespace: namespace, Name: name}]
	if service == nil {
		return "", fmt.Errorf("there is no Service %q", name)
	}
	if net.ParseIP(service.Spec.ClusterIP) == nil {
		return "", fmt.Errorf("the Service %q has no ClusterIP", name)
	}
	wanted := backend.Service.Port
	for _, port := range service.Spec.Ports {
		if (wanted.Name != "" && port.Name == wanted.Name) || (wanted.Name == "" && port.Port == wanted.Number) {
			return net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port.Port))), nil
		}
	}
	return "", fmt.Errorf("the Service %q has no port %s", name, cmp.Or(wanted.Name, strconv.Itoa(int(wanted.Number))))
}
