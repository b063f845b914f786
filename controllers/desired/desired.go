// Package desired says which objects a Marketplace consists of. Its builders
// are pure: the resource and what was observed go in, apply configurations
// come out. It must not know clients, clocks or what is deployed already,
// beyond the Inputs.
package desired

import (
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Inputs are what the objects depend on beside the Marketplace itself.
type Inputs struct {
	// Installation is the id that the data carries.
	Installation string
	// Release is the one that is rendered, such as v0.2.0.
	Release string
	// Image is the image of the services.
	Image string
	// PostgresImage is the image of embedded databases that name no other.
	PostgresImage string
	// JWKS is the public half of the signing keys.
	JWKS []byte
	// Fingerprints of the Secrets' contents by Secret name. Pods that read a
	// Secret only at their start are replaced when its fingerprint changes.
	Fingerprints map[string]string
	// MigrationRound counts how often the migration is tried anew after its Job
	// gave up; 0 for the first.
	MigrationRound int
	// MessagingReplicas is how many messaging pods are wanted.
	MessagingReplicas int32
	// Autoscaled are the services whose number of pods an autoscaler decides, each
	// with the number that a new Deployment begins with: 0 where there is a
	// Deployment already, which then does not speak of it.
	Autoscaled map[string]int32
	// OperatorNamespace is where the operator runs; empty where it runs outside
	// the cluster.
	OperatorNamespace string
	// ExternalDatabasePorts are those of the external database's URL; 5432 where
	// there is none.
	ExternalDatabasePorts []int32
	// PortsInUse are those of external servers that pods which exist reach, by
	// their AnnotationExternalPorts, whatever the spec names now.
	PortsInUse []int32
	// Monitored says that the cluster has one of the Prometheus Operator's APIs:
	// who has those has a Grafana, too, that looks for dashboards.
	Monitored bool
	// Volume is the database's volume as it exists, nil where it does not.
	Volume *Volume
}

// Volume is a database volume that exists. A volume cannot shrink or change
// its class, so what exists bounds what can be wanted.
type Volume struct {
	Size      resource.Quantity
	ClassName *string
}

// Object is an apply configuration with a name: every generated one is.
type Object interface {
	runtime.ApplyConfiguration
	GetName() *string
	GetNamespace() *string
	GetKind() *string
	GetAPIVersion() *string
}

// Objects are the parts of a Marketplace, in the order in which they are
// applied. Secrets are not among them: they are made once and never rendered.
type Objects struct {
	// Foundation is what the services need: keys, database, bus.
	Foundation []Object
	// Migration is the Job that must succeed before Services may change.
	Migration Object
	// Access are the Services and disruption budgets of the services, and what
	// exposes and watches them.
	Access []Object
	// Workloads are the Deployments of the services, and what goes with them.
	Workloads []Object
	// Leaving are the parts of an embedded database or bus whose section the
	// spec has replaced by an external one. Where they exist they stay, as they
	// are, until no service uses them any more.
	Leaving []Object
}

// All returns every object in order.
func (o Objects) All() []Object {
	var all []Object
	all = append(all, o.Foundation...)
	all = append(all, o.Migration)
	all = append(all, o.Access...)
	return append(all, o.Workloads...)
}

// Build returns what the Marketplace consists of.
func Build(m *v1alpha1.Marketplace, in Inputs) Objects {
	r := renderer{m: m, in: in, names: NamesOf(m)}
	o := Objects{
		Foundation: []Object{r.jwks()},
		Migration:  r.migration(),
		Workloads:  append(r.servicesPolicy(), r.auth(), r.tasks(), r.messaging()),
	}
	o.Workloads = append(o.Workloads, r.autoscalers()...)
	o.Foundation = append(o.Foundation, r.migratePolicy()...)
	database, bus := &o.Foundation, &o.Foundation
	if m.Spec.Database.External != nil {
		database = &o.Leaving
	}
	if m.Spec.Bus.External != nil {
		bus = &o.Leaving
	}
	*database = append(*database, r.database()...)
	*bus = append(*bus, r.bus()...)
	o.Access = append(o.Access, r.serviceAccess()...)
	o.Access = append(o.Access, r.exposure()...)
	o.Access = append(o.Access, r.monitoring()...)
	return o
}

// renderer holds what every builder reads.
type renderer struct {
	m     *v1alpha1.Marketplace
	in    Inputs
	names Names
}
