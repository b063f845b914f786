package desired

import (
	"maps"
	"strconv"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

const (
	// componentExposure labels what exposes the services.
	componentExposure = "exposure"
	// serviceHTTPPort is the port of the services' Services.
	serviceHTTPPort = 80
)

// webSocketIdle is how long a proxy may see nothing on a WebSocket before it
// closes it. Nothing that lives is idle for longer than contract.WebSocketPing;
// an hour is what the documentation of NGINX's controllers advises against their
// default of a minute, which one lost ping comes close to.
const webSocketIdle = time.Hour

// exposure routes the public paths, and no others, to their services.
func (r renderer) exposure() []Object {
	e := r.m.Spec.Exposure
	switch {
	case e == nil:
		return nil
	case e.Ingress != nil:
		return []Object{r.ingress(e.Hostname, e.Ingress)}
	case e.HTTPRoute != nil:
		return []Object{r.httpRoute(e.Hostname, e.HTTPRoute)}
	default:
		return nil
	}
}

func (r renderer) ingress(hostname string, e *v1alpha1.IngressExposure) Object {
	paths := networkingv1ac.HTTPIngressRuleValue()
	for _, path := range contract.PublicPaths() {
		paths.WithPaths(networkingv1ac.HTTPIngressPath().
			WithPath(path.Prefix).
			WithPathType(networkingv1.PathTypePrefix).
			WithBackend(networkingv1ac.IngressBackend().
				WithService(networkingv1ac.IngressServiceBackend().
					WithName(r.names.Component(path.Component)).
					WithPort(networkingv1ac.ServiceBackendPort().WithNumber(serviceHTTPPort)))))
	}
	spec := networkingv1ac.IngressSpec().
		WithRules(networkingv1ac.IngressRule().WithHost(hostname).WithHTTP(paths))
	if e.ClassName != nil {
		spec.WithIngressClassName(*e.ClassName)
	}
	if e.TLS != nil {
		spec.WithTLS(networkingv1ac.IngressTLS().WithHosts(hostname).WithSecretName(e.TLS.SecretName))
	}
	annotations := r.webSocketAnnotations()
	maps.Copy(annotations, e.Annotations)
	return networkingv1ac.Ingress(r.names.Public(), r.m.Namespace).
		WithLabels(Labels(r.m, componentExposure)).
		WithAnnotations(annotations).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(spec)
}

// webSocketAnnotations tell controllers that need to be told that connections
// to messaging stay open. Each controller ignores the others'.
func (r renderer) webSocketAnnotations() map[string]string {
	seconds := strconv.Itoa(int(webSocketIdle / time.Second))
	var paths []string
	for _, path := range contract.PublicPaths() {
		if path.WebSocket {
			paths = append(paths, path.Prefix)
		}
	}
	return map[string]string{
		// The Kubernetes community's: seconds.
		"nginx.ingress.kubernetes.io/proxy-read-timeout": seconds,
		"nginx.ingress.kubernetes.io/proxy-send-timeout": seconds,
		// F5's, which upgrades connections only to Services that are named.
		"nginx.org/proxy-read-timeout": seconds + "s",
		"nginx.org/proxy-send-timeout": seconds + "s",
		"nginx.org/websocket-services": r.names.Component(contract.ComponentMessaging),
		// Contour, which upgrades connections only on paths that are named.
		"projectcontour.io/websocket-routes": strings.Join(paths, ","),
	}
}

// The fields of an HTTPRoute (gateway.networking.k8s.io/v1) that are set here.
type (
	httpRouteSpec struct {
		ParentRefs []parentRef     `json:"parentRefs"`
		Hostnames  []string        `json:"hostnames"`
		Rules      []httpRouteRule `json:"rules"`
	}
	parentRef struct {
		Name        string `json:"name"`
		Namespace   string `json:"namespace,omitempty"`
		SectionName string `json:"sectionName,omitempty"`
		Port        *int32 `json:"port,omitempty"`
	}
	httpRouteRule struct {
		Matches     []httpRouteMatch   `json:"matches"`
		BackendRefs []backendRef       `json:"backendRefs"`
		Timeouts    *httpRouteTimeouts `json:"timeouts,omitempty"`
	}
	httpRouteMatch struct {
		Path httpPathMatch `json:"path"`
	}
	httpPathMatch struct {
		Type  string `json:"type"`
		Value string `json:"value"`
	}
	backendRef struct {
		Name string `json:"name"`
		Port int32  `json:"port"`
	}
	// httpRouteTimeouts are durations; "0s" asks for none (GEP-1742).
	httpRouteTimeouts struct {
		Request        string `json:"request"`
		BackendRequest string `json:"backendRequest"`
	}
)

func (r renderer) httpRoute(hostname string, e *v1alpha1.HTTPRouteExposure) Object {
	spec := &httpRouteSpec{Hostnames: []string{hostname}}
	for _, parent := range e.ParentRefs {
		spec.ParentRefs = append(spec.ParentRefs, parentRef(parent))
	}
	// One rule for each service, and one of its own for what stays open.
	for _, webSocket := range []bool{false, true} {
		for _, component := range contract.Services() {
			rule := httpRouteRule{
				BackendRefs: []backendRef{{Name: r.names.Component(component), Port: serviceHTTPPort}},
			}
			if webSocket {
				rule.Timeouts = &httpRouteTimeouts{Request: "0s", BackendRequest: "0s"}
			}
			for _, path := range contract.PublicPaths() {
				if path.Component == component && path.WebSocket == webSocket {
					rule.Matches = append(rule.Matches, httpRouteMatch{
						Path: httpPathMatch{Type: "PathPrefix", Value: path.Prefix},
					})
				}
			}
			if len(rule.Matches) > 0 {
				spec.Rules = append(spec.Rules, rule)
			}
		}
	}
	route := r.optional(KindHTTPRoute, r.names.Public(), componentExposure, spec)
	if len(e.Annotations) > 0 {
		route.WithAnnotations(e.Annotations)
	}
	return route
}
