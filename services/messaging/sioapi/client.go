package sioapi

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// The reasons for which the server ends a connection, as they are counted; those of
// clients and networks are socketio's.
const (
	reasonResume       = "resume"
	reasonSessionEnded = "session ended"
	reasonTooSlow      = "slow consumer"
)

// closeRestart is the code with which clients are closed that shall come back (RFC
// 6455 and its registry: service restart). Stock clients do so by themselves, after
// this code as after any other.
const closeRestart = 1012

// client is a connection on the namespace: a hub.Wire. Its commands are executed one
// after the other, in the order in which they arrive; a send is answered when it is
// committed, while others are executed already.
type client struct {
	server    *Server
	conn      socketio.Conn
	principal identity.Principal
	link      *hub.Link // set by admit

	ending atomic.Bool // no more events and commands; set under mu

	mu        sync.Mutex
	socket    *socketio.Socket // nil before it is connected
	reason    string           // why it is ending
	executing bool             // a command
	sends     int              // that have no answer yet
	pause     chan struct{}    // closed when reading goes on after too many sends; nil while it does
	moving    *time.Timer      // ends it, once it was told to move
	gone      bool             // disconnected

	allowance *door.Allowance // the connection's, which may have one client after the other
	guest     door.Guest      // used while a command is executed, and once when none is any more
}

// connected is called when the client knows that it is let in.
func (c *client) connected(socket *socketio.Socket) {
	c.mu.Lock()
	c.socket = socket
	c.finish() // the hub was faster
	c.mu.Unlock()
	c.link.Start()
	// It may have ended after the token was verified, and before the link could
	// hear of it.
	if c.server.sessions.IsRevoked(c.principal.SessionID) {
		c.SessionEnded(messaging.SessionEndedPayload(c.principal.SessionID))
		c.End(hub.SessionEnded)
	}
}

// disconnected is the last that is heard of the connection.
func (c *client) disconnected(reason socketio.Reason) {
	c.mu.Lock()
	c.ending.Store(true)
	why := c.reason
	if why == "" {
		why = string(reason)
	}
	c.gone = true
	if c.moving != nil {
		c.moving.Stop()
	}
	executing := c.executing
	c.mu.Unlock()
	c.link.Leave()
	if !executing { // else perform does it
		c.guest.Leave()
	}
	c.server.metrics.closes.WithLabelValues(why).Inc()
}

// end ends the connection, once: after the answers to the commands that were taken.
// It returns at once.
func (c *client) end(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending.Swap(true) {
		return
	}
	c.reason = reason
	c.finish()
}

// finish closes an ending connection that owes no answer; under mu.
func (c *client) finish() {
	if !c.ending.Load() || c.gone || c.executing || c.sends > 0 {
		return
	}
	if c.reason == reasonSessionEnded && c.socket != nil {
		// Stock clients close the connection then, and stay away; for others
		// ConnectTimeout is left. With a close that comes at once, those that poll would
		// take the network for the reason, and come back. It calls disconnected.
		c.server.running.Go(c.socket.Disconnect)
		return
	}
	c.conn.Close(closeRestart, c.reason)
}

// emitted looks at what became of what was queued for the client, who is too slow
// if there was no room: it comes back, and is recovered.
func (c *client) emitted(err error) {
	if !errors.Is(err, socketio.ErrOverflow) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending.Swap(true) {
		c.reason = reasonTooSlow
	}
	c.conn.Abort()
}

// emit queues an event that is in no stream.
func (c *client) emit(u engineio.Urgency, kind messaging.Kind, payload json.RawMessage) {
	c.mu.Lock()
	socket := c.socket
	c.mu.Unlock()
	if socket == nil || c.ending.Load() {
		return
	}
	var scratch [eventSize]byte
	c.emitted(socket.GatherRaw(u, eventName(scratch[:0], kind), payload))
}

// eventSize is what an event takes beside its payload, about.
const eventSize = 64

// eventName begins an event.
func eventName(b []byte, kind messaging.Kind) []byte {
	b = append(append(b, '"'), kind...)
	return append(b, '"', ',')
}

// Deliver implements hub.Wire.
func (c *client) Deliver(items []messaging.Item) {
	var name, place [eventSize]byte
	for _, item := range items {
		if c.ending.Load() {
			return
		}
		var offset []byte
		if c.server.options.Places != nil {
			offset = append(place[:0], ',', '"')
			offset = append(messaging.AppendCursor(offset, item.UserID, item.Offset), '"')
		}
		c.emitted(c.socket.GatherRaw(engineio.Soon, eventName(name[:0], item.Kind), item.Payload, offset))
	}
}

// Signal implements hub.Wire.
func (c *client) Signal(signal messaging.Signal) {
	if !c.conn.HasRoom() {
		c.server.metrics.dropped.Inc()
		return
	}
	c.emit(engineio.Later, signal.Kind, signal.Payload)
}

// Room implements hub.Wire.
func (c *client) Room(ctx context.Context) error {
	if c.ending.Load() {
		return socketio.ErrDisconnected
	}
	return c.conn.Room(ctx)
}

// move is what clients are told that shall move. Stock clients take no notice.
type move struct {
	AfterMS    int64 `json:"after_ms"`
	DeadlineMS int64 `json:"deadline_ms"`
}

// Move implements hub.Wire. A stock client comes back when its connection is closed,
// and not before: so it is closed when it shall come back.
func (c *client) Move(after, deadline time.Duration) {
	payload, _ := json.Marshal(move{AfterMS: after.Milliseconds(), DeadlineMS: deadline.Milliseconds()}) // numbers can be encoded
	c.emit(engineio.Now, "reconnect", payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		c.moving = time.AfterFunc(after, func() { c.end(reasonResume) })
	}
}

// SessionEnded implements hub.Wire.
func (c *client) SessionEnded(payload json.RawMessage) {
	c.emit(engineio.Now, messaging.KindSession, payload)
}

// End implements hub.Wire.
func (c *client) End(reason hub.Reason) {
	switch reason {
	case hub.SessionEnded:
		c.end(reasonSessionEnded)
	case hub.Drained, hub.Behind:
		c.end(reasonResume)
	}
}
