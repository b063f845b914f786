// Package sioapi is Socket.IO's door: the marketplace's events on the namespace "/"
// of stock clients, over polling or WebSocket. It decodes, calls the domain, and
// encodes; streams come from the hub, the protocols from engineio and socketio.
package sioapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/seal"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// Purpose is what the sealer of what clients bring to be recovered is made for.
const Purpose = "socket.io recovery"

// Path is where stock clients look for a server.
const Path = contract.PathSocketIO + "/"

// Options configure a Server. Zero values mean the defaults.
type Options struct {
	// Engine is engineio's: intervals, transports, ids. What is set there of
	// MaxPayload, MaxQueued, Origin and Refuse is overridden.
	Engine engineio.Options
	// AllowedOrigins may connect from browsers, beside the own host; see
	// door.ParseOrigin.
	AllowedOrigins []string
	// ConnectTimeout is how long a connection may be without a namespace, and how
	// long it may take to let it in: 10 s.
	ConnectTimeout time.Duration
	// Addresses bounds how many connections a client's address opens.
	Addresses *door.Addresses
	// Places seals what clients bring to be recovered. Nil turns connection state
	// recovery off.
	Places *seal.Sealer
	// Door is what clients' commands are bounded by.
	Door door.Options
}

const (
	// maxPayload bounds what a client sends at once, as the reference implementation
	// does: what is no message for its size is answered, and not the connection's end.
	maxPayload = 1_000_000
	// maxQueued is how many bytes may wait for a client, as on the native door.
	maxQueued = 256 << 10
)

// Server serves the protocol. Start it before it serves.
type Server struct {
	door     *door.Door
	hub      *hub.Hub
	sessions door.Sessions
	options  Options
	metrics  metrics
	now      func() time.Time
	engine   *engineio.Server
	sockets  *socketio.Server
	running  sync.WaitGroup // what is done aside of connections
}

// NewServer makes a server.
func NewServer(service *messaging.Service, h *hub.Hub, sessions door.Sessions, options Options, log *slog.Logger, registry prometheus.Registerer) *Server {
	options.Door.Protocol = "socket.io"
	if options.ConnectTimeout == 0 {
		options.ConnectTimeout = 10 * time.Second
	}
	s := &Server{
		door: door.New(service, options.Door, log), hub: h, sessions: sessions, options: options, now: time.Now,
	}
	s.sockets = socketio.NewServer(socketio.Options{
		ConnectTimeout: options.ConnectTimeout, MaxNamespaces: 1, Log: log,
		// No command has attachments: they only wait to be refused.
		AttachmentTimeout: 10 * time.Second, MaxHeld: 16 << 20,
		// With the connection, and not with a socket, of which it may have one after the
		// other.
		Facts: func(socketio.Conn, *http.Request) any { return &door.Allowance{} },
	})
	engine := options.Engine
	engine.MaxPayload, engine.MaxQueued = maxPayload, maxQueued
	engine.Origin = func(r *http.Request, _ string) bool { return door.OriginAllowed(r, options.AllowedOrigins) }
	engine.Refuse = s.refuse
	s.engine = engineio.NewServer(engine, s.sockets.Open)
	s.metrics = newMetrics(registry, s.engine, s.sockets)
	s.setUp(s.sockets.Of("/"))
	return s
}

func (s *Server) setUp(n *socketio.Namespace) {
	n.Use(s.admit)
	if s.options.Places != nil {
		n.Recover(s.recover)
	} else {
		n.Use(s.attach)
	}
	n.OnConnect(func(socket *socketio.Socket) { of(socket).connected(socket) })
	n.OnDisconnect(func(socket *socketio.Socket, reason socketio.Reason) { of(socket).disconnected(reason) })
	// Events are named as the commands are. What is none is refused like one.
	n.OnAny(func(socket *socketio.Socket, e socketio.Event) (pause <-chan struct{}) { return of(socket).execute(e) })
}

// of is the client of a socket.
func of(socket *socketio.Socket) *client {
	return socket.Data.(*client) //nolint:errcheck,forcetypeassert // admit has put it there
}

// Start begins to watch for what clients send, and for time.
func (s *Server) Start(context.Context) error { return s.engine.Start() }

// Stop returns when no connection is left; call it after the hub's Stop.
func (s *Server) Stop(ctx context.Context) error {
	err := errors.Join(s.engine.Shutdown(ctx), s.sockets.Wait(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.running.Wait()
	}()
	select {
	case <-done: // soon: each has its time-out
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// ServeHTTP serves every request below Path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// refuse keeps connections out before they begin.
func (s *Server) refuse(r *http.Request) *engineio.Refusal {
	err := s.options.Addresses.Take(r)
	if err == nil {
		return nil
	}
	f := fault.From(err)
	return &engineio.Refusal{Status: http.StatusTooManyRequests, Message: f.Message, RetryAfter: f.RetryAfter}
}
