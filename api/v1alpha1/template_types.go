package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// PodTemplate shapes the pods of a service beyond what the operator sets. What
// the operator sets wins where both speak of the same.
type PodTemplate struct {
	// image replaces the release's image for this service. It must hold the same
	// program; the database is migrated by the release's own.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^\S*$`
	Image string `json:"image,omitempty"`
	// env are further environment variables of the container. Names that begin
	// with MARKETPLANE_ are the operator's. Secrets do not belong here.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []EnvVar `json:"env,omitempty"`
	// annotations of the pods. Those of marketplane.dev are the operator's.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('marketplane.dev/'))",message="template.annotations must not begin with marketplane.dev/: those are the operator's"
	Annotations map[string]string `json:"annotations,omitempty"`
	// nodeSelector are labels that a node must have.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// tolerations of the nodes' taints.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// topologySpreadConstraints replace the operator's own, which asks, without
	// insisting, for pods on different nodes. A constraint without a label
	// selector gets that of the service's pods.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// priorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// imagePullSecrets name Secrets, in the Marketplace's namespace, that the
	// image is pulled with.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []SecretReference `json:"imagePullSecrets,omitempty"`
}

// EnvVar is an environment variable.
type EnvVar struct {
	// name of the variable.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !self.startsWith('MARKETPLANE_') && self != 'GOMEMLIMIT'",message="an env name must be of A-Z, a-z, 0-9 and '_', not start with a digit, and be neither GOMEMLIMIT nor begin with MARKETPLANE_: the operator sets those"
	Name string `json:"name"`
	// value of the variable, as it is: $(NAME) is not expanded.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
}

// CPUAutoscalingSpec is what a HorizontalPodAutoscaler (autoscaling/v2) gets.
// It needs the metrics API (metrics-server).
//
// +kubebuilder:validation:XValidation:rule="self.maxReplicas >= self.minReplicas",message="autoscaling.maxReplicas must not be less than autoscaling.minReplicas (2 where it is not set): raise maxReplicas or lower minReplicas",fieldPath=".maxReplicas"
type CPUAutoscalingSpec struct {
	// minReplicas is the least number of pods.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// maxReplicas is the largest number of pods.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxReplicas int32 `json:"maxReplicas"`
	// targetCPUUtilizationPercentage is the CPU that the pods should use on
	// average, in percent of what they request.
	// +optional
	// +kubebuilder:default=70
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	TargetCPUUtilizationPercentage *int32 `json:"targetCPUUtilizationPercentage,omitempty"`
}
