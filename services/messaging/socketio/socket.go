package socketio

import (
	"bytes"
	"errors"
	"sync"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// Reason is why a socket ended, in the words of the reference implementation.
type Reason string

// The reasons, beside those of engineio, which end all sockets of a connection. A
// malformed packet is engineio.ForcedClose, as in the reference implementation.
const (
	// ClientDisconnect is the client's DISCONNECT.
	ClientDisconnect Reason = "client namespace disconnect"
	// ServerDisconnect is Disconnect, or DisconnectAll.
	ServerDisconnect Reason = "server namespace disconnect"
)

var (
	// ErrDisconnected refuses everything once a socket has ended.
	ErrDisconnected = errors.New("the socket is disconnected")
	// ErrOverflow refuses what would make too much wait for the client. It is as if
	// nothing had been sent; who must not lose it closes the connection.
	ErrOverflow = engineio.ErrOverflow
)

// state is a socket's; see the package's documentation.
type state uint8

const (
	connecting state = iota
	greeting
	connected
	left
	gone
)

// Socket is a client in a namespace. Its methods are safe for concurrent use, and
// none blocks but for what they call of the program's; see Disconnect.
type Socket struct {
	// Data is what middleware found out. It is the program's to change, and to lock.
	Data any

	namespace *Namespace
	conn      *conn
	id        string
	recovered bool

	// The conn's mu guards these.
	state     state
	apart     bool       // admitted outside of Message
	abandon   func()     // ends an attempt that waits; nil if there was none
	postponed *postponed // what came while OnConnect runs
	handling  bool       // a packet, while connected
	reason    Reason     // why it ended meanwhile
	acks      acks

	// The namespace's mu guards these.
	present bool
	rooms   map[*room]int // its index in the room's members
}

// postponed is a packet that waits until OnConnect has returned. Nothing more is
// read meanwhile, so there is one at most.
type postponed struct {
	packet packet
	args   Args
	done   chan struct{}
}

// ID is the socket's id. It is no secret: it says nothing of the connection's.
func (s *Socket) ID() string { return s.id }

// Namespace is the namespace that the socket is in.
func (s *Socket) Namespace() *Namespace { return s.namespace }

// Recovered says whether the socket goes on as an earlier one, as its client was
// told; see [Recovery].
func (s *Socket) Recovered() bool { return s.recovered }

// Conn is the connection, which other namespaces share.
func (s *Socket) Conn() Conn { return s.conn.engine }

// Facts is what Options.Facts said of the connection.
func (s *Socket) Facts() any { return s.conn.facts }

// Emit sends an event. Arguments may be an [Offset] at the end, a []byte (which
// goes as an attachment), a json.RawMessage, a [Value], [Args], and whatever
// encoding/json encodes. Nothing is kept of them. The errors are ErrReserved,
// ErrTooManyAttachments, ErrPlaceholder, an argument's, ErrOverflow and
// ErrDisconnected.
func (s *Socket) Emit(name string, args ...any) error {
	p, err := encodeEvent(name, args, s.conn.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	return s.sendEvent(&p, noID)
}

func (s *Socket) sendEvent(p *payload, id int64) error {
	if err := s.sendPayload(typeEvent, p, id); err != nil {
		return err
	}
	s.conn.server.counters.eventsOut.Add(1)
	return nil
}

// parts are what a message is put together from. The pool's are long enough for
// what programs do.
type parts struct{ list [][]byte }

var partsPool = sync.Pool{New: func() any { return &parts{list: make([][]byte, 0, 8)} }}

var closingBracket = []byte{']'}

// EmitRaw sends an event that is encoded already: the parts, one after the other,
// are its name and arguments as JSON, with commas between, and without the array's
// brackets. They are copied; so many receivers can share what is the same. Nobody
// checks them.
func (s *Socket) EmitRaw(list ...[]byte) error { return s.emitRaw(engineio.Now, list) }

// GatherRaw is EmitRaw for an event that may wait for others as long as its urgency
// allows; see [engineio.Conn.Gather].
func (s *Socket) GatherRaw(u engineio.Urgency, list ...[]byte) error { return s.emitRaw(u, list) }

func (s *Socket) emitRaw(u engineio.Urgency, list [][]byte) error {
	p := partsPool.Get().(*parts) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	p.list = append(append(append(p.list, s.namespace.eventHeader), list...), closingBracket)
	err := s.gather(u, p.list)
	clear(p.list)
	p.list = p.list[:0]
	partsPool.Put(p)
	if err == nil {
		s.conn.server.counters.eventsOut.Add(1)
	}
	return err
}

// send sends a packet's text.
func (s *Socket) send(text [][]byte) error { return s.gather(engineio.Now, text) }

// gather is send for what may wait.
func (s *Socket) gather(u engineio.Urgency, text [][]byte) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.open() {
		return ErrDisconnected
	}
	return disconnected(c.engine.Gather(u, text...))
}

func (s *Socket) sendPayload(kind packetType, p *payload, id int64) error {
	text := [][]byte{p.header(kind, s.namespace.name, id), p.list, closingBracket}
	if len(p.attachments) == 0 {
		return s.send(text)
	}
	return s.sendAll(packets(text, p.attachments))
}

// sendAll sends a packet with attachments.
func (s *Socket) sendAll(packets []engineio.Packet) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.open() {
		return ErrDisconnected
	}
	return disconnected(c.engine.SendAll(packets...))
}

func packets(text, attachments [][]byte) []engineio.Packet {
	list := make([]engineio.Packet, 0, 1+len(attachments))
	list = append(list, engineio.Packet{Kind: engineio.Text, Parts: text})
	for _, data := range attachments {
		list = append(list, engineio.Packet{Kind: engineio.Binary, Parts: [][]byte{data}})
	}
	return list
}

// open says whether the client may be sent something; under the conn's mu.
func (s *Socket) open() bool { return s.state == greeting || s.state == connected }

// disconnected says it in this package's words.
func disconnected(err error) error {
	if errors.Is(err, engineio.ErrClosed) {
		return ErrDisconnected
	}
	return err
}

// Disconnect sends DISCONNECT and ends the socket ("Disconnection from a
// namespace"). The connection goes on, for Options.ConnectTimeout if it has no
// other namespace. A stock client does not come back by itself.
//
// The functions of acknowledgements that are waited for, and OnDisconnect, are called
// before Disconnect returns, so the caller must hold no lock that they take. But if
// a handler of the socket's is at work, OnDisconnect is called when that has
// returned.
func (s *Socket) Disconnect() { s.end(left, ServerDisconnect) }

// DisconnectAll does as Disconnect does with every socket of the connection, and closes it.
func (s *Socket) DisconnectAll() {
	c := s.conn
	c.mu.Lock()
	sockets := append([]*Socket(nil), c.sockets...)
	c.mu.Unlock()
	for _, other := range sockets {
		other.Disconnect()
	}
	c.engine.Close(closeNormal, "")
}

// handled is called when a packet has been handled. If the socket has ended
// meanwhile, the rest of that was left to it.
func (s *Socket) handled() {
	s.conn.mu.Lock()
	s.handling = false
	ended := s.state != connected
	s.conn.mu.Unlock()
	if ended {
		s.farewell()
	}
}

// handle handles a packet of an open socket.
func (s *Socket) handle(p packet, args Args) (pause <-chan struct{}) {
	switch p.kind {
	case typeDisconnect:
		s.end(gone, ClientDisconnect)
	case typeAck, typeBinaryAck:
		s.acknowledged(p.id, args)
	default:
		return s.event(p, args)
	}
	return nil
}

// event gives an event to its handler.
func (s *Socket) event(p packet, args Args) (pause <-chan struct{}) {
	s.conn.server.counters.eventsIn.Add(1)
	e := Event{Args: args}
	handle := s.namespace.onAny
	if h, ok := s.namespace.events[string(p.name)]; ok {
		e.Name, handle = h.name, h.handle
	} else if handle != nil {
		e.Name = string(p.name)
	}
	if handle == nil {
		return nil
	}
	if p.id != noID {
		e.Ack = &Ack{socket: s, id: p.id}
	}
	return handle(s, e)
}

// postpone keeps a packet until OnConnect has returned; under the conn's mu.
func (s *Socket) postpone(p packet, attachments [][]byte) (pause <-chan struct{}) {
	args := Args{list: p.args, attachments: attachments}
	if attachments == nil { // else it is ours already
		args = args.Clone()
		p.name = bytes.Clone(p.name)
	}
	s.postponed = &postponed{packet: p, args: args, done: make(chan struct{})}
	return s.postponed.done
}

// greeted is called when OnConnect has returned. What is left to do comes before
// the state changes, so that nothing else is called of the program meanwhile.
func (s *Socket) greeted() {
	c := s.conn
	c.mu.Lock()
	later := s.postponed
	s.postponed = nil
	if later != nil {
		var pause <-chan struct{}
		if s.state == greeting {
			c.mu.Unlock()
			pause = s.handle(later.packet, later.args)
			c.mu.Lock()
		}
		defer later.resume(pause, &c.server.admitter.workers)
	}
	if s.state == greeting {
		s.state = connected
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	s.farewell()
}

// resume has the connection read on when pause is closed.
func (p *postponed) resume(pause <-chan struct{}, running *sync.WaitGroup) {
	if pause == nil {
		close(p.done)
		return
	}
	running.Go(func() {
		<-pause // who made it closes it
		close(p.done)
	})
}

// end ends the socket: the server left, or it is gone.
func (s *Socket) end(next state, reason Reason) {
	c := s.conn
	c.mu.Lock()
	before := s.state
	if before == left || before == gone || before == connecting && next == left {
		c.mu.Unlock()
		return
	}
	s.state, s.reason = next, reason
	if next == left {
		c.send(typeDisconnect, s.namespace.name, nil)
	} else {
		c.forget(s)
	}
	c.limitIdleness()
	waiting := s.acks.takeAll()
	abandon := s.abandon
	s.abandon = nil
	handling := s.handling
	c.mu.Unlock()
	switch {
	case before == connecting: // the program knows nothing of it
		if abandon != nil {
			abandon()
		}
	case before == connected && !handling:
		s.farewell()
	default: // greeted or handled does it
	}
	for _, w := range waiting {
		w.done(Args{}, ErrDisconnected)
	}
}

// farewell is the last that the program hears of a socket.
func (s *Socket) farewell() {
	s.namespace.onDisconnect(s, s.reason)
	s.namespace.remove(s)
	s.conn.server.counters.disconnected(s.reason)
}
