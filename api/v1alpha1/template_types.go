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
	NodeSelector map[string]LabelValue `json:"nodeSelector,omitempty"`
	// tolerations of the nodes' taints.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(t, !has(t.operator) || t.operator in ['', 'Exists', 'Equal', 'Lt', 'Gt'])",message="a toleration's operator must be Exists, Equal, Lt or Gt; without one it is Equal"
	// +kubebuilder:validation:XValidation:rule="self.all(t, has(t.key) && t.key != '' || has(t.operator) && t.operator == 'Exists')",message="a toleration needs a key; only one with the operator Exists may go without, and tolerates every taint"
	// +kubebuilder:validation:XValidation:rule="self.all(t, !has(t.value) || t.value == '' || !has(t.operator) || t.operator != 'Exists')",message="a toleration with the operator Exists must not have a value: remove the value, or use Equal"
	// +kubebuilder:validation:XValidation:rule="self.all(t, !has(t.effect) || t.effect in ['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute'])",message="a toleration's effect must be NoSchedule, PreferNoSchedule or NoExecute; without one it is about each of them"
	// +kubebuilder:validation:XValidation:rule="self.all(t, !has(t.tolerationSeconds) || has(t.effect) && t.effect == 'NoExecute')",message="a toleration with tolerationSeconds must have the effect NoExecute: no other evicts pods"
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// topologySpreadConstraints replace the operator's own, which asks, without
	// insisting, for pods on different nodes. A constraint without a label
	// selector gets that of the service's pods.
	// +optional
	// +listType=map
	// +listMapKey=topologyKey
	// +listMapKey=whenUnsatisfiable
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.maxSkew >= 1)",message="a topology spread constraint's maxSkew must be 1 or more"
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.topologyKey != '')",message="a topology spread constraint's topologyKey must be a node label, such as topology.kubernetes.io/zone"
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.whenUnsatisfiable in ['DoNotSchedule', 'ScheduleAnyway'])",message="a topology spread constraint's whenUnsatisfiable must be DoNotSchedule or ScheduleAnyway"
	// +kubebuilder:validation:XValidation:rule="self.all(c, !has(c.minDomains) || c.minDomains >= 1 && c.whenUnsatisfiable == 'DoNotSchedule')",message="a topology spread constraint's minDomains must be 1 or more, and needs whenUnsatisfiable: DoNotSchedule"
	// +kubebuilder:validation:XValidation:rule="self.all(c, (!has(c.nodeAffinityPolicy) || c.nodeAffinityPolicy in ['Honor', 'Ignore']) && (!has(c.nodeTaintsPolicy) || c.nodeTaintsPolicy in ['Honor', 'Ignore']))",message="a topology spread constraint's nodeAffinityPolicy and nodeTaintsPolicy must be Honor or Ignore"
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// priorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$`
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// imagePullSecrets name Secrets, in the Marketplace's namespace, that the
	// image is pulled with.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []SecretReference `json:"imagePullSecrets,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$`
type LabelValue string

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
