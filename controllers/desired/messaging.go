package desired

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// messaging holds the clients' connections. An update brings the whole new
// tier up before the old one goes, so that a client that moves does not land
// on a pod that must go too.
func (r renderer) messaging() Object {
	spec := r.m.Spec.Messaging
	origins := make([]string, 0, len(spec.AllowedOrigins))
	for _, origin := range spec.AllowedOrigins {
		origins = append(origins, string(origin))
	}
	return r.deployment(workload{
		component: contract.ComponentMessaging,
		replicas:  r.in.MessagingReplicas,
		surge:     intstr.FromString("100%"),
		resources: spec.Resources,
		defaults:  amounts{cpu: "100m", memory: "128Mi", memoryLimit: "512Mi"},
		drain:     contract.Drain{Floor: spec.Drain.Floor(), Window: spec.Drain.Window()},
		env: []*corev1ac.EnvVarApplyConfiguration{
			env(contract.EnvAllowedOrigins, strings.Join(origins, ",")),
		},
		podLabels: map[string]string{contract.LabelServing: "true"},
	})
}
