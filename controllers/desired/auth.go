package desired

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// auth signs users in. It alone holds the signing keys, which it reads again
// when they change.
func (r renderer) auth() Object {
	spec := r.m.Spec.Auth
	return r.deployment(workload{
		component: contract.ComponentAuth,
		replicas:  r.replicas(contract.ComponentAuth, spec.ReplicasOrDefault()),
		surge:     intstr.FromInt32(1),
		resources: spec.Resources,
		// Each password check takes 19 MiB for its time.
		defaults: amounts{cpu: "100m", memory: "128Mi", memoryLimit: "512Mi"},
		drain:    requestDrain,
		shape:    spec.Template,
		env: []*corev1ac.EnvVarApplyConfiguration{
			env(contract.EnvSigningDir, contract.MountSigning),
			r.trustedProxies(),
		},
		volumes: []*corev1ac.VolumeApplyConfiguration{secretVolume("signing", r.names.Signing())},
		mounts:  []*corev1ac.VolumeMountApplyConfiguration{mountReadOnly("signing", contract.MountSigning)},
	})
}

// trustedProxies tells a service whose word it takes for a client's address.
func (r renderer) trustedProxies() *corev1ac.EnvVarApplyConfiguration {
	proxies := make([]string, 0, len(r.m.Spec.Auth.TrustedProxies))
	for _, network := range r.m.Spec.Auth.TrustedProxies {
		proxies = append(proxies, string(network))
	}
	return env(contract.EnvTrustedProxies, strings.Join(proxies, ","))
}
