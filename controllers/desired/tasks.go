package desired

import (
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/marketplane/marketplane/api/contract"
)

// tasks posts, assigns and tracks chores.
func (r renderer) tasks() Object {
	spec := r.m.Spec.Tasks
	return r.deployment(workload{
		component: contract.ComponentTasks,
		replicas:  r.replicas(contract.ComponentTasks, spec.ReplicasOrDefault()),
		surge:     intstr.FromInt32(1),
		resources: spec.Resources,
		defaults:  amounts{cpu: "50m", memory: "64Mi", memoryLimit: "256Mi"},
		drain:     requestDrain,
		shape:     spec.Template,
	})
}
