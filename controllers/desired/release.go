package desired

import (
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// LabelRelease says, on workloads and never on their pods, of which release
// they are.
const LabelRelease = "app.kubernetes.io/version"

// unmarkedRelease is the one whose workloads do not bear LabelRelease. That is
// all that sets it apart from the release after it: where a later one renders
// pods in another way, the builder asks for the release, as this does.
const unmarkedRelease = "v0.1.0"

// ReleaseOf returns the release that a workload with these labels is of.
func ReleaseOf(labels map[string]string) string {
	if release := labels[LabelRelease]; release != "" {
		return release
	}
	return unmarkedRelease
}

// workloadLabels are those of a component's workload itself.
func (r renderer) workloadLabels(component string) map[string]string {
	labels := Labels(r.m, component)
	if r.in.Release != unmarkedRelease {
		labels[LabelRelease] = r.in.Release
	}
	return labels
}

// PublicKeys is the object that publishes the signing keys' public half. It
// depends on no release, and so is kept current where none can be rendered.
func PublicKeys(m *v1alpha1.Marketplace, in Inputs) Object {
	return renderer{m: m, in: in, names: NamesOf(m)}.jwks()
}
