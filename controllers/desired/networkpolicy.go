package desired

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// NetworkPolicies admit what the design needs and nothing else. Each policy
// isolates the pods that it selects in both directions by itself, so there is
// no moment in which a "deny all" stands without its exceptions, and each is
// applied together with the pods that it is about.
//
//	clients                     -> auth, tasks, messaging   public port
//	operator, monitoring        -> services, bus            internal port
//	services, migrate           -> database
//	services                    -> bus                      client port
//	bus                         -> bus                      route port
//	messaging                   -> messaging                internal port
//	messaging                   -> its webhook              the URL's port
//	all                         -> DNS
//
// The services never call one another: they meet in the database and on the
// bus. Messaging's pods alone forward to each other what belongs to a session
// that another one holds. Kubelets reach their pods' probes whatever a policy says.

// The DNS servers of a cluster usually listen on 53, those of OpenShift on
// 5353. A policy sees the pod's port, not the Service's.
var dnsPorts = []int32{53, 5353}

const (
	// policyServices ends the name of the policy about all services.
	policyServices = "services"
	// policySessions ends that of the policy about messaging's pods among
	// themselves.
	policySessions = "sessions"
)

// restrictsNetwork says whether there are policies. FirstRelease had none: an
// upgrade of the operator alone must not shut out who was admitted so far, a
// Prometheus for one.
func (r renderer) restrictsNetwork() bool {
	return !r.m.Spec.NetworkPolicy.Disabled && r.in.Release != FirstRelease
}

// servicesPolicy is about auth, tasks and messaging.
func (r renderer) servicesPolicy() []Object {
	if !r.restrictsNetwork() {
		return nil
	}
	public := ingress(contract.PublicPort)
	if namespaces := r.m.Spec.NetworkPolicy.ClientNamespaces; len(namespaces) > 0 {
		public.WithFrom(fromNamespaces(namespaceNames(namespaces)))
	}
	policy := r.networkPolicy(policyServices, contract.Services()...)
	policy.Spec.
		WithIngress(public, r.internalIngress()).
		WithEgress(r.databaseEgress()...).
		WithEgress(r.busEgress()...).
		WithEgress(r.leavingEgress()...)
	return append([]Object{policy, r.sessionsPolicy()}, r.notificationsPolicy()...)
}

// sessionsPolicy lets each pod of messaging reach the one that holds a session.
func (r renderer) sessionsPolicy() Object {
	policy := r.networkPolicy(policySessions, contract.ComponentMessaging)
	policy.Spec.
		WithIngress(ingress(contract.InternalPort).WithFrom(r.pods(contract.ComponentMessaging))).
		WithEgress(egress(contract.InternalPort).WithTo(r.pods(contract.ComponentMessaging)))
	return policy
}

// migratePolicy is about the migration, which needs the database alone.
func (r renderer) migratePolicy() []Object {
	if !r.restrictsNetwork() {
		return nil
	}
	policy := r.networkPolicy(contract.ComponentMigrate, contract.ComponentMigrate)
	policy.Spec.WithEgress(r.databaseEgress()...)
	return []Object{policy}
}

// databasePolicy is about the embedded database.
func (r renderer) databasePolicy() []Object {
	if !r.restrictsNetwork() {
		return nil
	}
	policy := r.networkPolicy(contract.ComponentDatabase, contract.ComponentDatabase)
	policy.Spec.WithIngress(ingress(contract.DatabasePort).
		WithFrom(r.pods(append(contract.Services(), contract.ComponentMigrate)...)))
	return []Object{policy}
}

// busPolicy is about the embedded bus.
func (r renderer) busPolicy() []Object {
	if !r.restrictsNetwork() {
		return nil
	}
	policy := r.networkPolicy(contract.ComponentBus, contract.ComponentBus)
	policy.Spec.
		WithIngress(
			ingress(contract.BusPort).WithFrom(r.pods(contract.Services()...)),
			ingress(contract.BusRoutePort).WithFrom(r.pods(contract.ComponentBus)),
			r.internalIngress()).
		WithEgress(egress(contract.BusRoutePort).WithTo(r.pods(contract.ComponentBus)))
	return []Object{policy}
}

// networkPolicy selects the pods of the components. They may ask for names,
// and nothing else.
func (r renderer) networkPolicy(name string, components ...string) *networkingv1ac.NetworkPolicyApplyConfiguration {
	return networkingv1ac.NetworkPolicy(r.names.Component(name), r.m.Namespace).
		WithLabels(Labels(r.m, name)).
		WithOwnerReferences(Owner(r.m)).
		WithSpec(networkingv1ac.NetworkPolicySpec().
			WithPodSelector(r.podsOf(components...)).
			WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress).
			WithEgress(dnsEgress()...))
}

// internalIngress admits who reads probes, metrics and load: the operator and
// who watches, each by its namespace. Where the operator does not know its own
// namespace, because it runs outside the cluster, everyone is admitted: it
// could not follow messaging's load otherwise.
func (r renderer) internalIngress() *networkingv1ac.NetworkPolicyIngressRuleApplyConfiguration {
	rule := ingress(contract.InternalPort)
	if r.in.OperatorNamespace == "" {
		return rule
	}
	admitted := []string{r.in.OperatorNamespace}
	for _, namespace := range namespaceNames(r.m.Spec.NetworkPolicy.MonitoringNamespaces) {
		if namespace != r.in.OperatorNamespace {
			admitted = append(admitted, namespace)
		}
	}
	return rule.WithFrom(fromNamespaces(admitted))
}

// databaseEgress leads to the embedded database, and to an external one by its
// port alone: a policy knows no host names. The way to the embedded one stays
// open while pods that use it still drain.
func (r renderer) databaseEgress() []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	rules := []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration{
		egress(contract.DatabasePort).WithTo(r.pods(contract.ComponentDatabase)),
	}
	if ports := r.externalDatabasePorts(); len(ports) > 0 {
		rules = append(rules, egress(ports...))
	}
	return rules
}

// busEgress leads to the embedded bus, and to an external one by its port.
func (r renderer) busEgress() []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	rules := []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration{
		egress(contract.BusPort).WithTo(r.pods(contract.ComponentBus)),
	}
	if ports := r.externalBusPorts(); len(ports) > 0 {
		rules = append(rules, egress(ports...))
	}
	return rules
}

// leavingEgress leads to external servers that the spec does not name any more,
// and pods that still serve do.
func (r renderer) leavingEgress() []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	named := slices.Concat(r.externalDatabasePorts(), r.externalBusPorts())
	leaving := slices.DeleteFunc(slices.Clone(r.in.PortsInUse), func(port int32) bool { return slices.Contains(named, port) })
	if len(leaving) == 0 {
		return nil
	}
	slices.Sort(leaving)
	return []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration{egress(slices.Compact(leaving)...)}
}

// dnsEgress leads to the cluster's DNS: by its usual ports wherever it is, a
// node's own cache for one, and to its pods whatever port they listen on.
func dnsEgress() []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	byPort := networkingv1ac.NetworkPolicyEgressRule()
	for _, port := range dnsPorts {
		byPort.WithPorts(policyPort(corev1.ProtocolUDP, port), policyPort(corev1.ProtocolTCP, port))
	}
	byPod := networkingv1ac.NetworkPolicyEgressRule().WithTo(
		fromNamespaces([]string{metav1.NamespaceSystem}).WithPodSelector(
			metav1ac.LabelSelector().WithMatchLabels(map[string]string{"k8s-app": "kube-dns"})))
	return []*networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration{byPort, byPod}
}

// podsOf selects pods of this Marketplace.
func (r renderer) podsOf(components ...string) *metav1ac.LabelSelectorApplyConfiguration {
	if len(components) == 1 {
		return r.selector(components[0])
	}
	return metav1ac.LabelSelector().
		WithMatchLabels(map[string]string{contract.LabelMarketplace: r.m.Name}).
		WithMatchExpressions(metav1ac.LabelSelectorRequirement().
			WithKey(contract.LabelComponent).
			WithOperator(metav1.LabelSelectorOpIn).
			WithValues(components...))
}

// pods are those of podsOf, in this namespace, as someone to talk to.
func (r renderer) pods(components ...string) *networkingv1ac.NetworkPolicyPeerApplyConfiguration {
	return networkingv1ac.NetworkPolicyPeer().WithPodSelector(r.podsOf(components...))
}

// fromNamespaces are all pods of the namespaces.
func fromNamespaces(namespaces []string) *networkingv1ac.NetworkPolicyPeerApplyConfiguration {
	return networkingv1ac.NetworkPolicyPeer().WithNamespaceSelector(
		metav1ac.LabelSelector().WithMatchExpressions(metav1ac.LabelSelectorRequirement().
			WithKey(corev1.LabelMetadataName).
			WithOperator(metav1.LabelSelectorOpIn).
			WithValues(namespaces...)))
}

// ingress admits everyone to the ports, until it is told whom.
func ingress(ports ...int32) *networkingv1ac.NetworkPolicyIngressRuleApplyConfiguration {
	rule := networkingv1ac.NetworkPolicyIngressRule()
	for _, port := range ports {
		rule.WithPorts(policyPort(corev1.ProtocolTCP, port))
	}
	return rule
}

// egress leads to the ports everywhere, until it is told where.
func egress(ports ...int32) *networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	rule := networkingv1ac.NetworkPolicyEgressRule()
	for _, port := range ports {
		rule.WithPorts(policyPort(corev1.ProtocolTCP, port))
	}
	return rule
}

func policyPort(protocol corev1.Protocol, port int32) *networkingv1ac.NetworkPolicyPortApplyConfiguration {
	return networkingv1ac.NetworkPolicyPort().WithProtocol(protocol).WithPort(intstr.FromInt32(port))
}

func namespaceNames(namespaces []v1alpha1.Namespace) []string {
	all := make([]string, 0, len(namespaces))
	for _, namespace := range namespaces {
		all = append(all, string(namespace))
	}
	return all
}
