package desired_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// end is one end of a connection: a pod, or something outside the cluster,
// which has no namespace.
type end struct {
	namespace string
	labels    map[string]string
}

// flow is a connection that someone tries to make.
type flow struct {
	from, to end
	protocol corev1.Protocol
	port     int32
}

// admitted evaluates policies as the API documents it: a pod that no policy
// selects for a direction is open in it; one that is selected admits what any
// rule of any policy that selects it admits. Both ends must agree. The port is
// the destination pod's.
func admitted(t *testing.T, policies []networkingv1.NetworkPolicy, f flow) bool {
	t.Helper()
	return admits(t, policies, networkingv1.PolicyTypeEgress, f) && admits(t, policies, networkingv1.PolicyTypeIngress, f)
}

func admits(t *testing.T, policies []networkingv1.NetworkPolicy, direction networkingv1.PolicyType, f flow) bool {
	t.Helper()
	isolated, other := f.to, f.from
	if direction == networkingv1.PolicyTypeEgress {
		isolated, other = f.from, f.to
	}
	open := true
	for _, p := range policies {
		if p.Namespace != isolated.namespace || !slices.Contains(p.Spec.PolicyTypes, direction) ||
			!selects(t, &p.Spec.PodSelector, isolated.labels) {
			continue
		}
		open = false
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range p.Spec.Ingress {
				if matchesPort(t, rule.Ports, f) && matchesPeer(t, p.Namespace, rule.From, other) {
					return true
				}
			}
			continue
		}
		for _, rule := range p.Spec.Egress {
			if matchesPort(t, rule.Ports, f) && matchesPeer(t, p.Namespace, rule.To, other) {
				return true
			}
		}
	}
	return open
}

// matchesPort: no port at all means every port.
func matchesPort(t *testing.T, ports []networkingv1.NetworkPolicyPort, f flow) bool {
	t.Helper()
	for _, p := range ports {
		if p.Protocol == nil || p.Port == nil || p.Port.IntVal == 0 || p.EndPort != nil {
			t.Fatalf("port %v: this test knows ports with a protocol and a number alone", p)
		}
		if *p.Protocol == f.protocol && p.Port.IntVal == f.port {
			return true
		}
	}
	return len(ports) == 0
}

// matchesPeer: no peer at all means everyone. A peer without a namespace
// selector is in the policy's own namespace; one without a pod selector is any
// pod of its namespaces.
func matchesPeer(t *testing.T, namespace string, peers []networkingv1.NetworkPolicyPeer, e end) bool {
	t.Helper()
	for _, p := range peers {
		if p.IPBlock != nil {
			t.Fatal("this test knows no address blocks")
		}
		if e.namespace == "" {
			continue
		}
		if p.NamespaceSelector == nil && e.namespace != namespace {
			continue
		}
		if p.NamespaceSelector != nil && !selects(t, p.NamespaceSelector, map[string]string{corev1.LabelMetadataName: e.namespace}) {
			continue
		}
		if p.PodSelector == nil || selects(t, p.PodSelector, e.labels) {
			return true
		}
	}
	return len(peers) == 0
}

func selects(t *testing.T, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(set))
}

// policiesOf are the NetworkPolicies among the objects, and the pods that the
// workloads among them make, by component.
func policiesOf(t *testing.T, objects []desired.Object) ([]networkingv1.NetworkPolicy, map[string]end) {
	t.Helper()
	var policies []networkingv1.NetworkPolicy
	pods := map[string]end{}
	for _, object := range objects {
		document, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		switch *object.GetKind() {
		case "NetworkPolicy":
			var p networkingv1.NetworkPolicy
			if err := yaml.UnmarshalStrict(document, &p); err != nil {
				t.Fatal(err)
			}
			policies = append(policies, p)
		case "Deployment", "StatefulSet", "Job":
			var workload struct {
				Spec struct {
					Template struct{ Metadata metav1.ObjectMeta }
				}
			}
			if err := yaml.Unmarshal(document, &workload); err != nil {
				t.Fatal(err)
			}
			set := workload.Spec.Template.Metadata.Labels
			pods[set[contract.LabelComponent]] = end{*object.GetNamespace(), set}
		}
	}
	return policies, pods
}

// probed are the ports that the matrix tries on every destination.
var probed = []struct {
	name     string
	protocol corev1.Protocol
	port     int32
}{
	{"public", corev1.ProtocolTCP, contract.PublicPort},
	{"internal", corev1.ProtocolTCP, contract.InternalPort},
	{"database", corev1.ProtocolTCP, contract.DatabasePort},
	{"bus", corev1.ProtocolTCP, contract.BusPort},
	{"route", corev1.ProtocolTCP, contract.BusRoutePort},
	{"dns", corev1.ProtocolUDP, 53},
	{"dns-tcp", corev1.ProtocolTCP, 53},
	{"other database", corev1.ProtocolTCP, 6543},
	{"other bus", corev1.ProtocolTCP, 14222},
	{"dns pod", corev1.ProtocolUDP, 1053},
	{"https", corev1.ProtocolTCP, 443},
}

// matrix tries every pair on every port, and returns what is admitted to or
// from the Marketplace's own pods: "from -> to: ports".
func matrix(t *testing.T, spec string, change func(*desired.Inputs)) []string {
	t.Helper()
	in := inputs()
	in.OperatorNamespace = "marketplane-system"
	if change != nil {
		change(&in)
	}
	policies, ends := policiesOf(t, desired.Build(marketplace(t, spec), in).All())
	ours := make([]string, 0, len(ends))
	for name := range ends {
		ours = append(ours, name)
	}

	// The pods of another Marketplace of the namespace, policies and all.
	neighbour := marketplace(t, spec)
	neighbour.Name = "rival"
	theirs, pods := policiesOf(t, desired.Build(neighbour, in).All())
	policies = append(policies, theirs...)
	for name, pod := range pods {
		ends["rival's "+name] = pod
	}
	ends["operator"] = end{"marketplane-system", map[string]string{"app.kubernetes.io/name": "marketplane-operator"}}
	ends["prometheus"] = end{"monitoring", map[string]string{"app": "prometheus"}}
	ends["ingress"] = end{"ingress-nginx", map[string]string{"app": "ingress"}}
	ends["stranger"] = end{"elsewhere", map[string]string{"app": "stranger"}}
	ends["stranger beside"] = end{"market", map[string]string{"app": "stranger"}}
	ends["dns"] = end{"kube-system", map[string]string{"k8s-app": "kube-dns"}}
	ends["world"] = end{}

	var admittedFlows []string
	for from, source := range ends {
		for to, destination := range ends {
			if !slices.Contains(ours, from) && !slices.Contains(ours, to) {
				continue
			}
			var ports []string
			for _, p := range probed {
				if admitted(t, policies, flow{source, destination, p.protocol, p.port}) {
					ports = append(ports, p.name)
				}
			}
			// Everyone may be asked for names; that is told once, below.
			if !slices.Contains(ours, to) {
				ports = slices.DeleteFunc(ports, func(p string) bool { return p == "dns" || p == "dns-tcp" })
			}
			if len(ports) > 0 {
				admittedFlows = append(admittedFlows, fmt.Sprintf("%s -> %s: %s", from, to, strings.Join(ports, ", ")))
			}
		}
	}
	sort.Strings(admittedFlows)
	return admittedFlows
}

// each writes a flow out for every one of the sources.
func each(sources []string, format string) []string {
	flows := make([]string, 0, len(sources))
	for _, source := range sources {
		flows = append(flows, source+format)
	}
	return flows
}

func TestFlowMatrix(t *testing.T) {
	var (
		services = []string{"auth", "messaging", "tasks"}
		// clients have no reason to be kept from the public port by default.
		// Pods that have policies of their own are kept by those.
		clients  = []string{"dns", "ingress", "operator", "prometheus", "stranger", "stranger beside", "world"}
		embedded = slices.Concat(
			each(services, " -> database: database"), []string{"migrate -> database: database"},
			each(services, " -> bus: bus"), []string{"bus -> bus: route"},
			// For sessions that another pod holds.
			[]string{"messaging -> messaging: internal"})
		// The names are asked of the cluster's DNS, on whatever port it listens.
		anyPort = "database, bus, route"
		dns     = each(append([]string{"bus", "database", "migrate"}, services...),
			" -> dns: public, internal, "+anyPort+", other database, other bus, dns pod, https")
	)
	publicFrom := func(sources ...string) []string {
		var flows []string
		for _, source := range sources {
			ports := ": public"
			if source == "operator" {
				ports += ", internal"
			}
			for _, service := range services {
				flows = append(flows, source+" -> "+service+ports)
			}
		}
		return flows
	}
	operatorToBus := []string{"operator -> bus: internal"}
	tests := map[string]struct {
		spec   string
		change func(*desired.Inputs)
		want   []string
	}{
		"by default": {
			want: slices.Concat(embedded, dns, operatorToBus, publicFrom(clients...)),
		},
		"namespaces are named": {
			spec: "networkPolicy: {clientNamespaces: [ingress-nginx], monitoringNamespaces: [monitoring]}",
			want: slices.Concat(embedded, dns, publicFrom("ingress"),
				each([]string{"operator", "prometheus"}, " -> auth: internal"),
				each([]string{"operator", "prometheus"}, " -> bus: internal"),
				each([]string{"operator", "prometheus"}, " -> messaging: internal"),
				each([]string{"operator", "prometheus"}, " -> tasks: internal")),
		},
		"the operator does not know its namespace": {
			spec:   "networkPolicy: {clientNamespaces: [ingress-nginx]}",
			change: func(in *desired.Inputs) { in.OperatorNamespace = "" },
			want: slices.Concat(embedded, dns,
				[]string{"ingress -> auth: public, internal", "ingress -> messaging: public, internal", "ingress -> tasks: public, internal"},
				each(clients, " -> bus: internal"),
				each(slices.DeleteFunc(slices.Clone(clients), func(c string) bool { return c == "ingress" }), " -> auth: internal"),
				each(slices.DeleteFunc(slices.Clone(clients), func(c string) bool { return c == "ingress" }), " -> messaging: internal"),
				each(slices.DeleteFunc(slices.Clone(clients), func(c string) bool { return c == "ingress" }), " -> tasks: internal")),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sort.Strings(tt.want)
			if diff := cmp.Diff(tt.want, matrix(t, tt.spec, tt.change)); diff != "" {
				t.Errorf("admitted flows (-want +got):\n%s", diff)
			}
		})
	}
}

// External servers are reached on the port of their URL, wherever they are.
func TestFlowsToExternalServers(t *testing.T) {
	const spec = `
database: {external: {urlSecretRef: {name: db}}}
bus: {external: {urls: ['nats://nats.example.com:14222', 'tls://nats.example.com']}}
`
	in := inputs()
	in.ExternalDatabasePorts = []int32{6543}
	policies, _ := policiesOf(t, desired.Build(marketplace(t, spec), in).All())
	world := end{}
	for component, want := range map[string][]string{
		contract.ComponentAuth:      {"bus", "dns", "dns-tcp", "other database", "other bus"},
		contract.ComponentTasks:     {"bus", "dns", "dns-tcp", "other database", "other bus"},
		contract.ComponentMessaging: {"bus", "dns", "dns-tcp", "other database", "other bus"},
		contract.ComponentMigrate:   {"dns", "dns-tcp", "other database"},
	} {
		pod := end{"market", desired.SelectorLabels(marketplace(t, spec), component)}
		var got []string
		for _, p := range probed {
			if admitted(t, policies, flow{pod, world, p.protocol, p.port}) {
				got = append(got, p.name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s to the world (-want +got):\n%s", component, diff)
		}
	}
}

// Messaging alone reaches its webhook: on the URL's port, or, where that is a
// Service, whose pods may listen on any, in its namespace.
func TestFlowsToTheWebhook(t *testing.T) {
	const at = "messaging: {notifications: {url: '%s', secretRef: {name: push}}}"
	anywhere := []string{"dns", "dns-tcp"}
	all := make([]string, 0, len(probed))
	for _, p := range probed {
		all = append(all, p.name)
	}
	for address, want := range map[string]struct{ world, stranger []string }{
		"https://push.example.com":                      {append(slices.Clone(anywhere), "https"), append(slices.Clone(anywhere), "https")},
		"https://push.example.com:6543/in":              {append(slices.Clone(anywhere), "other database"), append(slices.Clone(anywhere), "other database")},
		"http://push.elsewhere.svc":                     {anywhere, all},
		"https://push.elsewhere.svc.cluster.local:9000": {anywhere, all},
		"https://PUSH.Elsewhere.SVC":                    {anywhere, all},
		"https://push.elsewhere.svc.":                   {anywhere, all},
	} {
		spec := fmt.Sprintf(at, address)
		policies, pods := policiesOf(t, desired.Build(marketplace(t, spec), inputs()).All())
		reached := func(component string, to end) []string {
			var got []string
			for _, p := range probed {
				if admits(t, policies, networkingv1.PolicyTypeEgress, flow{pods[component], to, p.protocol, p.port}) {
					got = append(got, p.name)
				}
			}
			return got
		}
		stranger := end{"elsewhere", map[string]string{"app": "push"}}
		if diff := cmp.Diff(want.world, reached(contract.ComponentMessaging, end{})); diff != "" {
			t.Errorf("%s: messaging to the world (-want +got):\n%s", address, diff)
		}
		if diff := cmp.Diff(want.stranger, reached(contract.ComponentMessaging, stranger)); diff != "" {
			t.Errorf("%s: messaging to another namespace (-want +got):\n%s", address, diff)
		}
		for _, other := range []string{contract.ComponentAuth, contract.ComponentTasks} {
			if diff := cmp.Diff(anywhere, reached(other, stranger)); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", address, other, diff)
			}
		}
	}
}

// Pods that still drain use the embedded servers that the spec has replaced.
func TestFlowsWhileEmbeddedServersLeave(t *testing.T) {
	const spec = `
database: {external: {urlSecretRef: {name: db}}}
bus: {external: {urls: ['nats://nats.example.com:4222']}}
`
	objects := desired.Build(marketplace(t, spec), inputs())
	policies, ends := policiesOf(t, append(objects.All(), objects.Leaving...))
	for to, port := range map[string]int32{
		contract.ComponentDatabase: contract.DatabasePort,
		contract.ComponentBus:      contract.BusPort,
	} {
		for _, service := range contract.Services() {
			if !admitted(t, policies, flow{ends[service], ends[to], corev1.ProtocolTCP, port}) {
				t.Errorf("%s does not reach the %s that leaves", service, to)
			}
		}
		stranger := end{"market", map[string]string{"app": "stranger"}}
		if admitted(t, policies, flow{stranger, ends[to], corev1.ProtocolTCP, port}) {
			t.Errorf("anyone reaches the %s that leaves", to)
		}
	}
}

// Pods that still serve use the external servers that the spec has replaced, by
// embedded ones or by others.
func TestFlowsWhileExternalServersLeave(t *testing.T) {
	const before = `
database: {external: {urlSecretRef: {name: db}}}
bus: {external: {urls: ['nats://nats.example.com:14222']}}
`
	in := inputs()
	in.ExternalDatabasePorts = []int32{6543}
	objects := desired.Build(marketplace(t, before), in)
	for _, object := range objects.Workloads {
		if d, ok := object.(*appsv1ac.DeploymentApplyConfiguration); ok {
			in.PortsInUse = append(in.PortsInUse, desired.ExternalPorts(d.Spec.Template.Annotations)...)
		}
	}
	in.ExternalDatabasePorts = []int32{contract.DatabasePort}
	for name, spec := range map[string]string{
		"for embedded ones": "",
		"for others": `
database: {external: {urlSecretRef: {name: other}}}
bus: {external: {urls: ['nats://other.example.com:4222']}}
`,
	} {
		t.Run(name, func(t *testing.T) {
			m := marketplace(t, spec)
			reaches := func(component string, port int32) bool {
				policies, ends := policiesOf(t, desired.Build(m, in).All())
				return admitted(t, policies, flow{ends[component], end{}, corev1.ProtocolTCP, port})
			}
			for _, port := range []int32{6543, 14222} {
				for _, service := range contract.Services() {
					if !reaches(service, port) {
						t.Errorf("%s does not reach the server on port %d that it leaves", service, port)
					}
				}
				if reaches(contract.ComponentMigrate, port) {
					t.Errorf("the migration reaches port %d, which it needs no more", port)
				}
			}
			in := in
			in.PortsInUse = nil
			policies, ends := policiesOf(t, desired.Build(m, in).All())
			for _, port := range []int32{6543, 14222} {
				if admitted(t, policies, flow{ends[contract.ComponentAuth], end{}, corev1.ProtocolTCP, port}) {
					t.Errorf("port %d stays open when nobody uses it", port)
				}
			}
		})
	}
}

func TestNetworkPoliciesCanBeTurnedOff(t *testing.T) {
	policies, _ := policiesOf(t, desired.Build(marketplace(t, "networkPolicy: {disabled: true}"), inputs()).All())
	if len(policies) > 0 {
		t.Errorf("%d policies are made though they are disabled", len(policies))
	}
}

// The operator's own policy is the chart's; config/manager holds it as it is by
// default. Kubelets, which have no namespace, probe the operator, and nobody
// reads its metrics until the chart is told who may.
func TestFlowsToTheOperator(t *testing.T) {
	read := func(file string, into any) {
		document, err := os.ReadFile(filepath.Join("..", "..", "config", "manager", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var policy networkingv1.NetworkPolicy
	var operator appsv1.Deployment
	read("network-policy.yaml", &policy)
	read("deployment.yaml", &operator)
	ports := map[string]int32{}
	for _, port := range operator.Spec.Template.Spec.Containers[0].Ports {
		ports[port.Name] = port.ContainerPort
	}
	// Its ports are names, which are the container's, and of TCP where it does not
	// say more.
	for _, rule := range policy.Spec.Ingress {
		for i := range rule.Ports {
			number, ok := ports[rule.Ports[i].Port.StrVal]
			if !ok {
				t.Fatalf("the operator has no port %s", rule.Ports[i].Port)
			}
			rule.Ports[i].Port, rule.Ports[i].Protocol = new(intstr.FromInt32(number)), new(corev1.ProtocolTCP)
		}
	}
	to := end{operator.Namespace, operator.Spec.Template.Labels}
	var got []string
	for name, from := range map[string]end{
		"kubelet":         {},
		"prometheus":      {"monitoring", map[string]string{"app": "prometheus"}},
		"stranger":        {"elsewhere", map[string]string{"app": "stranger"}},
		"stranger beside": {operator.Namespace, map[string]string{"app": "stranger"}},
		"its twin":        to,
	} {
		for port, number := range ports {
			if admitted(t, []networkingv1.NetworkPolicy{policy}, flow{from, to, corev1.ProtocolTCP, number}) {
				got = append(got, name+": "+port)
			}
		}
	}
	want := each([]string{"its twin", "kubelet", "prometheus", "stranger", "stranger beside"}, ": probes")
	sort.Strings(got)
	sort.Strings(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("who reaches the operator on which port (-want +got):\n%s", diff)
	}
	if !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}) {
		t.Errorf("policy types = %v: what the operator connects to is not listed", policy.Spec.PolicyTypes)
	}
}
