package desired

import (
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// LabelRelease says, on workloads and never on their pods, of which release
// they are.
const LabelRelease = "app.kubernetes.io/version"

// FirstRelease is the one whose workloads do not bear LabelRelease, and which
// has no NetworkPolicies. Where a later one renders pods in another way, the
// builder asks for the release, as these do.
const FirstRelease = "v0.1.0"

// ReleaseOf returns the release that a workload with these labels is of.
func ReleaseOf(labels map[string]string) string {
	if release := labels[LabelRelease]; release != "" {
		return release
	}
	return FirstRelease
}

// workloadLabels are those of a component's workload itself.
func (r renderer) workloadLabels(component string) map[string]string {
	labels := Labels(r.m, component)
	if r.in.Release != FirstRelease {
		labels[LabelRelease] = r.in.Release
	}
	return labels
}

// Lacks returns the first field of the spec that the programs of a release know
// nothing of; empty where there is none.
func Lacks(release string, spec v1alpha1.MarketplaceSpec) string {
	switch {
	case release != FirstRelease:
		return ""
	case spec.Database.External != nil:
		return "spec.database.external"
	case spec.Bus.External != nil:
		return "spec.bus.external"
	case spec.Messaging.Support != nil:
		return "spec.messaging.support"
	case spec.Messaging.SocketIO != nil:
		return "spec.messaging.socketIO"
	case spec.Messaging.Notifications != nil:
		return "spec.messaging.notifications"
	default:
		return ""
	}
}

// PublicKeys is the object that publishes the signing keys' public half. It
// depends on no release, and so is kept current where none can be rendered.
func PublicKeys(m *v1alpha1.Marketplace, in Inputs) Object {
	return renderer{m: m, in: in, names: NamesOf(m)}.jwks()
}
