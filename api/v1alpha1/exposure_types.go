package v1alpha1

// ExposureSpec makes the services reachable from outside the cluster, under
// one host name, by an Ingress or by an HTTPRoute.
//
// +kubebuilder:validation:XValidation:rule="has(self.ingress) != has(self.httpRoute)",message="exposure needs either ingress or httpRoute, and not both"
type ExposureSpec struct {
	// hostname that clients use, such as market.example.com.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",message="exposure.hostname must be a DNS name in lower case without scheme, port or wildcard, such as market.example.com"
	Hostname string `json:"hostname"`
	// ingress asks for an Ingress (networking.k8s.io/v1).
	// +optional
	Ingress *IngressExposure `json:"ingress,omitempty"`
	// httpRoute asks for an HTTPRoute (gateway.networking.k8s.io/v1).
	// +optional
	HTTPRoute *HTTPRouteExposure `json:"httpRoute,omitempty"`
}

// IngressExposure shapes the Ingress.
type IngressExposure struct {
	// className of the controller. Default: the cluster's default class.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ClassName *string `json:"className,omitempty"`
	// annotations of the Ingress. They win over the WebSocket timeouts that the
	// operator sets for controllers that it knows.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`
	// tls makes the controller answer with HTTPS. Default: plain HTTP.
	// +optional
	TLS *IngressTLS `json:"tls,omitempty"`
}

// IngressTLS is the certificate for the host name.
type IngressTLS struct {
	// secretName of a Secret of type kubernetes.io/tls in the Marketplace's
	// namespace, for exposure.hostname. It may be made later, by cert-manager for
	// one. Exposed is not True while it is not there, is for another host or has
	// expired.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName"`
}

// HTTPRouteExposure shapes the HTTPRoute.
type HTTPRouteExposure struct {
	// parentRefs are the Gateways that serve it.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	ParentRefs []GatewayReference `json:"parentRefs"`
	// annotations of the HTTPRoute.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`
	// scheme of the URLs in status: what the Gateway's listener speaks.
	// +optional
	// +kubebuilder:default=https
	Scheme URLScheme `json:"scheme,omitempty"`
}

// URLScheme is the scheme of a URL.
//
// +kubebuilder:validation:Enum=http;https
type URLScheme string

const (
	// SchemeHTTP is plain HTTP, and ws for WebSockets.
	SchemeHTTP URLScheme = "http"
	// SchemeHTTPS is HTTP over TLS, and wss for WebSockets.
	SchemeHTTPS URLScheme = "https"
)

// GatewayReference names a Gateway.
type GatewayReference struct {
	// name of the Gateway.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// namespace of the Gateway. Default: the Marketplace's.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// sectionName of the listener. Default: all that admit the route.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	SectionName string `json:"sectionName,omitempty"`
	// port of the listener. Default: all.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
}

// MonitoringSpec says what is made for Prometheus and Grafana. Objects whose
// API the cluster does not have are made when it appears.
type MonitoringSpec struct {
	// disabled leaves out the PodMonitor, the PrometheusRule and the dashboards.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
	// labels on the PodMonitor and the PrometheusRule, by which a Prometheus
	// selects them.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Labels map[string]string `json:"labels,omitempty"`
	// intervalSeconds between two scrapes. Default: Prometheus' own.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	IntervalSeconds *int32 `json:"intervalSeconds,omitempty"`
}

// NetworkPolicySpec restricts who may connect to whom. Its objects have effect
// where the cluster's network enforces them.
type NetworkPolicySpec struct {
	// disabled makes no NetworkPolicy.
	// +optional
	Disabled bool `json:"disabled,omitempty"`
	// clientNamespaces are the namespaces whose pods may reach the services'
	// public port: the ingress controller's, say. Default: everyone may.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	ClientNamespaces []Namespace `json:"clientNamespaces,omitempty"`
	// monitoringNamespaces are the namespaces whose pods may read metrics from
	// the internal port, beside the operator's. Default: none, so that nobody
	// scrapes the pods where policies are enforced until the namespace of the
	// Prometheus stands here.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	MonitoringNamespaces []Namespace `json:"monitoringNamespaces,omitempty"`
}

// Namespace is the name of a namespace.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type Namespace string
