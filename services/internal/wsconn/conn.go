package wsconn

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// Kind is a message's.
type Kind = websocket.MessageType

// The kinds.
const (
	Text   = websocket.MessageText
	Binary = websocket.MessageBinary
)

// Handler is told what a peer sends. Its methods are called one at a time.
type Handler interface {
	// Message is given a complete message, which is valid until Message returns.
	// Text is not checked to be UTF-8; the handler does that. If Message returns
	// a channel, nothing more is read until it is closed.
	Message(kind Kind, payload []byte) (pause <-chan struct{})
	// TooLarge says that a message above Options.MaxMessage came. Nothing more is
	// read: the handler has to close the connection, soon.
	TooLarge()
	// Closed is the last call: the connection is gone.
	Closed(closure Closure)
}

// Closure says how a connection ended.
type Closure struct {
	// Code is that of the close frame that came first; 0 if there was none.
	Code int
	// ByPeer says that it was the peer's.
	ByPeer bool
	// Err is why the connection broke, if it did not close in order.
	Err error
}

var (
	// ErrOverflow refuses what would make more than Options.MaxQueued wait.
	ErrOverflow = errors.New("too much waits for the peer")
	// ErrClosed refuses everything once a connection is closing.
	ErrClosed = errors.New("the connection is closed")
)

// Conn is a connection. Its methods are safe for concurrent use, and none but
// Room blocks.
type Conn struct {
	group   *Group
	handler Handler
	ws      *websocket.Conn
	socket  socket          // under ws
	raw     syscall.RawConn // nil if the socket has no file descriptor
	fd      int32
	resting bool  // the poller waits for the peer, and nobody else; under mu
	stirred bool  // there was more to read since somebody began to; under mu
	next    *Conn // in the group's list, under its mu

	hungUp   atomic.Bool  // the peer has said its last, which may wait to be read
	lastRead atomic.Int64 // Unix nanoseconds
	most     atomic.Int32 // bytes of a message, if that is less than the group's; 0 if not
	in       input        // the worker's

	// mu is never held while ws is called, which calls the socket.
	mu      sync.Mutex
	waiting *buffer // messages that are not framed yet; nil if there are none
	framed  *buffer // frames that are not written yet; nil if there are none
	queued  int     // bytes of payload that wait or are being written
	writing bool    // someone frames and writes, or is going to
	corked  bool    // a worker is at work, and will flush
	lately  uint8   // the urgencies of which text was written lately, as bits
	held    uint8   // those of which some waits for its round
	closing bool    // no more messages are taken
	shut    bool    // ws is done: what is framed is the last
	code    int     // Close's, with the reason; 0 before
	reason  string
	changed chan struct{} // closed when there may be news for await; nil while nobody waits
}

// LimitMessages lowers Options.MaxMessage for this connection, from the next message
// on; 0 lifts that.
func (c *Conn) LimitMessages(bytes int) { c.most.Store(int32(min(bytes, math.MaxInt32))) } //nolint:gosec // G115: it is bounded

func (c *Conn) maxMessage() int {
	if most := int(c.most.Load()); most > 0 {
		return min(most, c.group.options.MaxMessage)
	}
	return c.group.options.MaxMessage
}

// Start begins to read. It is called once.
func (c *Conn) Start() {
	c.group.running.Add(1)
	c.in.try = c.readable
	c.Uncork() // the answer to the handshake
	if c.watched() && c.in.len() == 0 {
		if resting, err := c.rest(); resting && err == nil {
			return
		}
	}
	c.group.workers.Do(c)
}

// LastRead is when the peer was last heard of.
func (c *Conn) LastRead() time.Time { return time.Unix(0, c.lastRead.Load()) }

// Send queues a message, whose payload is the parts one after the other. What
// would make too much wait is refused, unless nothing waits.
func (c *Conn) Send(kind Kind, parts ...[]byte) error {
	return c.enqueue(kind, Now, false, parts)
}

// Gather queues text that may wait, as long as its urgency allows, for more that is
// written with it. It stays a message of its own.
func (c *Conn) Gather(u Urgency, parts ...[]byte) error { return c.enqueue(Text, u, false, parts) }

// Message is one of those that SendAll queues.
type Message struct {
	Kind  Kind
	Parts [][]byte
}

// SendAll queues messages that belong together: all of them, with no others
// between, or none. They are refused as if they were one.
func (c *Conn) SendAll(messages ...Message) error { return c.enqueueAll(messages) }

// Join queues text that may become one message with other joined text, and may
// wait for that as long as its urgency allows. Peers must be able to tell them
// apart.
func (c *Conn) Join(u Urgency, parts ...[]byte) error { return c.enqueue(Text, u, true, parts) }

// Ping asks the peer for a sign of life; see LastRead. A goroutine waits for the
// answer, for as long as timeout, or for the end of the connection: peers may
// speak and never answer.
func (c *Conn) Ping(timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.group.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_ = c.ws.Ping(ctx) // LastRead tells of the answer; that none came is the caller's to judge
	})
}

// Room waits until at least half of the queue is free. Text does not wait to be
// joined meanwhile: whoever wants room has more of it.
func (c *Conn) Room(ctx context.Context) error {
	c.mu.Lock()
	c.kick()
	c.mu.Unlock()
	if !c.await(ctx.Done(), func() bool { return c.closing || c.hasRoom() }) {
		return ctx.Err()
	}
	if c.isClosing() {
		return ErrClosed
	}
	return nil
}

// HasRoom says whether at least half of the queue is free.
func (c *Conn) HasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasRoom()
}

// hasRoom needs mu.
func (c *Conn) hasRoom() bool { return c.queued <= c.group.options.MaxQueued/2 }

// await waits until a condition is true, which is looked at under mu. It is
// false when done is closed before.
func (c *Conn) await(done <-chan struct{}, condition func() bool) bool {
	for {
		c.mu.Lock()
		if condition() {
			c.mu.Unlock()
			return true
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

// notify has those who await look again; under mu.
func (c *Conn) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Discard throws away what waits, but for what is being written.
func (c *Conn) Discard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting != nil {
		c.settle(c.waiting.size)
		c.waiting.release()
		c.waiting, c.held = nil, 0
	}
}

// maxReason is how long the reason in a close frame may be (RFC 6455, section
// 5.5), beside the code.
const maxReason = 123

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// Close sends a close frame after everything that waits, and ends the
// connection when the peer has answered or Options.CloseTimeout is over. Only
// the first call has an effect. A reason has at most 123 bytes.
func (c *Conn) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.code, c.reason = code, reason[:min(len(reason), maxReason)]
	c.beginClosing()
	_ = c.socket.SetReadDeadline(longAgo) // a worker within a message hears of it; fails on what is closed
}

// beginClosing needs mu.
func (c *Conn) beginClosing() {
	if c.closing {
		return
	}
	c.closing = true
	options := c.group.options
	_ = c.socket.SetWriteDeadline(time.Now().Add(options.WriteTimeout + options.CloseTimeout)) // fails on what is closed
	c.notify()
	c.kick() // nothing waits for more any longer
	c.disturb()
}

func (c *Conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// Abort ends the connection at once.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beginClosing()
	_ = c.socket.Conn.Close() // a worker notices, and tells the handler
}
