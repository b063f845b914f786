package desired

import (
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Labels and annotations beside those of the contract.
const (
	// LabelManagedBy and ManagedBy mark everything that the operator makes; its
	// caches hold nothing else.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "marketplane"

	// AnnotationConfig is a checksum, on pod templates, of what a process reads
	// only at its start.
	AnnotationConfig = "marketplane.dev/config-checksum"

	// AnnotationExternalPorts tells, on pod templates, the ports of the external
	// servers that the pods reach: the NetworkPolicy leaves them open while there
	// is such a pod.
	AnnotationExternalPorts = "marketplane.dev/external-ports"
)

// SelectorLabels select the pods of a component. A workload's selector can
// never change, so these never do.
func SelectorLabels(m *v1alpha1.Marketplace, component string) map[string]string {
	return map[string]string{
		contract.LabelMarketplace: m.Name,
		contract.LabelComponent:   component,
	}
}

// Labels are those of every object of a component.
func Labels(m *v1alpha1.Marketplace, component string) map[string]string {
	labels := SelectorLabels(m, component)
	labels[LabelManagedBy] = ManagedBy
	labels["app.kubernetes.io/name"] = "marketplane"
	labels["app.kubernetes.io/instance"] = m.Name
	labels["app.kubernetes.io/component"] = component
	return labels
}

// Owner is the owner reference by which everything goes with its Marketplace.
func Owner(m *v1alpha1.Marketplace) *metav1ac.OwnerReferenceApplyConfiguration {
	return metav1ac.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).
		WithKind(v1alpha1.Kind).
		WithName(m.Name).
		WithUID(m.UID).
		WithController(true).
		WithBlockOwnerDeletion(true)
}
