package socketio

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// Options of a Server. Zero values mean the defaults.
type Options struct {
	// ConnectTimeout is how long a connection may be without a namespace, from its
	// beginning and again after it has left the last one; and how long a namespace may
	// take to find out whether to let a client in: 45 s.
	ConnectTimeout time.Duration
	// AttachmentTimeout is how long the attachments of a packet may take to come, all
	// together: 60 s.
	AttachmentTimeout time.Duration

	// MaxNamespaces is how many namespaces a connection may be connected to: 16.
	MaxNamespaces int
	// MaxConnects is how many CONNECTs a connection may send in a minute, each of which
	// middleware may be asked about: 64.
	MaxConnects int
	// MaxRefusals is how many of its CONNECTs may be refused before a connection is
	// closed, since one was let in: 16.
	MaxRefusals int
	// MaxConnecting is how many CONNECTs may be with middleware at once, of all
	// connections; more wait: 64.
	MaxConnecting int
	// MaxConnect is how many bytes a client may send at once before it is let into a
	// namespace: 65,536, if the transport's limit is not less.
	MaxConnect int
	// MaxAttachments is how many attachments a packet may have, either way: 10.
	MaxAttachments int
	// MaxPacket is how many bytes a packet with attachments may have, the text and all
	// of them: 1,000,000. How large each may be is the transport's. A connection holds
	// one packet at most: while its attachments come, or while OnConnect runs.
	MaxPacket int
	// MaxHeld is how many bytes of packets may wait for the rest of their attachments,
	// those of all connections: 64 times MaxPacket. A client who finds nothing left is
	// closed (1013), to come back.
	MaxHeld int
	// MaxRooms is how many rooms a socket may be in: 1000.
	MaxRooms int
	// MaxAcks is how many acknowledgements of a socket's may be waited for: 256.
	MaxAcks int

	// Facts is asked about each connection once. What it returns is kept for the
	// connection's life, in the place of the request, so it should be small.
	// Handshakes and sockets have it.
	Facts func(c Conn, r *http.Request) any
	// Log is told why middleware failed, of which the client is told nothing; and at
	// level debug what was wrong with a packet or broke a connection. Nil tells nobody.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.ConnectTimeout, 45 * time.Second},
		{&o.AttachmentTimeout, time.Minute},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	for _, d := range []struct {
		value    *int
		standard int
	}{
		{&o.MaxNamespaces, 16},
		{&o.MaxConnects, 64},
		{&o.MaxRefusals, 16},
		{&o.MaxConnecting, 64},
		{&o.MaxConnect, 64 << 10},
		{&o.MaxAttachments, 10},
		{&o.MaxPacket, 1_000_000},
		{&o.MaxRooms, 1000},
		{&o.MaxAcks, 256},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 64 * o.MaxPacket
	}
	if o.Facts == nil {
		o.Facts = func(Conn, *http.Request) any { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Server holds namespaces. Make it with NewServer, set its namespaces up, and give
// its Open to engineio.NewServer.
type Server struct {
	options  Options
	admitter *admitter
	counters counters
	held     *budget.Budget // of Options.MaxHeld

	serving    atomic.Bool // nothing is set up any more
	namespaces map[string]*Namespace
}

// NewServer makes a server, with no namespace yet.
func NewServer(options Options) *Server {
	o := options.withDefaults()
	return &Server{
		options:    o,
		admitter:   &admitter{limit: o.MaxConnecting},
		namespaces: make(map[string]*Namespace),
		counters:   counters{disconnects: make(map[Reason]int64)},
		held:       budget.New(o.MaxHeld),
	}
}

// Open is for engineio.NewServer: it begins the protocol on a session.
func (s *Server) Open(c *engineio.Conn, r *http.Request) engineio.Handler { return s.open(c, r) }

func (s *Server) open(e engine, r *http.Request) *conn {
	s.serving.Store(true)
	c := &conn{server: s, engine: e, facts: s.options.Facts(e, r)}
	s.counters.connections.Add(1)
	e.LimitPayload(s.options.MaxConnect)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limitIdleness()
	return c
}

// mustSetUp is called by all that is not locked while the server serves.
func (s *Server) mustSetUp() {
	if s.serving.Load() {
		panic("socketio: the server serves already; namespaces are set up before")
	}
}

// Of is the namespace with a name, such as "/" or "/chat"; it is made if there is
// none yet. CONNECTs to others are refused ("Invalid namespace"). It panics if
// the name is no namespace's, or for a new one once the server serves.
func (s *Server) Of(name string) *Namespace {
	if n := s.namespaces[name]; n != nil {
		return n
	}
	s.mustSetUp()
	if err := checkNamespace([]byte(name)); err != nil {
		panic("socketio: a namespace's name begins with a slash, has no comma and no control characters, and is no longer than 255 bytes: " + name)
	}
	n := newNamespace(s, name)
	s.namespaces[name] = n
	return n
}

// Wait returns when no middleware, nor OnConnect, runs any more. The sessions must
// have ended before: see engineio's Shutdown.
func (s *Server) Wait(ctx context.Context) error { return s.admitter.wait(ctx) }

// Stats counts, since the server was made unless it says otherwise.
type Stats struct {
	// Connections and Sockets are those at this moment.
	Connections, Sockets int64
	// Connected and Refused are the CONNECTs that were answered so.
	Connected, Refused int64
	// Undecided are the CONNECTs for which a connection was closed, as nobody could
	// find out whether to let the client in.
	Undecided int64
	// Recovered are those of Connected that were; see [Recovery].
	Recovered int64
	// EventsIn are the events that came, and EventsOut those that went, to each
	// receiver.
	EventsIn, EventsOut int64
	// Malformed are the packets for which a connection was closed.
	Malformed int64
	// Disconnects are the sockets that ended.
	Disconnects map[Reason]int64
}

type counters struct {
	connections, sockets          atomic.Int64
	connected, refused, recovered atomic.Int64
	undecided                     atomic.Int64
	eventsIn, eventsOut           atomic.Int64
	malformed                     atomic.Int64

	mu          sync.Mutex
	disconnects map[Reason]int64
}

func (c *counters) disconnected(reason Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disconnects[reason]++
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Connections: c.connections.Load(),
		Sockets:     c.sockets.Load(),
		Connected:   c.connected.Load(),
		Refused:     c.refused.Load(),
		Undecided:   c.undecided.Load(),
		Recovered:   c.recovered.Load(),
		EventsIn:    c.eventsIn.Load(),
		EventsOut:   c.eventsOut.Load(),
		Malformed:   c.malformed.Load(),
		Disconnects: maps.Clone(c.disconnects),
	}
}
