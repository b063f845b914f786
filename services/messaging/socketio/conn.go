package socketio

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// The codes with which connections are closed (RFC 6455, section 7.4.1, and the
// registry of section 11.7).
const (
	closeNormal   = 1000
	closeProtocol = 1002
	closePolicy   = 1008
	closeTryAgain = 1013
)

// Conn is the Engine.IO session that sockets stand on: what an [engineio.Conn] can do
// but send, which the sockets do.
type Conn interface {
	ID() string
	Transport() engineio.Transport
	LastRead() time.Time
	HasRoom() bool
	Room(ctx context.Context) error
	Close(code int, reason string)
	Abort()
}

// engine is the rest.
type engine interface {
	Conn
	Send(kind engineio.Kind, parts ...[]byte) error
	Gather(u engineio.Urgency, parts ...[]byte) error
	SendAll(packets ...engineio.Packet) error
	LimitPayload(bytes int)
}

// conn is a connection: the sockets of a client, one for each namespace.
type conn struct {
	server *Server
	engine engine
	facts  any

	// The engine calls one method at a time, and this is theirs: a packet whose
	// attachments come; nil if there is none.
	partial *partial

	// mu is held while the engine sends, so that each socket's packets go out in the
	// order of its states. The engine calls nothing of ours meanwhile.
	mu       sync.Mutex
	sockets  []*Socket
	connects int         // CONNECTs that came since minute
	minute   time.Time   // when one began
	refused  int         // CONNECTs, since one was let in
	idle     *time.Timer // runs while there is no namespace
	closed   bool
}

// partial is a packet that is not complete.
type partial struct {
	packet      packet
	socket      *Socket
	attachments [][]byte
	missing     int // attachments
	size        int
	hold        budget.Hold
	timer       *time.Timer
}

// Message handles what the client sends.
func (c *conn) Message(kind engineio.Kind, message []byte) (pause <-chan struct{}) {
	p, attachments, complete, err := c.assemble(kind, message)
	if err == nil && complete {
		pause, err = c.handle(p, attachments)
	}
	switch {
	case errors.Is(err, errTooMuch):
		c.engine.Close(closeTryAgain, err.Error())
	case err != nil:
		c.server.counters.malformed.Add(1)
		c.server.options.Log.Debug("socketio: a client broke the rules", "error", err)
		c.engine.Close(closeProtocol, err.Error())
	}
	return pause
}

// assemble puts packets together with their attachments.
func (c *conn) assemble(kind engineio.Kind, message []byte) (p packet, attachments [][]byte, complete bool, err error) {
	switch {
	case kind == engineio.Binary:
		return c.attach(message)
	case c.partial != nil:
		return p, nil, false, malformed("text came where an attachment was to come")
	case len(message) > 0 && (message[0] == '0'+byte(typeBinaryEvent) || message[0] == '0'+byte(typeBinaryAck)):
		return p, nil, false, c.expect(bytes.Clone(message))
	}
	p, err = decodePacket(message, c.server.options.MaxAttachments)
	return p, nil, true, err
}

// expect begins to wait for a packet's attachments, if there is somebody whom it is
// for: others have nothing kept for them.
func (c *conn) expect(text []byte) error {
	p, err := decodePacket(text, c.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	if len(text) > c.server.options.MaxPacket {
		return errTooLarge
	}
	c.mu.Lock()
	s, err := c.addressee(p.namespace)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	hold := c.server.held.Hold(0)
	if !hold.Grow(len(text)) {
		return errTooMuch
	}
	c.partial = &partial{
		packet: p, socket: s, missing: p.attachments, size: len(text), hold: hold,
		timer: time.AfterFunc(c.server.options.AttachmentTimeout, func() {
			c.engine.Close(closePolicy, "attachments did not come in time")
		}),
	}
	return nil
}

const errTooLarge = malformed("it is too large")

var errTooMuch = errors.New("too many attachments at once")

// attach adds an attachment to the packet that waits for it.
func (c *conn) attach(data []byte) (p packet, attachments [][]byte, complete bool, err error) {
	b := c.partial
	if b == nil {
		return p, nil, false, malformed("an attachment belongs to no packet")
	}
	if b.size += len(data); b.size > c.server.options.MaxPacket {
		return p, nil, false, errTooLarge
	}
	if c.ignores(b.socket) {
		b.attachments = nil
	} else {
		if !b.hold.Grow(b.size) {
			return p, nil, false, errTooMuch
		}
		b.attachments = append(b.attachments, bytes.Clone(data))
	}
	if b.missing--; b.missing > 0 {
		return p, nil, false, nil
	}
	c.dropPartial()
	return b.packet, b.attachments, true, nil
}

// dropPartial ends the wait for attachments.
func (c *conn) dropPartial() {
	c.partial.timer.Stop()
	c.partial.hold.Release()
	c.partial = nil
}

// ignores says whether what comes for a socket is dropped: it was sent before the
// client knew of the socket's end.
func (c *conn) ignores(s *Socket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.state == left
}

// handle handles a complete packet.
func (c *conn) handle(p packet, attachments [][]byte) (pause <-chan struct{}, err error) {
	switch p.kind {
	case typeConnect:
		return nil, c.connect(p)
	case typeConnectError:
		return nil, malformed("CONNECT_ERROR is the server's to send")
	default:
	}
	c.mu.Lock()
	s, err := c.addressee(p.namespace)
	if err != nil || s.state == left { // for which it was sent before the client knew
		c.mu.Unlock()
		return nil, err
	}
	if s.state == greeting && s.apart && p.kind != typeAck && p.kind != typeBinaryAck {
		defer c.mu.Unlock()
		return s.postpone(p, attachments), nil
	}
	if s.state == connected {
		s.handling = true
		defer s.handled()
	}
	c.mu.Unlock()
	return s.handle(p, Args{list: p.args, attachments: attachments}), nil
}

// socket is that of a namespace, nil if there is none; under mu.
func (c *conn) socket(namespace []byte) *Socket {
	for _, s := range c.sockets {
		if s.namespace.name == string(namespace) {
			return s
		}
	}
	return nil
}

// addressee is the socket that a packet for a namespace is for; under mu.
func (c *conn) addressee(namespace []byte) (*Socket, error) {
	s := c.socket(namespace)
	if s == nil || s.state == connecting {
		return nil, malformed("it came before CONNECT was answered")
	}
	return s, nil
}

// forget takes a socket off the list; under mu.
func (c *conn) forget(s *Socket) {
	for i := range c.sockets {
		if c.sockets[i] == s {
			last := len(c.sockets) - 1
			c.sockets[i], c.sockets[last] = c.sockets[last], nil
			c.sockets = c.sockets[:last]
			return
		}
	}
}

// live counts the sockets that are connected or may become so; under mu.
func (c *conn) live() int {
	n := 0
	for _, s := range c.sockets {
		if s.state != left {
			n++
		}
	}
	return n
}

// limitIdleness closes the connection later, if it has no namespace then; under
// mu. It is called whenever the number of namespaces has changed.
func (c *conn) limitIdleness() {
	switch idle := !c.closed && c.live() == 0; {
	case idle && c.idle == nil:
		c.idle = time.AfterFunc(c.server.options.ConnectTimeout, c.closeIdle)
	case !idle && c.idle != nil:
		c.idle.Stop()
		c.idle = nil
	}
}

func (c *conn) closeIdle() {
	c.mu.Lock()
	busy := c.closed || c.live() > 0 // a CONNECT came while the timer fired
	c.mu.Unlock()
	if !busy {
		c.engine.Close(closePolicy, "no CONNECT in time")
	}
}

// send sends a packet of the protocol's own, which must not be lost; under mu.
func (c *conn) send(kind packetType, namespace string, data []byte) {
	err := c.engine.Send(engineio.Text, packetHeader(kind, 0, namespace, noID), data)
	if errors.Is(err, engineio.ErrOverflow) {
		c.engine.Abort()
	}
}

// Closed ends the sockets.
func (c *conn) Closed(reason engineio.Reason, err error) {
	if err != nil {
		c.server.options.Log.Debug("socketio: a connection broke", "reason", reason, "error", err)
	}
	if c.partial != nil {
		c.dropPartial()
	}
	c.mu.Lock()
	sockets := c.sockets
	c.closed, c.sockets = true, nil
	c.limitIdleness()
	c.mu.Unlock()
	for _, s := range sockets {
		s.end(gone, Reason(reason))
	}
	c.server.counters.connections.Add(-1)
}
