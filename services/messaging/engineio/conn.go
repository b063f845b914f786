package engineio

import (
	"context"
	"errors"
	"time"

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
// time, in order, whatever the transport.
type Handler interface {
	// Message is given a message, which is valid until Message returns. If it
	// returns a channel, the client is given no attention until it is closed, and
	// need not answer pings: a POST stays without answer, nothing is read from a
	// WebSocket. What is sent meanwhile goes out. Messages sent before Message
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
	ErrClosed = errors.New("the session is closed")
)

// Packet is a message to a client, whose payload is the parts one after the other.
type Packet struct {
	Kind  Kind
	Parts [][]byte
}

// Conn is a session. Its methods are safe for concurrent use, and none but Room
// blocks.
type Conn struct{}

// ID is the session's id.
func (c *Conn) ID() string { panic("to do") }

// Transport is what carries the session at this moment.
func (c *Conn) Transport() Transport { panic("to do") }

// LastRead is when the client was last heard of: a packet, or a part of one.
func (c *Conn) LastRead() time.Time { panic("to do") }

// Send queues a message, whose payload is the parts one after the other; they are
// copied. Text must be UTF-8, and must not contain U+001E, which separates packets
// in polling (section "Packet encoding"). What would make too much wait is refused
// with ErrOverflow, unless nothing waits: then any size is taken. After a Close,
// Abort, or the end it is ErrClosed.
func (c *Conn) Send(kind Kind, parts ...[]byte) error { panic("to do") }

// SendAll queues messages that belong together: all of them, with nothing of
// others between, or none. They count as one.
func (c *Conn) SendAll(packets ...Packet) error { panic("to do") }

// Uncork lets out what was sent while a message is being handled. Handlers that are
// going to wait call it first: what others send waits, too.
func (c *Conn) Uncork() { panic("to do") }

// HasRoom says whether at least half of the queue is free.
func (c *Conn) HasRoom() bool { panic("to do") }

// Room waits until at least half of the queue is free, or the session is closing
// (ErrClosed), or ctx is done.
func (c *Conn) Room(ctx context.Context) error { panic("to do") }

// Close ends the session in order, after everything that waits. On WebSocket the
// client gets a close frame with a code and a reason of at most 123 bytes (RFC 6455,
// section 7.4); in polling a packet "close", with this answer or the next, as there
// is no more. The stock client takes no notice of the code: after either of both
// it comes back by itself, after 0.5 to 1.5 s unless it is told otherwise. So this
// is for drains (1012), too. Only the first call has an effect. No message is
// handled any more; Closed is called once the client knows, or CloseTimeout is
// over.
func (c *Conn) Close(code int, reason string) { panic("to do") }

// Abort ends the session at once; what waits is lost.
func (c *Conn) Abort() { panic("to do") }
