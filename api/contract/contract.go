// Package contract is what the operator sets and the services read: names of
// environment variables, mount paths, ports, HTTP paths, labels, and the few
// documents that cross between them. Both sides import it, so neither can
// drift from the other. It uses the standard library only and must never know
// Kubernetes clients, databases or HTTP routers.
package contract

import (
	"strings"
	"time"
)

// The services of one Marketplace. A component name is used as subcommand of
// the marketplane binary, as label value, and as suffix of object names.
const (
	ComponentAuth      = "auth"
	ComponentTasks     = "tasks"
	ComponentMessaging = "messaging"
	ComponentBus       = "bus"
	ComponentDatabase  = "database"
	ComponentMigrate   = "migrate"
)

// Services are the components that own a database schema and a role, in the
// order in which they are migrated.
func Services() []string {
	return []string{ComponentAuth, ComponentTasks, ComponentMessaging}
}

// Ports of every service container.
const (
	// PublicPort serves clients.
	PublicPort = 8080
	// PublicPortName is its name in pods and Services.
	PublicPortName = "http"
	// InternalPort serves probes, metrics and, for messaging, its load. It is
	// never routed from outside.
	InternalPort = 8081
	// InternalPortName is its name in pods and Services.
	InternalPortName = "internal"
	// BusPort is where the embedded NATS server listens.
	BusPort = 4222
	// BusRoutePort is where the servers of an embedded NATS cluster meet.
	BusRoutePort = 6222
	// DatabasePort is where the embedded PostgreSQL listens.
	DatabasePort = 5432
)

// Paths on the internal port.
const (
	PathLive    = "/livez"
	PathReady   = "/readyz"
	PathMetrics = "/metrics"
	// PathLoad answers GET with a Load as JSON (messaging only).
	PathLoad = "/internal/v1/load"
)

// Environment variables that configure the services. Values are never secret:
// secrets are files, and only their paths stand here.
const (
	// EnvInstallation is the installation id: 1 to 36 characters of [0-9a-z-],
	// the UID of the Marketplace that the data was made for. Roles, schemas and
	// subjects carry it.
	EnvInstallation = "MARKETPLANE_INSTALLATION"
	// EnvInstance names this process in logs, metrics and the instance header:
	// the pod's name.
	EnvInstance = "MARKETPLANE_INSTANCE"
	// EnvAddress is, for messaging, the IP address at which its other processes
	// reach the port of EnvInternalListen: the pod's. Without it, a process
	// serves the Socket.IO sessions alone that began there.
	EnvAddress = "MARKETPLANE_ADDRESS"
	// EnvListen and EnvInternalListen are host:port addresses.
	EnvListen         = "MARKETPLANE_LISTEN"
	EnvInternalListen = "MARKETPLANE_INTERNAL_LISTEN"
	// EnvDatabaseURLFile is the path of a file with a postgres:// URL of the
	// service's own role (for migrate: of a role that may create roles).
	EnvDatabaseURLFile = "MARKETPLANE_DATABASE_URL_FILE"
	// EnvRolesDir is, for migrate, a folder with one sub-folder per service
	// that holds the file "password" of the service's role.
	EnvRolesDir = "MARKETPLANE_ROLES_DIR"
	// EnvBusURL is a comma-separated list of nats:// or tls:// URLs without
	// credentials.
	EnvBusURL = "MARKETPLANE_BUS_URL"
	// EnvBusTokenFile is the path of a file with the bus's token, read at the
	// start.
	EnvBusTokenFile = "MARKETPLANE_BUS_TOKEN_FILE"
	// EnvBusCredentialsDir is a folder with what the bus asks for: FileBusToken,
	// or FileBusUsername and FilePassword, or FileBusCreds. It is read again at
	// each connection.
	EnvBusCredentialsDir = "MARKETPLANE_BUS_CREDENTIALS_DIR"
	// EnvBusCAFile is the path of the certificates, in PEM, that the bus's
	// servers are verified with; read again at each connection. TLS is used
	// where it is set.
	EnvBusCAFile = "MARKETPLANE_BUS_CA_FILE"
	// EnvBusCertificateFile and EnvBusKeyFile are the paths of a certificate, in
	// PEM, that is shown to the bus's servers, and of its key; read again at each
	// connection. TLS is used where they are set.
	EnvBusCertificateFile = "MARKETPLANE_BUS_CERTIFICATE_FILE"
	EnvBusKeyFile         = "MARKETPLANE_BUS_KEY_FILE"
	// EnvBusRoutes is, for bus, a comma-separated list of nats-route:// URLs of
	// the cluster's members; empty for a single server.
	EnvBusRoutes = "MARKETPLANE_BUS_ROUTES"
	// EnvSigningDir is, for auth, the folder with FileSigningKeys and
	// FileRefreshKey.
	EnvSigningDir = "MARKETPLANE_SIGNING_DIR"
	// EnvJWKSFile is the path of the public keys (RFC 7517) that tokens are
	// verified with.
	EnvJWKSFile = "MARKETPLANE_JWKS_FILE"
	// EnvIssuer is the issuer ("iss") of access tokens.
	EnvIssuer = "MARKETPLANE_ISSUER"
	// EnvTrustedProxies is, for auth and messaging, a comma-separated list of
	// networks, such as 10.244.0.0/16, whose word in X-Forwarded-For is taken for
	// the address of a client. Without it, everyone behind a proxy counts as one
	// address to auth, and messaging does not limit connects by address.
	EnvTrustedProxies = "MARKETPLANE_TRUSTED_PROXIES"
	// EnvAllowedOrigins is a comma-separated list of origins, such as
	// https://app.example.com, that browsers may open WebSockets from beside
	// the service's own host.
	EnvAllowedOrigins = "MARKETPLANE_ALLOWED_ORIGINS"
	// EnvSupportUserIDs is, for messaging, a comma-separated list of the users
	// (at most 50 ids) who answer in support conversations.
	EnvSupportUserIDs = "MARKETPLANE_SUPPORT_USER_IDS"
	// EnvSocketIORecovery says whether messaging offers connection state recovery to
	// Socket.IO clients: true, which is the default, or false.
	EnvSocketIORecovery = "MARKETPLANE_SOCKETIO_RECOVERY"
	// EnvNotificationsURL is, for messaging, the endpoint that is told of messages
	// for users who are not connected; empty for none. EnvNotificationsKeyFile is
	// the path of a file with the keys that requests to it are signed with, which
	// is read again for each; it may come later.
	EnvNotificationsURL     = "MARKETPLANE_NOTIFICATIONS_URL"
	EnvNotificationsKeyFile = "MARKETPLANE_NOTIFICATIONS_KEY_FILE"
	// EnvDrainFloor and EnvDrainWindow are Go durations; see Drain.
	EnvDrainFloor  = "MARKETPLANE_DRAIN_FLOOR"
	EnvDrainWindow = "MARKETPLANE_DRAIN_WINDOW"
	// EnvLogLevel is one of debug, info, warn, error.
	EnvLogLevel = "MARKETPLANE_LOG_LEVEL"
)

// Where the operator mounts what the variables above point to. Secrets are
// mounted as whole folders, never with subPath, so that updates arrive.
const (
	MountDatabase = "/etc/marketplane/database"
	MountRoles    = "/etc/marketplane/roles"
	MountBus      = "/etc/marketplane/bus"
	MountSigning  = "/etc/marketplane/signing"
	MountJWKS     = "/etc/marketplane/jwks"
	// MountNotifications holds FileNotificationsKey.
	MountNotifications = "/etc/marketplane/notifications"
)

// Files in those folders; also the keys of the Secrets and the ConfigMap that
// they are mounted from.
const (
	FileDatabaseURL = "url"
	FilePassword    = "password"
	FileBusToken    = "token"
	FileBusUsername = "username"
	// FileBusCreds is a NATS credentials file: a JWT and its seed.
	FileBusCreds = "user.creds"
	// FileCA holds certificates in PEM, that a server is verified with.
	FileCA = "ca.crt"
	// FileCertificate and FileKey are those of Secrets of type kubernetes.io/tls.
	FileCertificate = "tls.crt"
	FileKey         = "tls.key"
	FileSigningKeys = "signing-keys.json"
	FileRefreshKey  = "refresh-key"
	FileJWKS        = "jwks.json"
	// FileNotificationsKey holds signing keys of the Standard Webhooks
	// specification, whsec_ and base64, one a line.
	FileNotificationsKey = "key"
)

// Labels of everything that the operator makes, beside the recommended
// app.kubernetes.io ones.
const (
	// LabelMarketplace holds the Marketplace's name.
	LabelMarketplace = "marketplane.dev/marketplace"
	// LabelComponent holds a component name.
	LabelComponent = "marketplane.dev/component"
	// LabelServing is "true" on messaging pods that take new connections. The
	// messaging Service selects it; no Deployment's selector does.
	LabelServing = "marketplane.dev/serving"
	// LabelInstallation holds the installation id of a database volume, by
	// which a new Marketplace finds the data of a kept one.
	LabelInstallation = "marketplane.dev/installation"
)

// HeaderInstance names, in every answer of a public port, the process that
// gave it (EnvInstance).
const HeaderInstance = "Marketplane-Instance"

// Load is what a messaging process tells about its connections.
// Source: the messaging process itself, at the moment of the request.
type Load struct {
	// Instance is the process's EnvInstance.
	Instance string `json:"instance"`
	// Live counts authenticated connections that have not been told to move.
	Live int `json:"live"`
	// Draining counts connections that have been told to move, and are here still.
	Draining int `json:"draining"`
	// Pending counts accepted connections that are not authenticated yet.
	Pending int `json:"pending"`
	// Forwarded counts what the process forwards to others, who count the session
	// among their connections: WebSockets, and requests under way.
	Forwarded int `json:"forwarded"`
	// Stopping says that the process was told to stop and drains.
	Stopping bool `json:"stopping"`
}

// Drain says how a messaging process gives up its connections.
type Drain struct {
	// Floor is how long it goes on accepting after it was told to stop: what
	// endpoints need to propagate.
	Floor time.Duration
	// Window is the time over which it then asks its connections to move.
	Window time.Duration
}

// DrainFlush is what a process may take after floor and window to acknowledge
// what is in flight and close.
const DrainFlush = 10 * time.Second

// GracePeriod is the terminationGracePeriodSeconds that fits the drain.
func (d Drain) GracePeriod() time.Duration {
	return d.Floor + d.Window + DrainFlush
}

// DatabaseRole names the PostgreSQL role of a service, and DatabaseSchema the
// schema that it owns. Both stay under PostgreSQL's 63 bytes for any UID.
func DatabaseRole(installation, service string) string {
	return databasePrefix(installation) + service
}

// DatabaseSchema is the schema of a service; see DatabaseRole.
func DatabaseSchema(installation, service string) string {
	return databasePrefix(installation) + service
}

// EventsSchema is the schema that the services share.
func EventsSchema(installation string) string {
	return databasePrefix(installation) + "events"
}

// SubjectPrefix is what every bus subject of an installation starts with.
func SubjectPrefix(installation string) string {
	return "mp." + strings.ReplaceAll(installation, "-", "")
}

func databasePrefix(installation string) string {
	return "mp_" + strings.ReplaceAll(installation, "-", "") + "_"
}
