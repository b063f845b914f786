package engineio

import (
	"context"
	"net/http"
)

// Server holds sessions. Start it before it serves.
type Server struct{}

// NewServer makes a server. open is told of each new session, before anything is
// read of it; what it sends comes right after the handshake. It may block, and must
// not return nil.
func NewServer(options Options, open func(c *Conn, r *http.Request) Handler) *Server {
	panic("to do")
}

// Start begins to watch for what clients send, and for time.
func (s *Server) Start() error { panic("to do") }

// ServeHTTP serves every request of the protocol, whatever its path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("to do") }

// Shutdown closes all sessions in order, takes no new ones, and returns when all of
// them have ended, and their handlers know. When ctx is done, the rest is aborted,
// and its error returned. A server is not started again.
func (s *Server) Shutdown(ctx context.Context) error { panic("to do") }

// Stats counts, since the server was made unless it says otherwise.
type Stats struct {
	// Sessions are those at this moment.
	Sessions map[Transport]int64
	// Upgrading are the polling sessions that have a WebSocket to upgrade to at this
	// moment.
	Upgrading int64
	// Queued is how many bytes wait for clients at this moment.
	Queued int64
	// Opened are the sessions that began, by their first transport.
	Opened map[Transport]int64
	// Upgraded are those that went from polling to WebSocket.
	Upgraded int64
	// Closed are the sessions that ended.
	Closed map[Reason]int64
	// Refused are the requests that were answered with an error.
	Refused map[Code]int64
}

// Stats returns the counters.
func (s *Server) Stats() Stats { panic("to do") }

// Code is an error's, in the answer to a request: {"code":…,"message":…}.
type Code int

// The error codes. CodeForbidden comes with status 403, unless a Refusal has
// another; the rest with 400.
const (
	CodeUnknownTransport Code = iota
	CodeUnknownSession
	CodeBadHandshakeMethod
	CodeBadRequest
	CodeForbidden
	CodeUnsupportedVersion
)
