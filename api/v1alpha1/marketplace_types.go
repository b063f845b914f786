package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Marketplace is the back end of one two-sided task marketplace: auth, tasks
// and messaging, with the database and the bus that they share. An empty spec
// runs.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.messaging.replicas,statuspath=.status.messaging.replicas,selectorpath=.status.messaging.selector
// +kubebuilder:resource:path=marketplaces,shortName=mkt,categories=all
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every part is up as the spec asks"
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why it is ready, or is not"
// +kubebuilder:printcolumn:name="Connections",type=integer,JSONPath=`.status.messaging.connections.live`,description="Authenticated connections to messaging"
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.status.messaging.replicas`,description="Messaging pods"
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,description="The release that the services run"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",message="the name begins the names of Services: use at most 40 characters of a-z, 0-9 and '-', starting with a letter and ending with a letter or a digit"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.database.installation) || !has(oldSelf.status) || !has(oldSelf.status.installation) || self.spec.database.installation == oldSelf.status.installation || (has(oldSelf.spec.database.installation) && self.spec.database.installation == oldSelf.spec.database.installation)",message="database.installation must be what status.installation says: this Marketplace's data carries that since it was made; remove the field, or make another Marketplace",fieldPath=".spec.database.installation"
type Marketplace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +optional
	// +kubebuilder:default={}
	Spec MarketplaceSpec `json:"spec,omitzero"`
	// status is what the operator observed. Only the operator writes it.
	// +optional
	Status MarketplaceStatus `json:"status,omitzero"`
}

// MarketplaceList is a list of Marketplaces.
//
// +kubebuilder:object:root=true
type MarketplaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Marketplace `json:"items"`
}

// MarketplaceSpec is what is wanted. Every field has a default.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.version) && has(self.upgradePolicy) && self.upgradePolicy == 'Automatic')",message="version and upgradePolicy: Automatic exclude each other: remove version to follow the operator, or upgradePolicy to stay at the version",fieldPath=".version"
type MarketplaceSpec struct {
	// version is the release that the services run, such as v0.2.0. An operator
	// knows its own and the one before. Default: the operator's at the time the
	// Marketplace was made, which status.version pins.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^v[0-9]+\\\\.[0-9]+\\\\.[0-9]+(-[0-9A-Za-z.-]+)?$')",message="version must be a release such as v0.2.0"
	Version string `json:"version,omitempty"`
	// upgradePolicy says what a newer operator does where version is not set.
	// Pinned leaves the services as they are. Automatic brings them to its own
	// release.
	// +optional
	// +kubebuilder:default=Pinned
	UpgradePolicy UpgradePolicy `json:"upgradePolicy,omitempty"`
	// database is where the services keep their data.
	// +optional
	// +kubebuilder:default={}
	Database DatabaseSpec `json:"database,omitzero"`
	// bus carries wake-ups and live events between pods. It holds nothing.
	// +optional
	// +kubebuilder:default={}
	Bus BusSpec `json:"bus,omitzero"`
	// auth signs users in and issues tokens.
	// +optional
	// +kubebuilder:default={}
	Auth AuthSpec `json:"auth,omitzero"`
	// tasks posts, assigns and tracks chores.
	// +optional
	// +kubebuilder:default={}
	Tasks TasksSpec `json:"tasks,omitzero"`
	// messaging holds the clients' WebSocket connections.
	// +optional
	// +kubebuilder:default={}
	Messaging MessagingSpec `json:"messaging,omitzero"`
	// exposure makes the services reachable from outside the cluster. Default:
	// they are reachable inside alone.
	// +optional
	Exposure *ExposureSpec `json:"exposure,omitempty"`
	// monitoring says what is made for Prometheus and Grafana.
	// +optional
	// +kubebuilder:default={}
	Monitoring MonitoringSpec `json:"monitoring,omitzero"`
	// networkPolicy restricts who may connect to whom, from release v0.2.0 on.
	// +optional
	// +kubebuilder:default={}
	NetworkPolicy NetworkPolicySpec `json:"networkPolicy,omitzero"`
	// paused stops the operator from changing anything for this Marketplace;
	// what runs goes on running, at the size that it has.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// UpgradePolicy says what a newer operator does to a Marketplace.
//
// +kubebuilder:validation:Enum=Pinned;Automatic
type UpgradePolicy string

const (
	// UpgradePinned keeps the release that status.version names.
	UpgradePinned UpgradePolicy = "Pinned"
	// UpgradeAutomatic follows the operator's own release.
	UpgradeAutomatic UpgradePolicy = "Automatic"
)

// DatabaseSpec is where the services keep their data.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.embedded) && has(self.external))",message="database.embedded and database.external exclude each other: remove one",fieldPath=".external"
// +kubebuilder:validation:XValidation:rule="has(self.external) || has(oldSelf.external) || quantity(has(self.embedded) ? string(self.embedded.storage.size) : '5Gi').compareTo(quantity(has(oldSelf.embedded) ? string(oldSelf.embedded.storage.size) : '5Gi')) >= 0",message="embedded.storage.size can only grow (it is 5Gi where it is not set): a volume cannot shrink; to use a smaller one, make another Marketplace",fieldPath=".embedded"
// +kubebuilder:validation:XValidation:rule=`has(self.external) || has(oldSelf.external) || (has(self.embedded) && has(self.embedded.storage.className) ? self.embedded.storage.className : "") == (has(oldSelf.embedded) && has(oldSelf.embedded.storage.className) ? oldSelf.embedded.storage.className : "")`,message="embedded.storage.className cannot be changed: the data stays on the volume that was made first; to use another class, make another Marketplace",fieldPath=".embedded"
type DatabaseSpec struct {
	// embedded is one PostgreSQL that the operator runs, for evaluation. It is
	// what a Marketplace gets that names nothing else.
	// +optional
	Embedded *EmbeddedDatabase `json:"embedded,omitempty"`
	// external is a PostgreSQL that someone else runs.
	// +optional
	External *ExternalDatabase `json:"external,omitempty"`
	// installation is the id that data from before carries: status.installation
	// of the Marketplace that made it. Set it to bring up a Marketplace on a
	// restored backup, or on an external database that served another one. The
	// migration hands that data, and the roles that reach it, to this
	// Marketplace, whoever else uses them: all that share an administrator of an
	// external database can take each other's.
	// Default: this Marketplace's UID, or what a kept volume says. It cannot be
	// changed once the Marketplace has an installation.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-z]([-0-9a-z]{0,34}[0-9a-z])?$`
	Installation string `json:"installation,omitempty"`
}

// ExternalDatabase is a PostgreSQL, version 15 or newer, that someone else
// runs. Several Marketplaces may share one: each has schemas and roles of its
// own.
type ExternalDatabase struct {
	// urlSecretRef names the Secret, in the Marketplace's namespace, that holds
	// a postgres:// URL of an existing database, with a role that may create
	// roles (CREATEROLE) and schemas (CREATE on the database). Key: "url". The
	// services get roles of their own; this one only migrates.
	// +required
	URLSecretRef SecretKeyReference `json:"urlSecretRef"`
	// tls says how connections are secured. Default: VerifyFull, unless the URL
	// has a parameter sslmode.
	// +optional
	TLS *DatabaseTLS `json:"tls,omitempty"`
}

// DatabaseTLS says how connections to an external database are secured.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.mode) && self.mode == 'Disable' && has(self.caSecretRef))",message="tls.caSecretRef has no meaning with tls.mode Disable: remove one",fieldPath=".caSecretRef"
type DatabaseTLS struct {
	// mode is what is asked of the server. Default: the URL's parameter
	// sslmode, and without it VerifyFull.
	// +optional
	Mode DatabaseTLSMode `json:"mode,omitempty"`
	// caSecretRef names the Secret with the certificates, in PEM, that the
	// server's is verified with. Key: "ca.crt". Default: the image's own roots.
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`
}

// DatabaseTLSMode is what is asked of a database server; as libpq's sslmode.
//
// +kubebuilder:validation:Enum=Disable;Require;VerifyCA;VerifyFull
type DatabaseTLSMode string

const (
	// DatabaseTLSDisable uses no TLS.
	DatabaseTLSDisable DatabaseTLSMode = "Disable"
	// DatabaseTLSRequire encrypts, and trusts whoever answers.
	DatabaseTLSRequire DatabaseTLSMode = "Require"
	// DatabaseTLSVerifyCA verifies who signed the server's certificate.
	DatabaseTLSVerifyCA DatabaseTLSMode = "VerifyCA"
	// DatabaseTLSVerifyFull verifies its host name, too.
	DatabaseTLSVerifyFull DatabaseTLSMode = "VerifyFull"
)

// SecretKeyReference names one key of a Secret in the Marketplace's namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// key in the Secret. The default stands at the field that refers to it.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key,omitempty"`
}

// SecretReference names a Secret in the Marketplace's namespace.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// EmbeddedDatabase is one PostgreSQL server on one volume. It survives
// restarts and rescheduling, not the loss of its volume.
type EmbeddedDatabase struct {
	// storage is the server's volume.
	// +optional
	// +kubebuilder:default={}
	Storage StorageSpec `json:"storage,omitzero"`
	// image is an image with PostgreSQL's server binaries under
	// /usr/lib/postgresql/MAJOR/bin and a user of id 999, as the official
	// images have. Default: the operator's --postgres-image at the time the
	// Marketplace was made, which status.databaseImage pins. A volume can be
	// read only by the major version that made it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^\S*$`
	Image string `json:"image,omitempty"`
	// resources of the server's container.
	// +optional
	Resources *Resources `json:"resources,omitempty"`
}

// StorageSpec is a volume.
//
// +kubebuilder:validation:XValidation:rule="!has(self.size) || quantity(string(self.size)).compareTo(quantity('1Gi')) >= 0",message="storage.size must be 1Gi or more: PostgreSQL needs room for its write-ahead log",fieldPath=".size"
type StorageSpec struct {
	// size of the volume, 1Gi or more. It can grow later where the storage
	// class allows that, and never shrink.
	// +optional
	// +kubebuilder:default="5Gi"
	Size resource.Quantity `json:"size,omitzero"`
	// className of the storage class. Default: the cluster's own default. It
	// cannot be changed.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$`
	ClassName string `json:"className,omitempty"`
	// deletionPolicy says what becomes of the volume when the Marketplace is
	// deleted. Retain keeps it, and a new Marketplace of the same name finds
	// its data again. Delete deletes it with everything in it.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// DeletionPolicy says what becomes of data when its Marketplace is deleted.
//
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

const (
	// DeletionRetain keeps the volume.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDelete deletes the volume with its Marketplace.
	DeletionDelete DeletionPolicy = "Delete"
)

// BusSpec is what carries events between pods.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.embedded) && has(self.external))",message="bus.embedded and bus.external exclude each other: remove one",fieldPath=".external"
type BusSpec struct {
	// embedded is a NATS that the operator runs. It is what a Marketplace gets
	// that names nothing else.
	// +optional
	Embedded *EmbeddedBus `json:"embedded,omitempty"`
	// external is a NATS that someone else runs.
	// +optional
	External *ExternalBus `json:"external,omitempty"`
}

// ExternalBus is a NATS, server or cluster, that someone else runs. Core NATS
// suffices. Several Marketplaces may share one: each has subjects of its own,
// below mp.<installation>.
type ExternalBus struct {
	// urls of the servers, such as nats://nats.example.com:4222 or tls://…,
	// without credentials.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	URLs []BusURL `json:"urls"`
	// credentialsSecretRef names the Secret with what the services sign in
	// with: either the key "token"; or "username" and "password"; or "user.creds",
	// a NATS credentials file. Default: no credentials.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`
	// tls says how connections are secured. TLS is used where it is set, where a
	// URL begins with tls://, and where the server asks for it.
	// +optional
	TLS *BusTLS `json:"tls,omitempty"`
}

// BusURL is the address of a NATS server.
//
// +kubebuilder:validation:MaxLength=512
// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['nats', 'tls'] && url(self).getHostname().size() > 0 && !self.contains('@') && !self.contains(',')",message="a bus URL must be nats://host:port or tls://host:port, without credentials: those belong into the Secret of bus.external.credentialsSecretRef"
type BusURL string

// BusTLS says how connections to an external bus are secured. The server's
// certificate and host name are always verified.
type BusTLS struct {
	// caSecretRef names the Secret with the certificates, in PEM, that the
	// server's is verified with. Key: "ca.crt". Default: the image's own roots.
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`
	// clientCertificateSecretRef names the Secret of type kubernetes.io/tls
	// (keys "tls.crt" and "tls.key") that the services show to the server.
	// Default: none.
	// +optional
	ClientCertificateSecretRef *SecretReference `json:"clientCertificateSecretRef,omitempty"`
}

// EmbeddedBus is one NATS server, or a cluster of three, without a volume.
type EmbeddedBus struct {
	// replicas is 1, or 3 for a cluster that goes on while one is away.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:XValidation:rule="self in [1, 3]",message="bus.embedded.replicas must be 1 (one server) or 3 (a cluster)"
	Replicas int32 `json:"replicas,omitempty"`
	// resources of each server's container.
	// +optional
	Resources *Resources `json:"resources,omitempty"`
}

// AuthSpec is the auth service.
type AuthSpec struct {
	// replicas is how many pods run.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`
	// autoscaling lets an ordinary HorizontalPodAutoscaler choose the number of
	// pods by their CPU; replicas is ignored then.
	// +optional
	Autoscaling *CPUAutoscalingSpec `json:"autoscaling,omitempty"`
	// resources of each pod's container.
	// +optional
	Resources *Resources `json:"resources,omitempty"`
	// template shapes the pods.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`
	// keyRotation says how often the key that signs tokens is replaced.
	// +optional
	// +kubebuilder:default={}
	KeyRotation KeyRotationSpec `json:"keyRotation,omitzero"`
	// issuer stands as "iss" in every access token: a URL without query and
	// fragment. Default: the in-cluster URL of the auth Service. A change
	// invalidates the access tokens that are out.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && !self.contains('?') && !self.contains('#')",message="auth.issuer must be an http or https URL without query and fragment, such as https://auth.example.com"
	Issuer string `json:"issuer,omitempty"`
	// trustedProxies are the networks, such as 10.244.0.0/16, whose word in
	// X-Forwarded-For is taken for a client's address. Log-ins are limited by
	// address: without it, everyone behind a proxy counts as one. So are new
	// sockets, with it alone. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	TrustedProxies []Network `json:"trustedProxies,omitempty"`
}

// Network is a range of addresses in CIDR notation (RFC 4632, RFC 4291).
//
// +kubebuilder:validation:MaxLength=49
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="a trusted proxy must be a network in CIDR notation, such as 10.244.0.0/16; for one address append /32, or /128 for IPv6"
type Network string

// TasksSpec is the tasks service.
type TasksSpec struct {
	// replicas is how many pods run.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`
	// autoscaling lets an ordinary HorizontalPodAutoscaler choose the number of
	// pods by their CPU; replicas is ignored then.
	// +optional
	Autoscaling *CPUAutoscalingSpec `json:"autoscaling,omitempty"`
	// resources of each pod's container.
	// +optional
	Resources *Resources `json:"resources,omitempty"`
	// template shapes the pods.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`
}

// MessagingSpec is the messaging service.
type MessagingSpec struct {
	// replicas is how many pods run. It is ignored while autoscaling is set.
	// The scale subresource (kubectl scale, an HPA, KEDA) maps to it.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`
	// autoscaling lets the operator choose the number of pods by their
	// connections. Default: replicas counts.
	// +optional
	Autoscaling *AutoscalingSpec `json:"autoscaling,omitempty"`
	// drain says how a pod that must go gives up its connections.
	// +optional
	// +kubebuilder:default={}
	Drain DrainSpec `json:"drain,omitzero"`
	// allowedOrigins are the origins that browsers may connect from beside the
	// service's own host, such as https://app.example.com. Default: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	AllowedOrigins []Origin `json:"allowedOrigins,omitempty"`
	// support says who answers for the marketplace. Default: nobody, and users
	// can't open support conversations.
	// +optional
	Support *SupportSpec `json:"support,omitempty"`
	// socketIO says how Socket.IO clients are served, at /socket.io/. Default: with
	// connection state recovery.
	// +optional
	SocketIO *SocketIOSpec `json:"socketIO,omitempty"`
	// notifications tells a push or mail back end of messages for users who are
	// not connected. Default: nobody is told.
	// +optional
	Notifications *NotificationsSpec `json:"notifications,omitempty"`
	// resources of each pod's container.
	// +optional
	Resources *Resources `json:"resources,omitempty"`
	// template shapes the pods.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`
}

// SocketIOSpec is how Socket.IO clients are served.
type SocketIOSpec struct {
	// connectionStateRecovery sends clients that come back what they missed, on any
	// pod, as Socket.IO's feature of that name does. Events of the durable stream
	// have a second argument then, a string that clients bring back. Disabled leaves
	// it away, and clients reload what they missed.
	// +optional
	// +kubebuilder:default=Enabled
	// +kubebuilder:validation:Enum=Enabled;Disabled
	ConnectionStateRecovery Toggle `json:"connectionStateRecovery,omitempty"`
}

// Toggle turns something on or off.
type Toggle string

// The toggles.
const (
	Enabled  Toggle = "Enabled"
	Disabled Toggle = "Disabled"
)

// NotificationsSpec is who is told of messages that a user has neither read nor
// a connection for: by a signed HTTP request for each, at least once, without
// the message's text.
type NotificationsSpec struct {
	// url that is asked with POST, such as https://push.example.com/marketplane.
	// It must be https, unless the host is a Service of the cluster, such as
	// http://push.team.svc:8080.
	// +required
	URL WebhookURL `json:"url"`
	// secretRef names the Secret, in the Marketplace's namespace, with the keys
	// that requests are signed with, as the Standard Webhooks specification has
	// them: "whsec_" and 24 to 64 bytes in base64, one a line; more than one, up
	// to 4, while one follows another. Key: "key".
	// +required
	SecretRef SecretKeyReference `json:"secretRef"`
}

// WebhookURL is the address of a webhook.
//
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:XValidation:rule="isURL(self) && self.matches('^(https://[^/?#@:][^/?#@]*|http://[a-z0-9-]+[.][a-z0-9-]+[.]svc([.]cluster[.]local)?(:[0-9]{1,5})?)([/?][^#@]*)?$')",message="a webhook's URL must be https://host/path, without user and fragment; http is for Services of the cluster alone, such as http://push.team.svc:8080"
type WebhookURL string

// Origin is scheme://host[:port] (RFC 6454), without a path.
//
// +kubebuilder:validation:MaxLength=270
// +kubebuilder:validation:XValidation:rule="self.matches('^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?$')",message="an allowed origin must be scheme://host or scheme://host:port with http or https, such as https://app.example.com, without path, user or wildcard"
type Origin string

// SupportSpec says who answers for the marketplace.
type SupportSpec struct {
	// userIDs are the ids of the users who are its support agents, as auth gave
	// them. Each becomes a member of every support conversation that is opened
	// from then on. Who is taken from the list stays a member where it is one,
	// without an agent's rights. Ids that nobody has are taken for ids.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	UserIDs []UserID `json:"userIDs"`
}

// UserID is a user's id: a UUID in lower case.
//
// +kubebuilder:validation:MaxLength=36
// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') && self != '00000000-0000-0000-0000-000000000000'",message="a user id must be a UUID in lower case, such as 01890a5d-ac96-774b-bcce-b302099a8057: the user_id that logging in answers"
type UserID string

// AutoscalingSpec lets the operator choose the number of messaging pods:
// ceil(connections / targetConnections), within the limits.
//
// +kubebuilder:validation:XValidation:rule="self.maxReplicas >= self.minReplicas",message="autoscaling.maxReplicas must not be less than autoscaling.minReplicas (1 where it is not set): raise maxReplicas or lower minReplicas",fieldPath=".maxReplicas"
type AutoscalingSpec struct {
	// minReplicas is the least number of pods.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MinReplicas *int32 `json:"minReplicas,omitempty"`
	// maxReplicas is the largest number of pods.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxReplicas int32 `json:"maxReplicas"`
	// targetConnections is how many connections one pod should hold. Live,
	// draining, forwarded and not yet authenticated ones count.
	// +optional
	// +kubebuilder:default=5000
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	TargetConnections *int32 `json:"targetConnections,omitempty"`
	// scaleDownStabilizationSeconds is how long fewer pods must have sufficed
	// before any is removed. Scaling up does not wait.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	ScaleDownStabilizationSeconds *int32 `json:"scaleDownStabilizationSeconds,omitempty"`
}

// DrainSpec says how a messaging pod that must go gives up its connections.
// The two times and a short flush make up the pod's termination grace period.
type DrainSpec struct {
	// floorSeconds is how long it goes on accepting connections: what
	// endpoints need to propagate.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=300
	FloorSeconds *int32 `json:"floorSeconds,omitempty"`
	// windowSeconds is the time over which it then asks its connections, at an
	// even pace, to move.
	// +optional
	// +kubebuilder:default=120
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	WindowSeconds *int32 `json:"windowSeconds,omitempty"`
}

// Resources are what a container asks for and may use. What is not set keeps
// the operator's default; a request above a default limit raises that limit.
//
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) || quantity(string(self.requests.cpu)).compareTo(quantity(string(self.limits.cpu))) <= 0",message="resources.requests.cpu must not exceed resources.limits.cpu: lower the request or raise the limit"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || quantity(string(self.requests.memory)).compareTo(quantity(string(self.limits.memory))) <= 0",message="resources.requests.memory must not exceed resources.limits.memory: lower the request or raise the limit"
type Resources struct {
	// requests are reserved for the container.
	// +optional
	Requests ResourceAmounts `json:"requests,omitzero"`
	// limits are the most that the container may use.
	// +optional
	Limits ResourceAmounts `json:"limits,omitzero"`
}

// ResourceAmounts are amounts of CPU and memory.
type ResourceAmounts struct {
	// cpu in cores, such as 250m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="an amount of cpu must be more than 0, such as 250m; leave it out for the default"
	CPU *resource.Quantity `json:"cpu,omitempty"`
	// memory in bytes, such as 128Mi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isGreaterThan(quantity('0'))",message="an amount of memory must be more than 0, such as 128Mi; leave it out for the default"
	Memory *resource.Quantity `json:"memory,omitempty"`
}
