package desired

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
)

// Kinds that a cluster may lack. Objects of them are among those that Build
// returns all the same (those for monitoring where it has one of them): whether
// they can be applied is not its concern.
var (
	KindHTTPRoute      = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"}
	KindPodMonitor     = schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PodMonitor"}
	KindPrometheusRule = schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PrometheusRule"}
)

// optional is the apply configuration of an object whose types are not compiled
// in. Spec is a struct of just the fields that are set, with JSON tags.
type optional struct {
	metav1ac.TypeMetaApplyConfiguration    `json:",inline"`
	*metav1ac.ObjectMetaApplyConfiguration `json:"metadata"`

	Spec any `json:"spec"`
}

// IsApplyConfiguration makes it an apply configuration.
func (*optional) IsApplyConfiguration() {}

// optional renders an object of a kind that the cluster may lack.
func (r renderer) optional(kind schema.GroupVersionKind, name, component string, spec any) *optional {
	return &optional{
		TypeMetaApplyConfiguration: *metav1ac.TypeMeta().
			WithAPIVersion(kind.GroupVersion().String()).
			WithKind(kind.Kind),
		ObjectMetaApplyConfiguration: metav1ac.ObjectMeta().
			WithName(name).
			WithNamespace(r.m.Namespace).
			WithLabels(Labels(r.m, component)).
			WithOwnerReferences(Owner(r.m)),
		Spec: spec,
	}
}

var _ Object = (*optional)(nil)
