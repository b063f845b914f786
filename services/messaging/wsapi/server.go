// Package wsapi is the native protocol: newline-delimited JSON over WebSocket,
// subprotocol marketplane.v1. It decodes, calls the domain, encodes; streams
// come from the hub.
package wsapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
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
	// ParseOrigin.
	AllowedOrigins []string
	// ResumeTTL is how long missed events are kept, at least: told to clients.
	ResumeTTL time.Duration
	// AuthTimeout is how long a connection may stay unauthenticated: 10 s.
	AuthTimeout time.Duration
	// PingInterval is the time between pings, and PingTimeout how long the
	// answer may take: contract.WebSocketPing and 20 s.
	PingInterval, PingTimeout time.Duration
	// MaxQueued is how many bytes may wait for a client: 256 KiB.
	MaxQueued int
	// Rate is how many commands a connection may send: 20 a second, 60 at once.
	Rate messaging.Rate
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
	if o.MaxQueued == 0 {
		o.MaxQueued = 256 << 10
	}
	if o.Rate == (messaging.Rate{}) {
		o.Rate = messaging.Rate{PerSecond: 20, Burst: 60}
	}
	return o
}

const (
	// maxPayload bounds a frame of the client's.
	maxPayload = 64 << 10
	// commandTimeout bounds one command. It is above what a commit may take.
	commandTimeout = 10 * time.Second
	// writeTimeout bounds the writing of one frame, and flushTimeout what is
	// left to write when a connection ends.
	writeTimeout = 10 * time.Second
	flushTimeout = 5 * time.Second
)

// Sessions verifies tokens, and knows which sessions have ended.
type Sessions interface {
	web.Verifier
	IsRevoked(session uuid.UUID) bool
}

// Server serves the protocol.
type Server struct {
	service  *messaging.Service
	hub      *hub.Hub
	sessions Sessions
	options  Options
	log      *slog.Logger
	metrics  metrics
	now      func() time.Time
	wg       sync.WaitGroup
}

// NewServer makes a server.
func NewServer(service *messaging.Service, h *hub.Hub, sessions Sessions, options Options, log *slog.Logger, registry prometheus.Registerer) *Server {
	return &Server{
		service: service, hub: h, sessions: sessions, options: options.withDefaults(), log: log,
		metrics: newMetrics(registry), now: time.Now,
	}
}

// Wait returns when no connection is left; call it after the hub's Stop.
func (s *Server) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.wg.Wait()
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
		web.WriteProblem(w, r, s.log, err)
		return
	}
	c := newConn(s)
	link, err := s.hub.Admit(c)
	if err != nil {
		web.WriteProblem(w, r, s.log, err)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // check has verified the origin, by exact match
		OnPongReceived:     func(context.Context, []byte) { c.alive() },
	})
	if err != nil {
		link.Leave()
		close(c.ready)                                                // lets an end that came meanwhile pass
		s.log.DebugContext(r.Context(), "no WebSocket", "error", err) // Accept has answered
		return
	}
	s.metrics.connects.Inc()
	s.wg.Go(func() { c.run(ws, link) })
}

func (s *Server) check(r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return errNotUpgrade
	}
	if !s.originAllowed(r) {
		return errOrigin
	}
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(header, ",") {
			if strings.TrimSpace(offered) == Subprotocol {
				return nil
			}
		}
	}
	return errSubprotocol
}

// originAllowed keeps other sites' pages from speaking in a user's name. No
// Origin means that it is not a browser.
func (s *Server) originAllowed(r *http.Request) bool {
	header := r.Header.Get("Origin")
	if header == "" {
		return true
	}
	origin, err := ParseOrigin(header)
	if err != nil {
		return false
	}
	_, host, _ := strings.Cut(origin, "://")
	if strings.EqualFold(host, r.Host) {
		return true
	}
	for _, allowed := range s.options.AllowedOrigins {
		if origin == allowed {
			return true
		}
	}
	return false
}

var errNotOrigin = errors.New("is not an origin such as https://app.example.com")

// ParseOrigin returns an origin (RFC 6454) in the form in which origins are
// compared.
func ParseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", errNotOrigin
	}
	return strings.ToLower(u.Scheme + "://" + u.Host), nil
}
