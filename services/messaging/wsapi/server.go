// Package wsapi is the native protocol: newline-delimited JSON over WebSocket,
// subprotocol marketplane.v1. It decodes, calls the domain, encodes; streams
// come from the hub.
package wsapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/internal/wheel"
	"github.com/marketplane/marketplane/services/internal/wsconn"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
)

// Path is where the protocol is served, and Subprotocol its name.
const (
	Path        = contract.PathWebSocket
	Subprotocol = "marketplane.v1"
)

// Options configure a Server. Zero values mean the defaults.
type Options struct {
	// AllowedOrigins may open sockets from browsers, beside the own host; see
	// door.ParseOrigin.
	AllowedOrigins []string
	// ResumeTTL is how long missed events are kept, at least: told to clients.
	ResumeTTL time.Duration
	// AuthTimeout is how long a connection may stay unauthenticated: 10 s.
	AuthTimeout time.Duration
	// PingInterval is the time between pings, and PingTimeout how long the
	// answer may take: contract.WebSocketPing and 20 s.
	PingInterval, PingTimeout time.Duration
	// MaxQueued is how many bytes may wait for a client: see wsconn.Options.
	MaxQueued int
	// Addresses bounds how many connections a client's address opens.
	Addresses *door.Addresses
	// Door is what clients' commands are bounded by.
	Door door.Options
}

func (o Options) withDefaults() Options {
	if o.AuthTimeout == 0 {
		o.AuthTimeout = 10 * time.Second
	}
	if o.PingInterval == 0 {
		o.PingInterval = contract.WebSocketPing
	}
	if o.PingTimeout == 0 {
		o.PingTimeout = 20 * time.Second
	}
	o.Door.Protocol = "native"
	return o
}

const (
	// maxPayload bounds a frame of the client's.
	maxPayload = 64 << 10
	// closeTimeout is how long a client may take to answer a close frame, and
	// endTimeout bounds the end of a connection as a whole: the commands that were
	// taken, what waits to be written, and the close.
	closeTimeout = 5 * time.Second
	endTimeout   = door.CommandTimeout + 2*closeTimeout
)

// Server serves the protocol. Start it before it serves.
type Server struct {
	door     *door.Door
	hub      *hub.Hub
	sessions door.Sessions
	options  Options
	log      *slog.Logger
	metrics  metrics
	now      func() time.Time
	wheel    *wheel.Wheel
	sockets  *wsconn.Group
	hello    []byte // the line that every client is greeted with
}

// NewServer makes a server.
func NewServer(service *messaging.Service, h *hub.Hub, sessions door.Sessions, options Options, log *slog.Logger, registry prometheus.Registerer) *Server {
	options = options.withDefaults()
	sockets := wsconn.NewGroup(wsconn.Options{
		MaxMessage: maxPayload, MaxQueued: options.MaxQueued, CloseTimeout: closeTimeout,
	})
	greeting, err := encode(hello{
		Op: "hello", PingMS: options.PingInterval.Milliseconds(),
		MaxPayload: maxPayload, ResumeTTL: int64(options.ResumeTTL.Seconds()),
	})
	if err != nil {
		panic(err) // numbers and strings have a JSON form
	}
	return &Server{
		hello: greeting,
		door:  door.New(service, options.Door, log), hub: h, sessions: sessions, options: options, log: log,
		metrics: newMetrics(registry, sockets), now: time.Now, wheel: wheel.New(wheel.DefaultTick, time.Now), sockets: sockets,
	}
}

// Start begins to watch over deadlines.
func (s *Server) Start(ctx context.Context) error {
	return errors.Join(s.sockets.Start(), s.wheel.Start(ctx))
}

// Stop returns when no connection is left; call it after the hub's Stop.
func (s *Server) Stop(ctx context.Context) error {
	return errors.Join(s.sockets.Wait(ctx), s.wheel.Stop(ctx))
}

var (
	errNotUpgrade = fault.New(fault.Malformed, "upgrade_required",
		"This path speaks WebSocket (RFC 6455) only.")
	errSubprotocol = fault.New(fault.Malformed, "subprotocol_required",
		"Offer the WebSocket subprotocol "+Subprotocol+".")
	errOrigin = fault.New(fault.Forbidden, "origin_not_allowed",
		"Pages of this origin may not open sockets here; the operator of the marketplace allows origins.")
)

// ServeHTTP upgrades a request, and returns: the connection goes on by itself,
// so that request logs and durations tell of the handshake alone.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.check(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	c := newConn(s)
	link, err := s.hub.Admit(c)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	ws, err := s.sockets.Accept(w, r, Subprotocol, c)
	if err != nil {
		link.Leave()
		s.log.DebugContext(r.Context(), "no WebSocket", "error", err) // Accept has answered
		return
	}
	s.metrics.connects.Inc()
	c.start(ws, link)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.metrics.refused.WithLabelValues(fault.From(err).Code).Inc()
	web.WriteProblem(w, r, s.log, err)
}

func (s *Server) check(r *http.Request) error {
	switch {
	case !wsconn.IsUpgrade(r):
		return errNotUpgrade
	case !door.OriginAllowed(r, s.options.AllowedOrigins):
		return errOrigin
	case !wsconn.Offers(r, Subprotocol):
		return errSubprotocol
	}
	return s.options.Addresses.Take(r)
}
