package contract

import "time"

// PathWebSocket is where messaging serves native clients, and PathSocketIO where
// Socket.IO clients look for a server.
const (
	PathWebSocket = "/v1/ws"
	PathSocketIO  = "/socket.io"
)

// WebSocketPing is how often messaging pings a connection on which nothing
// else comes, and how long, at most, a proxy on the way sees nothing on one
// that lives. Proxies must be told to wait for several of them.
const WebSocketPing = 25 * time.Second

// PublicPath says which service answers requests for some paths of the public
// address. Both sides hold to it: the operator routes no others, and the
// services serve no others.
type PublicPath struct {
	// Prefix of the paths, by whole segments: /v1/tasks stands for itself and
	// /v1/tasks/1, and not for /v1/tasksets.
	Prefix string
	// Component of the service that answers.
	Component string
	// WebSocket says that connections stay open for hours.
	WebSocket bool
}

// PublicPaths are all of them. No prefix covers another one.
func PublicPaths() []PublicPath {
	return []PublicPath{
		{Prefix: "/v1/auth", Component: ComponentAuth},
		// One by one, since others have a place below /.well-known, too: those who
		// issue certificates, for one.
		{Prefix: "/.well-known/jwks.json", Component: ComponentAuth},
		{Prefix: "/.well-known/oauth-authorization-server", Component: ComponentAuth},
		{Prefix: "/v1/tasks", Component: ComponentTasks},
		{Prefix: "/v1/conversations", Component: ComponentMessaging},
		{Prefix: "/v1/blocks", Component: ComponentMessaging},

		{Prefix: PathWebSocket, Component: ComponentMessaging, WebSocket: true},
		{Prefix: PathSocketIO, Component: ComponentMessaging, WebSocket: true},
	}
}
