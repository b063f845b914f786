package desired

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// messaging holds the clients' connections. An update brings the whole new
// tier up beside the old one, whose pods then go as new ones become ready. So a
// client that moves lands on a pod that stays, as long as the new pods become
// ready within the drain's floor of one another.
func (r renderer) messaging() Object {
	spec := r.m.Spec.Messaging
	origins := make([]string, 0, len(spec.AllowedOrigins))
	for _, origin := range spec.AllowedOrigins {
		origins = append(origins, string(origin))
	}
	environment := []*corev1ac.EnvVarApplyConfiguration{
		env(contract.EnvAllowedOrigins, strings.Join(origins, ",")),
	}
	if r.in.Release != FirstRelease { // which limits no connects, and has no Socket.IO
		environment = append(environment, r.trustedProxies(), fromField(contract.EnvAddress, "status.podIP"))
	}
	if spec.Support != nil && r.in.Release != FirstRelease { // which has no support conversations
		agents := make([]string, 0, len(spec.Support.UserIDs))
		for _, id := range spec.Support.UserIDs {
			agents = append(agents, string(id))
		}
		environment = append(environment, env(contract.EnvSupportUserIDs, strings.Join(agents, ",")))
	}
	if spec.SocketIO != nil && r.in.Release != FirstRelease { // which does not speak it
		recovery := spec.SocketIO.ConnectionStateRecovery != v1alpha1.Disabled
		environment = append(environment, env(contract.EnvSocketIORecovery, strconv.FormatBool(recovery)))
	}
	defaults := amounts{cpu: "100m", memory: "128Mi", memoryLimit: "512Mi"}
	if r.in.Release != FirstRelease { // whose pods must not be replaced for this
		// A socket's work is short and often: see docs/decisions/0011.
		environment = append(environment, processors(resources(defaults, spec.Resources), spec.Template)...)
	}
	notifications := r.notifications()
	return r.deployment(workload{
		component: contract.ComponentMessaging,
		replicas:  r.replicas(contract.ComponentMessaging, r.in.MessagingReplicas),
		surge:     intstr.FromString("100%"),
		resources: spec.Resources,
		defaults:  defaults,
		drain:     contract.Drain{Floor: spec.Drain.Floor(), Window: spec.Drain.Window()},
		env:       append(environment, notifications.env...),
		volumes:   notifications.volumes,
		mounts:    notifications.mounts,
		podLabels: map[string]string{contract.LabelServing: "true"},
		shape:     spec.Template,
	})
}
