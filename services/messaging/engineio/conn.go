package engineio

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/wheel"
	"github.com/marketplane/marketplane/services/internal/wsconn"
)

// Kind is a message's.
type Kind = wsconn.Kind

// The kinds. Text is UTF-8.
const (
	Text   = wsconn.Text
	Binary = wsconn.Binary
)

// Handler is told what a session's client sends. Its methods are called one at a
// time, in order, whatever the transport. They must not panic: in polling that ends
// the session, elsewhere the process.
type Handler interface {
	// Message is given a message, which is valid until Message returns. If it
	// returns a channel, no more is taken of the client until that is closed, and
	// pings, which go on, need no answer: a POST stays without one, nothing is read
	// from a WebSocket. What is sent meanwhile goes out. Messages sent before Message
	// returns go out together, afterwards; see Uncork.
	Message(kind Kind, payload []byte) (pause <-chan struct{})
	// Closed is the last call: the session has ended. The error, which is nil for
	// an end in order, says more.
	Closed(reason Reason, err error)
}

// Reason is why a session ended, in the words of the reference implementation.
type Reason string

// The reasons.
const (
	// TransportClose is the client's wish, or the network's.
	TransportClose Reason = "transport close"
	// TransportError is a broken rule or a broken connection.
	TransportError Reason = "transport error"
	// ParseError is a packet, or a payload, that is none.
	ParseError Reason = "parse error"
	// PingTimeout is a ping without an answer.
	PingTimeout Reason = "ping timeout"
	// ForcedClose is Close, or Abort.
	ForcedClose Reason = "forced close"
	// ServerShutdown is Server.Shutdown.
	ServerShutdown Reason = "server shutting down"
)

var (
	// ErrOverflow refuses what would make more than Options.MaxQueued wait.
	ErrOverflow = wsconn.ErrOverflow
	// ErrClosed refuses everything once a session is closing.
	ErrClosed = wsconn.ErrClosed
)

// Urgency says for how long a message may wait for others, to share a system call
// with them.
type Urgency = wsconn.Urgency

// The urgencies: none; until 25 ms, or 200 ms, after the last message of the same
// urgency. What is sent otherwise takes along what waits.
const (
	Now   = wsconn.Now
	Soon  = wsconn.Soon
	Later = wsconn.Later
)

// Packet is a message to a client, whose payload is the parts one after the other.
type Packet struct {
	Kind  Kind
	Parts [][]byte
}

type state uint8

const (
	stateOpen    state = iota
	stateClosing       // the client is being told
	stateEnded
)

// Conn is a session. Its methods are safe for concurrent use, and none but Room
// blocks.
type Conn struct {
	server  *Server
	id      string
	handler Handler // under deliver

	// deliver is held while the handler is called. mu may be taken under it, and not
	// the other way round.
	deliver sync.Mutex

	timer    wheel.Timer
	lastRead atomic.Int64 // Unix nanoseconds, of polling; a WebSocket has its own

	mu       sync.Mutex
	state    state
	most     int             // bytes at once; 0: Options.MaxPayload
	admitted bool            // counts for Options.MaxSessions
	awaiting bool            // a pong
	extended bool            // the time for it was
	due      time.Duration   // when the timer is to fire, on the server's clock
	reason   Reason          // why it is closing
	socket   *socket         // that carries the session; nil in polling
	polling  *polling        // nil on WebSocket
	probe    *probe          // an upgrade under way; nil if there is none
	pause    <-chan struct{} // the handler's last one
}

// ID is the session's id.
func (c *Conn) ID() string { return c.id }

// Transport is what carries the session at this moment.
func (c *Conn) Transport() Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.transport()
}

// transport needs mu.
func (c *Conn) transport() Transport {
	if c.socket != nil {
		return WebSocket
	}
	return Polling
}

// LastRead is when the client was last heard of: a packet, or a part of one.
func (c *Conn) LastRead() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard()
}

// heard needs mu.
func (c *Conn) heard() time.Time {
	if c.socket != nil {
		return c.socket.ws.LastRead()
	}
	return time.Unix(0, c.lastRead.Load())
}

// Send queues a message, whose payload is the parts one after the other; they are
// copied. Text must be UTF-8, and must not contain U+001E, which separates packets
// in polling (section "Packet encoding"). What would make too much wait is refused
// with ErrOverflow, unless nothing waits: then any size is taken. After Close,
// Abort, or the end it is ErrClosed.
func (c *Conn) Send(kind Kind, parts ...[]byte) error { return c.send(Now, kind, parts) }

// Gather is Send for text that may wait as long as its urgency allows. In polling
// nothing waits.
func (c *Conn) Gather(u Urgency, parts ...[]byte) error { return c.send(u, Text, parts) }

func (c *Conn) send(u Urgency, kind Kind, parts [][]byte) error {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return ErrClosed
	}
	if s := c.socket; s != nil {
		c.mu.Unlock()
		return s.send(u, kind, parts)
	}
	defer c.mu.Unlock()
	if err := c.polling.reserve(c.server, encodedSize(kind, parts)); err != nil {
		return err
	}
	c.polling.add(kind, parts)
	c.polling.stir()
	return nil
}

// SendAll queues messages that belong together: all of them, with nothing of
// others between, or none. They are refused as if they were one.
func (c *Conn) SendAll(packets ...Packet) error {
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return ErrClosed
	}
	if s := c.socket; s != nil {
		c.mu.Unlock()
		return s.sendAll(packets)
	}
	defer c.mu.Unlock()
	size := 0
	for _, p := range packets {
		size += encodedSize(p.Kind, p.Parts)
	}
	if err := c.polling.reserve(c.server, size); err != nil {
		return err
	}
	for _, p := range packets {
		c.polling.add(p.Kind, p.Parts)
	}
	c.polling.stir()
	return nil
}

// control sends a packet of the protocol's own, past all bounds while it polls;
// under mu.
func (c *Conn) control(typ packetType) error {
	if c.socket != nil {
		return c.socket.ws.Send(Text, []byte{byte(typ)})
	}
	c.polling.addControl(c.server, typ)
	c.polling.stir()
	return nil
}

// Uncork lets out what was sent while a message is being handled. Handlers that are
// going to wait call it first: what others send waits, too.
func (c *Conn) Uncork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket != nil {
		c.socket.ws.Uncork()
	} else if c.polling != nil {
		c.polling.corked = false
		c.polling.stir()
	}
}

// LimitPayload lowers Options.MaxPayload for this session, from the next message or
// POST on; 0 lifts that. The client is not told.
func (c *Conn) LimitPayload(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = bytes
	if c.socket != nil {
		c.socket.ws.LimitMessages(bytes)
	}
	if c.probe != nil && c.probe.socket.ws != nil {
		c.probe.socket.ws.LimitMessages(bytes)
	}
}

// maxPayload is how many bytes the client may send at once.
func (c *Conn) maxPayload() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > 0 {
		return min(c.most, c.server.options.MaxPayload)
	}
	return c.server.options.MaxPayload
}

// HasRoom says whether at least half of the queue is free.
func (c *Conn) HasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket != nil {
		return c.socket.ws.HasRoom()
	}
	return c.polling == nil || c.hasRoom()
}

// hasRoom needs mu, and polling.
func (c *Conn) hasRoom() bool { return c.polling.queued <= c.server.options.MaxQueued/2 }

// Room waits until at least half of the queue is free, or the session is closing
// (ErrClosed), or ctx is done.
func (c *Conn) Room(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.state != stateOpen {
			c.mu.Unlock()
			return ErrClosed
		}
		if s := c.socket; s != nil {
			c.mu.Unlock()
			return s.ws.Room(ctx)
		}
		if c.hasRoom() {
			c.mu.Unlock()
			return nil
		}
		changed := c.polling.await()
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the session in order, after everything that waits. On WebSocket the
// client gets a close frame with a code and a reason of at most 123 bytes (RFC 6455,
// section 7.4); in polling a packet "close", with this answer or the next, as there
// is no more. The stock client takes no notice of the code: after either of both
// it comes back by itself, after 0.5 to 1.5 s unless it is told otherwise. So this
// is for drains (1012), too. Only the first call has an effect. No message is
// handled any more; Closed is called once the client knows, or CloseTimeout is
// over.
func (c *Conn) Close(code int, reason string) { c.close(ForcedClose, code, reason) }

func (c *Conn) close(why Reason, code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen {
		return
	}
	c.state, c.reason = stateClosing, why
	if c.socket != nil {
		c.server.wheel.Cancel(&c.timer)
		c.socket.ws.Close(code, reason) // whose end is ours
		return
	}
	c.polling.code, c.polling.text = code, reason
	c.schedule(c.server.options.CloseTimeout)
	c.polling.notify()
	c.polling.stir()
}

// Abort ends the session at once; what waits is lost.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(ForcedClose, nil)
	if c.socket != nil {
		c.socket.ws.Abort()
	}
}

// end is the end, whatever carried the session; under mu. Only the first call has
// an effect.
func (c *Conn) end(reason Reason, err error) {
	if c.state == stateEnded {
		return
	}
	if c.state == stateClosing {
		reason = c.reason
	}
	s := c.server
	c.state = stateEnded
	s.wheel.Cancel(&c.timer)
	c.dropProbe(closeNormal, "")
	if c.polling != nil {
		c.polling.end(s)
	}
	s.count(c, reason)
	if c.polling != nil && c.polling.left {
		c.schedule(leaveDelay)
	} else {
		s.forget(c)
	}
	// Not here: the handler may be at work, and may have called us.
	go func() {
		defer s.running.Done()
		c.deliver.Lock()
		defer c.deliver.Unlock()
		c.handler.Closed(reason, err)
	}()
}

// endWith ends the session because of what its client did, and closes what carries
// it; under mu.
func (c *Conn) endWith(reason Reason, err error, code int, text string) {
	c.end(reason, err)
	if c.socket != nil {
		c.socket.ws.Close(code, text)
	}
}

// handle hands a message to the handler, if the session is open; under deliver.
func (c *Conn) handle(kind Kind, data []byte) (pause <-chan struct{}) {
	c.mu.Lock()
	open := c.state == stateOpen
	c.mu.Unlock()
	if !open {
		return nil
	}
	if pause = c.handler.Message(kind, data); pause != nil {
		c.mu.Lock()
		c.pause = pause
		c.mu.Unlock()
	}
	return pause
}
