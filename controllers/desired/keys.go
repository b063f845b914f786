package desired

import (
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/marketplane/marketplane/api/contract"
)

// jwks is the ConfigMap with the public keys that every service verifies
// tokens with. Services read the file again when it changes.
func (r renderer) jwks() Object {
	return corev1ac.ConfigMap(r.names.JWKS(), r.m.Namespace).
		WithLabels(Labels(r.m, contract.ComponentAuth)).
		WithOwnerReferences(Owner(r.m)).
		WithData(map[string]string{contract.FileJWKS: string(r.in.JWKS)})
}
