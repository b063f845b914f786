package controllers

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// growthPatience is how long a service may take to come to another size before
// that is no mere growth any more: what a cluster autoscaler takes to bring a
// node is in it.
const growthPatience = 10 * time.Minute

// settled says how a service was when it was last as wanted. While its pods
// are made from the same template, and as many of them are available, a service
// of another size than wanted is on its way there, and nobody lacks anything.
type settled struct {
	uid types.UID
	// generation is that of which template is the digest.
	generation int64
	template   [sha256.Size]byte
	// replicas is how many pods must be available: as many as were, and those
	// that have come since; not more than are wanted.
	replicas int32
	// whole says that it was as wanted when it was last seen.
	whole bool
	// since is when it was seen not to be any more, or to come nearer.
	since time.Time
}

// settle brings what is remembered of every service up to what is seen.
func (o observation) settle(m *v1alpha1.Marketplace, p *plan) {
	names := desired.NamesOf(m)
	for _, component := range contract.Services() {
		d := o.deployment(names, component)
		if d == nil {
			delete(o.settled, component)
			continue
		}
		record, known := o.settled[component].renewed(d, o.generation(kindDeployment, d))
		wanted := wantedReplicas(m, o, p, component, d)
		switch {
		case rolledOut(d, o.generation(kindDeployment, d), wanted):
			record.replicas, record.whole = wanted, true
		case known:
			if record.whole || d.Status.AvailableReplicas > record.replicas {
				record.whole, record.since = false, o.at
			}
			record.replicas = min(wanted, max(record.replicas, d.Status.AvailableReplicas))
		case wasScaling(m, component):
			// The operator has begun anew in the midst of it.
			record.replicas, record.since = min(wanted, d.Status.AvailableReplicas), o.at
		default:
			delete(o.settled, component)
			continue
		}
		o.settled[component] = record
	}
}

// renewed is the record with the digest of the Deployment's template as it is,
// and whether the record is about that template.
func (s settled) renewed(d *appsv1.Deployment, generation int64) (settled, bool) {
	if s.uid == d.UID && s.generation == generation {
		return s, true
	}
	// What cannot be encoded cannot have come from the API server.
	content, err := json.Marshal(d.Spec.Template)
	if err != nil {
		return settled{}, false
	}
	is := settled{uid: d.UID, generation: generation, template: sha256.Sum256(content)}
	if s.uid == is.uid && s.template == is.template {
		s.generation = generation
		return s, true
	}
	return is, false
}

// scaling says whether a service that is not as wanted is merely on its way to
// another size.
func (o observation) scaling(component string, d *appsv1.Deployment) bool {
	record, known := o.settled[component]
	return known && record.replicas > 0 && d.Status.AvailableReplicas >= record.replicas &&
		o.at.Sub(record.since) < growthPatience
}

// wasScaling says whether the status told of a service on its way to another
// size.
func wasScaling(m *v1alpha1.Marketplace, component string) bool {
	c := meta.FindStatusCondition(m.Status.Conditions, availableConditions[component])
	return c != nil && c.Reason == v1alpha1.ReasonScaling
}

// availableConditions are the conditions of the services.
var availableConditions = map[string]string{
	contract.ComponentAuth:      v1alpha1.ConditionAuthAvailable,
	contract.ComponentTasks:     v1alpha1.ConditionTasksAvailable,
	contract.ComponentMessaging: v1alpha1.ConditionMessagingAvailable,
}

// wantedReplicas is how many pods a service should have.
func wantedReplicas(m *v1alpha1.Marketplace, seen observation, p *plan, component string, d *appsv1.Deployment) int32 {
	if p == nil || m.Spec.Paused || leftAlone(m, seen, component) {
		return replicasIn(d)
	}
	return replicasOf(m, component, p.size)
}
