package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MarketplaceStatus is what the operator observed.
type MarketplaceStatus struct {
	// observedGeneration is the generation of the spec that this status is
	// about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// installation is the id that the data carries: this Marketplace's UID, or
	// that of the one whose kept volume it took over. Pinned once set.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	Installation string `json:"installation,omitempty"`
	// version is the release that the services run.
	// +optional
	Version string `json:"version,omitempty"`
	// image is what that release was when it was rolled out; it stays with the
	// version.
	// +optional
	Image string `json:"image,omitempty"`
	// previous is the release that the services were of before version, and its
	// image: what they go back to.
	// +optional
	Previous *ReleaseStatus `json:"previous,omitempty"`
	// databaseImage is what the embedded database runs. It changes with
	// spec.database.embedded.image alone, not with the operator's default.
	// +optional
	DatabaseImage string `json:"databaseImage,omitempty"`
	// conditions by type: Ready, Reconciling and Stalled as kstatus has them,
	// and one for each concern.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// messaging is the state of the messaging tier.
	// +optional
	Messaging *MessagingStatus `json:"messaging,omitempty"`
	// keys are the signing keys.
	// +optional
	Keys *KeysStatus `json:"keys,omitempty"`
	// endpoints are the services' URLs: in the cluster, and from outside.
	// +optional
	Endpoints *EndpointsStatus `json:"endpoints,omitempty"`
}

// ReleaseStatus is a release and the image that its services were run from.
type ReleaseStatus struct {
	// version is the release, such as v0.1.0.
	Version string `json:"version"`
	// image is that of its services.
	Image string `json:"image"`
}

// MessagingStatus is the state of the messaging tier.
type MessagingStatus struct {
	// replicas is how many messaging pods exist, terminating ones not counted.
	Replicas int32 `json:"replicas"`
	// targetReplicas is how many are wanted: spec.messaging.replicas, or the
	// autoscaler's decision.
	// +optional
	TargetReplicas int32 `json:"targetReplicas,omitempty"`
	// selector finds the messaging pods, as text; for the scale subresource.
	// +optional
	Selector string `json:"selector,omitempty"`
	// connections over all messaging pods. Written when they changed by a
	// tenth or more, and else at most every 30 seconds.
	// +optional
	Connections *ConnectionsStatus `json:"connections,omitempty"`
	// scalingReason says why targetReplicas is what it is.
	// +optional
	ScalingReason string `json:"scalingReason,omitempty"`
}

// ConnectionsStatus counts the connections of all messaging pods.
type ConnectionsStatus struct {
	// live ones are authenticated and have not been told to move.
	Live int32 `json:"live"`
	// draining ones have been told to move, or are on a pod that stops.
	Draining int32 `json:"draining"`
	// pending ones are not authenticated yet.
	Pending int32 `json:"pending"`
	// forwarded ones are those of Socket.IO clients who came to another pod than
	// the one that holds their session, which counts them as well.
	// +optional
	Forwarded int32 `json:"forwarded,omitempty"`
	// unknownPods is how many running pods did not tell their connections.
	// +optional
	UnknownPods int32 `json:"unknownPods,omitempty"`
	// observedAt is when they were counted.
	ObservedAt metav1.Time `json:"observedAt"`
}

// EndpointsStatus are the services' URLs.
type EndpointsStatus struct {
	// auth is the base URL of the auth service.
	// +optional
	Auth string `json:"auth,omitempty"`
	// tasks is the base URL of the tasks service.
	// +optional
	Tasks string `json:"tasks,omitempty"`
	// messaging is the base URL of the messaging service.
	// +optional
	Messaging string `json:"messaging,omitempty"`
	// public is the base URL of all services from outside, where spec.exposure
	// asks for one.
	// +optional
	Public string `json:"public,omitempty"`
	// webSocket is the URL that native messaging clients connect to from
	// outside, where spec.exposure asks for one.
	// +optional
	WebSocket string `json:"webSocket,omitempty"`
}

// Condition types. Ready, Reconciling and Stalled follow kstatus. All but
// Reconciling, Stalled and ScalingConflict are positive: True is good.
const (
	// ConditionReady is True when every part is up as the spec asks. It stays
	// True while a service that has what it had comes to another number of pods,
	// which Reconciling tells. Positive polarity.
	ConditionReady = "Ready"
	// ConditionReconciling is True while the operator works towards the spec
	// or waits for something that should come by itself. It is absent
	// otherwise. Negative polarity.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when nothing will change until someone acts; the
	// message says what to do. It is absent otherwise. Negative polarity.
	ConditionStalled = "Stalled"
	// ConditionDatabaseReady is True when the database takes connections.
	// Positive polarity.
	ConditionDatabaseReady = "DatabaseReady"
	// ConditionSchemaCurrent is True when the migrations of this release have
	// run; Unknown while it cannot be said which are needed. Positive polarity.
	ConditionSchemaCurrent = "SchemaCurrent"
	// ConditionBusReady is True when all embedded bus servers are ready, or an
	// external one answers. Without them writes are still taken, and delivery
	// slows down. Positive polarity.
	ConditionBusReady = "BusReady"
	// ConditionAuthAvailable is True when auth runs as the spec asks. Positive
	// polarity.
	ConditionAuthAvailable = "AuthAvailable"
	// ConditionTasksAvailable is True when tasks runs as the spec asks.
	// Positive polarity.
	ConditionTasksAvailable = "TasksAvailable"
	// ConditionMessagingAvailable is True when messaging runs with as many pods
	// as are wanted, or is on its way to another number and has lost none.
	// Positive polarity.
	ConditionMessagingAvailable = "MessagingAvailable"
	// ConditionKeysCurrent is True when a signing key is active, all public keys
	// are published and no rotation is overdue. Positive polarity.
	ConditionKeysCurrent = "KeysCurrent"
	// ConditionExposed is True when what spec.exposure asks for is there and
	// admitted by its controller. It is absent where nothing is asked. Positive
	// polarity.
	ConditionExposed = "Exposed"
	// ConditionNotificationsReady is True when the Secret of
	// spec.messaging.notifications can be used; whether the webhook takes what is
	// sent is for metrics to tell. It is absent where nothing is asked. Positive
	// polarity.
	ConditionNotificationsReady = "NotificationsReady"
	// ConditionScalingConflict is True when something else decides replicas that
	// the operator, or an autoscaler that was asked for, decides already. It is
	// absent otherwise. Negative polarity.
	ConditionScalingConflict = "ScalingConflict"
)

// Condition reasons.
const (
	// ReasonReady: the part is up as the spec asks.
	ReasonReady = "Ready"
	// ReasonPaused: nothing is changed, since spec.paused is set.
	ReasonPaused = "Paused"
	// ReasonProgressing: what was applied is not up yet.
	ReasonProgressing = "Progressing"
	// ReasonScaling: a service has the pods that it had, and comes to another
	// number of them. Ready stays True meanwhile, beside Reconciling.
	ReasonScaling = "Scaling"
	// ReasonWaiting: another part must be up first; the message names it.
	ReasonWaiting = "Waiting"
	// ReasonPodFailing: a pod fails; the message holds its last words.
	ReasonPodFailing = "PodFailing"
	// ReasonMigrating: the migration Job runs.
	ReasonMigrating = "Migrating"
	// ReasonInstallationMismatch: spec.database.installation is not the one that
	// the data carries, or a kept volume does not tell which one it carries.
	ReasonInstallationMismatch = "InstallationMismatch"
	// ReasonMigrationFailed: the migration Job gave up; the message says whether
	// it is made again by itself.
	ReasonMigrationFailed = "MigrationFailed"
	// ReasonNameTaken: an object of a needed name belongs to someone else.
	ReasonNameTaken = "NameTaken"
	// ReasonRefused: the API server refuses an object; the message says why.
	ReasonRefused = "Refused"
	// ReasonSecretInvalid: a Secret that the operator made was damaged, or one
	// that the spec names lacks a key or holds what cannot be used.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonSecretMissing: a Secret that the spec names is not there.
	ReasonSecretMissing = "SecretMissing"
	// ReasonUnreachable: an external server does not answer; the message holds
	// the driver's words.
	ReasonUnreachable = "Unreachable"
	// ReasonAuthenticationFailed: an external server refuses the credentials.
	ReasonAuthenticationFailed = "AuthenticationFailed"
	// ReasonUnsupported: an external server is too old or lacks a right that is
	// needed.
	ReasonUnsupported = "Unsupported"
	// ReasonVersionUnsupported: the operator does not know the release that is
	// asked for.
	ReasonVersionUnsupported = "VersionUnsupported"
	// ReasonAPIMissing: the cluster lacks the API of an object that the spec
	// asks for.
	ReasonAPIMissing = "APIMissing"
	// ReasonNotAdmitted: the Ingress controller or the Gateway has not taken the
	// route; the message says what it said.
	ReasonNotAdmitted = "NotAdmitted"
	// ReasonAutoscalerConflict: a HorizontalPodAutoscaler targets what is scaled
	// by someone else; the message names it.
	ReasonAutoscalerConflict = "AutoscalerConflict"
	// ReasonRotationOverdue: a new signing key is due and was not made; the
	// message says why.
	ReasonRotationOverdue = "RotationOverdue"
	// ReasonApplyFailed: a request failed and is tried again.
	ReasonApplyFailed = "ApplyFailed"
)
