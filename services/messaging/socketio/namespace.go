package socketio

import (
	"context"
	"fmt"
	"sync"
)

// Handler handles an event. Events of a connection are handled one at a time, in
// order, so a handler must not block: it hands on what takes long, and answers by
// the event's Ack when it is done. If it returns a channel, nothing more is read
// from the connection until that is closed.
type Handler func(s *Socket, e Event) (pause <-chan struct{})

// Event is what a client sent.
type Event struct {
	Name string
	// Args are valid until the handler returns.
	Args Args
	// Ack answers the event; nil if it asked for none.
	Ack *Ack
}

// Namespace is one of a server's ("Introduction"): sockets, rooms and handlers that
// share connections with others. It is set up before the server serves: Use,
// Recover and those that begin with On panic later. All of it is optional.
type Namespace struct {
	server      *Server
	name        string
	eventHeader []byte // of its packets, with the payload's bracket

	middleware   []func(ctx context.Context, h *Handshake) error
	recovers     func(ctx context.Context, h *Handshake) (Recovery, error)
	onConnect    func(s *Socket)
	onDisconnect func(s *Socket, reason Reason)
	events       map[string]namedHandler
	onAny        Handler

	mu      sync.RWMutex
	sockets map[string]*Socket // by their ids
	rooms   map[string]*room
	order   sync.Mutex // of events for all sockets; before mu
	orders  *orders    // of events for rooms
}

// namedHandler has the name beside the handler, so that no event needs its own.
type namedHandler struct {
	name   string
	handle Handler
}

func newNamespace(s *Server, name string) *Namespace {
	return &Namespace{
		server:       s,
		name:         name,
		eventHeader:  append(packetHeader(typeEvent, 0, name, noID), '['),
		onConnect:    func(*Socket) {},
		onDisconnect: func(*Socket, Reason) {},
		events:       make(map[string]namedHandler),
		sockets:      make(map[string]*Socket),
		rooms:        make(map[string]*room),
		orders:       newOrders(),
	}
}

// Name is the namespace's name.
func (n *Namespace) Name() string { return n.name }

// Use adds middleware, which lets clients in, or refuses them with a *[Refusal]. Any
// other error says that it could not find out, and closes the connection: the client
// comes back. Middleware is asked in its order, aside of what the connection does
// otherwise, and may take its time, up to Options.ConnectTimeout; ctx ends with
// that, or with the connection, or when all have been asked. What middleware takes
// for the socket is given back in OnDisconnect, or by [Handshake.OnAbandon].
func (n *Namespace) Use(middleware func(ctx context.Context, h *Handshake) error) {
	n.server.mustSetUp()
	n.middleware = append(n.middleware, middleware)
}

// Recover turns connection state recovery on. The hook is asked after all
// middleware, and its errors are like theirs. The package keeps nothing of earlier
// sockets: what a PID and an Offset stand for, and whether they are the client's
// own, is the hook's to know; and after OnConnect the program sends the events that
// were missed. A stock client goes on from the last [Offset] that it saw, even if
// that was one of another PID's time, and brings no Offset before it saw one.
func (n *Namespace) Recover(hook func(ctx context.Context, h *Handshake) (Recovery, error)) {
	n.server.mustSetUp()
	n.recovers = hook
}

// OnConnect sets what is called for each socket that was let in, after CONNECT is
// answered. Nothing that the client sends in this namespace is handled before it
// returns, but acknowledgements, so it must not take long. Where there is middleware
// or a Recover hook it may wait for its own client, as with Conn's Room.
func (n *Namespace) OnConnect(f func(s *Socket)) {
	n.server.mustSetUp()
	n.onConnect = f
}

// OnDisconnect sets what is called once for each socket that OnConnect was called
// for, after that and after its last event. Nothing can be sent to it any more; it
// still is in its rooms. It must not block. If a socket is recovered before the
// end of its earlier connection was noticed, this comes later than the new
// socket's OnConnect.
func (n *Namespace) OnDisconnect(f func(s *Socket, reason Reason)) {
	n.server.mustSetUp()
	n.onDisconnect = f
}

// On sets the handler of an event. It panics if the event has one already, or has
// a reserved name (see [ErrReserved]), which no client can send.
func (n *Namespace) On(event string, handle Handler) {
	n.server.mustSetUp()
	if err := checkName(event); err != nil {
		panic("socketio: " + err.Error())
	}
	if _, ok := n.events[event]; ok {
		panic(fmt.Sprintf("socketio: the event %q has a handler already", event))
	}
	n.events[event] = namedHandler{name: event, handle: handle}
}

// OnAny sets the handler of the events that have none of their own. Without it
// they are ignored, and not acknowledged.
func (n *Namespace) OnAny(handle Handler) {
	n.server.mustSetUp()
	n.onAny = handle
}

// asks says whether somebody decides on those who want to connect.
func (n *Namespace) asks() bool { return len(n.middleware) > 0 || n.recovers != nil }

func (n *Namespace) decide(ctx context.Context, h *Handshake) (Recovery, error) {
	for _, middleware := range n.middleware {
		if err := middleware(ctx, h); err != nil {
			return Recovery{}, err
		}
	}
	if n.recovers == nil {
		return Recovery{}, nil
	}
	return n.recovers(ctx, h)
}

// add takes a socket in, and returns the one that had its id before.
func (n *Namespace) add(s *Socket) (before *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before = n.sockets[s.id]
	n.sockets[s.id] = s
	s.present = true
	n.server.counters.sockets.Add(1)
	return before
}

func (n *Namespace) remove(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.present = false
	for r := range s.rooms {
		n.leave(s, r)
	}
	s.rooms = nil
	if n.sockets[s.id] == s {
		delete(n.sockets, s.id)
	}
	n.server.counters.sockets.Add(-1)
}

// Socket is the socket with an id, nil if there is none.
func (n *Namespace) Socket(id string) *Socket {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.sockets[id]
}
