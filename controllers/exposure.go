package controllers

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// kindIngress is the kind of an Ingress.
const kindIngress = "Ingress"

// exposed says whether what spec.exposure asks for is there and admitted. It is
// nil where nothing is asked.
func exposed(m *v1alpha1.Marketplace, seen observation) *state {
	var s state
	switch e := m.Spec.Exposure; {
	case e == nil:
		return nil
	case e.Ingress != nil:
		s = ingressState(m, seen)
	default: // The API server admits no spec with neither.
		s = httpRouteState(m, seen)
	}
	if s.ok && len(m.Spec.Auth.TrustedProxies) == 0 {
		s.message += "; all clients count as one address when log-ins fail too often, since auth.trustedProxies does not name the proxy"
	}
	return &s
}

func ingressState(m *v1alpha1.Marketplace, seen observation) state {
	name := desired.NamesOf(m).Public()
	ingress, ok := seen.own(kindIngress, name).(*networkingv1.Ingress)
	switch {
	case !ok:
		return notYet(v1alpha1.ReasonProgressing, "it is being created")
	case seen.certificate != nil && !seen.certificate.ok:
		return *seen.certificate
	case len(ingress.Status.LoadBalancer.Ingress) == 0:
		class := "of the cluster's default class"
		if c := m.Spec.Exposure.Ingress.ClassName; c != nil {
			class = "of class " + *c
		}
		return notYet(v1alpha1.ReasonNotAdmitted,
			"no controller %s has told an address of Ingress %s: it must be running, and be set up to publish its address in the status of Ingresses",
			class, name)
	default:
		return ready("Ingress %s has an address", name)
	}
}

func httpRouteState(m *v1alpha1.Marketplace, seen observation) state {
	if _, known := seen.served[desired.KindHTTPRoute]; !known {
		return notYet(v1alpha1.ReasonWaiting, "it is not known yet whether the cluster serves HTTPRoute; the operator's log says why")
	}
	if err := missingAPI(m, seen); err != nil {
		return notYet(v1alpha1.ReasonAPIMissing, "%s", err.Error())
	}
	name := desired.NamesOf(m).Public()
	route, ok := seen.own(desired.KindHTTPRoute.Kind, name).(*unstructured.Unstructured)
	if !ok {
		return notYet(v1alpha1.ReasonProgressing, "it is being created")
	}
	var answers httpRouteAnswers
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(route.Object, &answers); err != nil {
		return notYet(v1alpha1.ReasonNotAdmitted, "the status of HTTPRoute %s is not as the Gateway API says: %s", name, err.Error())
	}
	generation := seen.generation(desired.KindHTTPRoute.Kind, route)
	for _, parent := range m.Spec.Exposure.HTTPRoute.ParentRefs {
		if trouble := answers.refusal(m.Namespace, parent, generation); trouble != "" {
			return notYet(v1alpha1.ReasonNotAdmitted, "%s", trouble)
		}
	}
	return ready("HTTPRoute %s is admitted", name)
}

// missingAPI says that the cluster lacks the API of what is asked for.
func missingAPI(m *v1alpha1.Marketplace, seen observation) error {
	if e := m.Spec.Exposure; e == nil || e.HTTPRoute == nil {
		return nil
	}
	if served, known := seen.served[desired.KindHTTPRoute]; served || !known {
		return nil
	}
	return stop(v1alpha1.ReasonAPIMissing,
		"exposure.httpRoute: the cluster does not serve HTTPRoute (%s): install the Gateway API with its CustomResourceDefinition httproutes.%s, or use exposure.ingress",
		desired.KindHTTPRoute.GroupVersion(), desired.KindHTTPRoute.Group)
}

// httpRouteAnswers is what the controllers of Gateways say of an HTTPRoute.
type httpRouteAnswers struct {
	Status struct {
		Parents []httpRouteAnswer `json:"parents"`
	} `json:"status"`
}

type httpRouteAnswer struct {
	ParentRef struct {
		Kind        string `json:"kind"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		SectionName string `json:"sectionName"`
		Port        *int32 `json:"port"`
	} `json:"parentRef"`
	ControllerName string             `json:"controllerName"`
	Conditions     []metav1.Condition `json:"conditions"`
}

// refusal says why a Gateway does not serve the route of this generation, in the
// words of its controller. It is empty where the Gateway serves it.
func (a httpRouteAnswers) refusal(namespace string, parent v1alpha1.GatewayReference, generation int64) string {
	gateway := "Gateway " + parent.Name
	if parent.Namespace != "" {
		gateway = fmt.Sprintf("Gateway %s/%s", parent.Namespace, parent.Name)
	}
	last := fmt.Sprintf("the controller of %s has not answered yet: the Gateway must exist, and a listener of it must allow routes from namespace %s",
		gateway, namespace)
	for _, answer := range a.Status.Parents {
		if !answer.isAbout(namespace, parent) {
			continue
		}
		trouble := answer.refusal(generation)
		if trouble == "" {
			return ""
		}
		last = gateway + ": " + trouble
	}
	return last
}

func (a httpRouteAnswer) isAbout(namespace string, parent v1alpha1.GatewayReference) bool {
	ref := a.ParentRef
	return (ref.Kind == "" || ref.Kind == "Gateway") &&
		ref.Name == parent.Name &&
		orNamespace(ref.Namespace, namespace) == orNamespace(parent.Namespace, namespace) &&
		ref.SectionName == parent.SectionName &&
		(ref.Port == nil) == (parent.Port == nil) && (ref.Port == nil || *ref.Port == *parent.Port)
}

func orNamespace(namespace, otherwise string) string {
	if namespace == "" {
		return otherwise
	}
	return namespace
}

// The conditions of an HTTPRoute that must be True (Gateway API, RouteStatus).
const (
	routeAccepted     = "Accepted"
	routeResolvedRefs = "ResolvedRefs"
)

func (a httpRouteAnswer) refusal(generation int64) string {
	for _, condition := range []string{routeAccepted, routeResolvedRefs} {
		c := meta.FindStatusCondition(a.Conditions, condition)
		switch {
		case c == nil:
			return fmt.Sprintf("%s has not said whether it is %s", a.ControllerName, condition)
		case c.ObservedGeneration != 0 && c.ObservedGeneration < generation:
			return a.ControllerName + " has not looked at the newest version yet"
		case c.Status != metav1.ConditionTrue:
			return fmt.Sprintf("%s says %s=%s, %s: %s", a.ControllerName, condition, c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

// endpoints are the services' URLs, from inside and, where they are exposed,
// from outside.
func endpoints(m *v1alpha1.Marketplace) *v1alpha1.EndpointsStatus {
	names := desired.NamesOf(m)
	told := &v1alpha1.EndpointsStatus{
		Auth:      names.URL(contract.ComponentAuth),
		Tasks:     names.URL(contract.ComponentTasks),
		Messaging: names.URL(contract.ComponentMessaging),
	}
	e := m.Spec.Exposure
	if e == nil {
		return told
	}
	secure := e.Ingress != nil && e.Ingress.TLS != nil ||
		e.HTTPRoute != nil && e.HTTPRoute.Scheme != v1alpha1.SchemeHTTP
	scheme, socket := "http://", "ws://"
	if secure {
		scheme, socket = "https://", "wss://"
	}
	told.Public = scheme + e.Hostname
	told.WebSocket = socket + e.Hostname + contract.PathWebSocket
	return told
}

// replacedLater says whether an object that is not wanted any more still exposes
// the services: what replaces it has not been admitted.
func replacedLater(m *v1alpha1.Marketplace, seen observation, key objectKey) bool {
	if key.kind != kindIngress && key.kind != desired.KindHTTPRoute.Kind {
		return false
	}
	s := exposed(m, seen)
	return s != nil && !s.ok
}

// observeIngresses puts the Ingress, if there is one, into what is seen.
func (r *Reconciler) observeIngresses(ctx context.Context, seen *observation, ours []client.ListOption) error {
	var ingresses networkingv1.IngressList
	if err := r.Client.List(ctx, &ingresses, ours...); err != nil {
		return fmt.Errorf("list Ingresses: %w", err)
	}
	for i := range ingresses.Items {
		seen.objects[objectKey{kindIngress, ingresses.Items[i].Name}] = &ingresses.Items[i]
	}
	return nil
}
