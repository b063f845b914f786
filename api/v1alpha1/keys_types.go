package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AnnotationRotateKeys asks for a new signing key now: set it to "now", or to
// any other word. The operator answers each new value once, and status.keys
// tells what came of it; a value that was taken away may come again. A value
// that begins with "revoke" asks for a key that signs at once, and for all others
// to be taken out at once: every access token that is out is refused then. Sessions
// go on.
const AnnotationRotateKeys = "marketplane.dev/rotate-keys"

// KeyRotationSpec says how often the key that signs tokens is replaced. A new
// key is published before it signs, and an old one stays published until the
// last token that it signed has expired.
//
// +kubebuilder:validation:XValidation:rule="!has(self.overlap) || !has(self.period) || duration(self.overlap) <= duration(self.period)",message="auth.keyRotation.overlap must not be longer than auth.keyRotation.period: at most one old key is kept then"
type KeyRotationSpec struct {
	// period between two keys, such as 720h. At least 1h.
	// +optional
	// +kubebuilder:default="720h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1h') && duration(self) <= duration('87600h')",message="auth.keyRotation.period must be a duration from 1h to 87600h, such as 720h"
	Period metav1.Duration `json:"period,omitzero"`
	// overlap is how long an old key stays published after a new one has begun
	// to sign. At least 10m: an access token lives for 5 minutes.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10m') && duration(self) <= duration('720h')",message="auth.keyRotation.overlap must be a duration from 10m to 720h, such as 1h"
	Overlap metav1.Duration `json:"overlap,omitzero"`
}

// KeysStatus are the signing keys.
type KeysStatus struct {
	// active is the id of the key that signs.
	// +optional
	Active string `json:"active,omitempty"`
	// published are the ids of all keys that tokens are verified with.
	// +optional
	// +listType=atomic
	Published []string `json:"published,omitempty"`
	// schedule tells the times of the published keys, in the order of their
	// activation.
	// +optional
	// +listType=atomic
	Schedule []ScheduledKey `json:"schedule,omitempty"`
	// nextRotation is when the next key will be made.
	// +optional
	NextRotation *metav1.Time `json:"nextRotation,omitempty"`
	// rotateRequest is the value of the annotation marketplane.dev/rotate-keys
	// that was answered last; a long one is cut.
	// +optional
	RotateRequest string `json:"rotateRequest,omitempty"`
}

// ScheduledKey tells the times of a published key.
type ScheduledKey struct {
	// id is its JWK thumbprint (RFC 7638): "kid" in tokens and in the JWKS.
	ID string `json:"id"`
	// activatesAt is when auth begins to sign with it.
	ActivatesAt metav1.Time `json:"activatesAt"`
	// retiresAt is when it is taken out of the JWKS; unset while no younger key
	// is there.
	// +optional
	RetiresAt *metav1.Time `json:"retiresAt,omitempty"`
}
