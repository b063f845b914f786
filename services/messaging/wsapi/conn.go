package wsapi

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/wheel"
	"github.com/marketplane/marketplane/services/internal/wsconn"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
)

// conn is one connection: a wsconn.Handler and a hub.Wire. Commands are executed
// one after the other, in the order in which they arrive; a send is answered
// when it is committed, while others are executed already. No goroutine is the
// connection's own.
type conn struct {
	server *Server
	ws     *wsconn.Conn // set by start
	link   *hub.Link    // set by start
	timer  wheel.Timer  // until auth, between pings, until the end
	pinged time.Time    // the timer's own: when a ping was last sent, zero if it was answered

	ending atomic.Bool // no more events and commands; set under mu

	mu        sync.Mutex
	executing bool          // a frame's commands are being executed
	sends     int           // that have no answer yet
	pause     chan struct{} // closed when reading goes on; nil while it does
	code      int           // of the close frame, once the connection is ending
	reason    string
	principal identity.Principal // zero until authenticated

	// Used while a command is executed.
	allowance door.Allowance
	guest     door.Guest
}

func newConn(s *Server) *conn {
	c := &conn{server: s}
	c.timer.Init(c.tick)
	return c
}

// start serves the connection.
func (c *conn) start(ws *wsconn.Conn, link *hub.Link) {
	c.mu.Lock()
	c.ws, c.link = ws, link
	ended := c.ending.Load() // the hub was faster
	c.mu.Unlock()
	c.server.wheel.Schedule(&c.timer, c.server.options.AuthTimeout)
	c.queued(ws.Join(wsconn.Now, c.server.hello))
	if ended {
		c.ws.Close(c.code, c.reason)
	}
	ws.Start()
}

// Message implements wsconn.Handler.
func (c *conn) Message(kind wsconn.Kind, frame []byte) (pause <-chan struct{}) {
	c.mu.Lock()
	if c.ending.Load() {
		c.mu.Unlock()
		return nil
	}
	c.executing = true
	c.mu.Unlock()
	if kind == wsconn.Text {
		c.executeAll(frame)
	} else {
		c.end(CodeMalformed, "not a text frame", false)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.executing = false
	c.closeIfDone()
	if c.sends >= door.MaxSends {
		c.pause = make(chan struct{})
		return c.pause
	}
	return nil
}

func (c *conn) executeAll(frame []byte) {
	read := c.server.now()
	objects, ok := door.Lines(frame)
	if !ok {
		c.end(CodeMalformed, "not UTF-8", false)
		return
	}
	for line := range objects {
		if c.ending.Load() {
			return
		}
		c.execute(line, read)
	}
}

// TooLarge implements wsconn.Handler.
func (c *conn) TooLarge() { c.end(CodeTooLarge, "frame too large", false) }

// Closed implements wsconn.Handler.
func (c *conn) Closed(closure wsconn.Closure) {
	c.mu.Lock()
	closedByUs := c.ending.Swap(true)
	c.mu.Unlock()
	c.server.wheel.Cancel(&c.timer)
	c.link.Leave()
	c.guest.Leave()
	if closure.Err != nil {
		c.server.log.Debug("connection not closed in order", "user", c.who().UserID, "error", closure.Err)
	}
	switch {
	case closedByUs: // counted by end
	case closure.ByPeer:
		c.server.metrics.closes.WithLabelValues("client").Inc() // clients choose codes; they must not become label values
	case closure.Code != 0:
		c.server.metrics.closes.WithLabelValues(strconv.Itoa(closure.Code)).Inc()
	default:
		c.server.metrics.closes.WithLabelValues("none").Inc()
	}
}

// queued looks at what became of an object that was queued for the client, who
// is too slow if there was no room.
func (c *conn) queued(err error) {
	switch {
	case err == nil:
		c.server.metrics.sent.Inc()
	case errors.Is(err, wsconn.ErrOverflow):
		c.end(CodeSlowConsumer, "too slow", true)
	}
}

// reply queues an answer, which goes out even when the connection is ending.
func (c *conn) reply(object any) {
	line, err := encode(object)
	if err != nil {
		c.server.log.Error("reply not sent", "error", err)
		return
	}
	c.queued(c.ws.Join(wsconn.Now, line))
}

// end closes the connection with a code, once: after the answers to the commands
// that were taken, and, unless discard is set, after everything that waits is
// written. It returns at once.
func (c *conn) end(code int, reason string, discard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending.Swap(true) {
		return
	}
	c.code, c.reason = code, reason
	c.server.metrics.closes.WithLabelValues(strconv.Itoa(code)).Inc()
	if c.ws == nil {
		return // start closes it
	}
	if discard {
		c.ws.Discard()
	}
	c.server.wheel.Schedule(&c.timer, endTimeout)
	c.closeIfDone()
}

// closeIfDone closes an ending connection that owes no answer; under mu.
func (c *conn) closeIfDone() {
	if c.ending.Load() && !c.executing && c.sends == 0 {
		c.ws.Close(c.code, c.reason)
	}
}

// schedule puts the timer off, unless it bounds the end already.
func (c *conn) schedule(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending.Load() {
		c.server.wheel.Schedule(&c.timer, d)
	}
}

// beginSend and endSend count the sends that wait for their commit.

func (c *conn) beginSend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends++
}

func (c *conn) endSend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends--
	if c.pause != nil && c.sends <= door.MaxSends/2 {
		close(c.pause)
		c.pause = nil
	}
	c.closeIfDone()
}

// tick is the timer's.
func (c *conn) tick() {
	switch {
	case c.ending.Load():
		c.ws.Abort()
	case c.who() == (identity.Principal{}):
		c.end(CodeAuthTimeout, "no auth in time", false)
	default:
		c.ping()
	}
}

// ping asks for a sign of life, unless there was one lately, and ends the
// connection if there is none.
func (c *conn) ping() {
	options, heard := c.server.options, c.ws.LastRead()
	silent := c.server.now().Sub(heard)
	switch {
	case !c.pinged.IsZero() && heard.Before(c.pinged):
		c.end(CodePingTimeout, "no answer to ping", true)
	case silent >= options.PingInterval:
		c.pinged = c.server.now()
		c.ws.Ping(options.PingTimeout)
		c.schedule(options.PingTimeout)
	default:
		c.pinged = time.Time{}
		c.schedule(options.PingInterval - silent)
	}
}

// event queues an event with its own payload.
func (c *conn) event(u wsconn.Urgency, head []byte, payload json.RawMessage) {
	c.queued(c.ws.Join(u, head, payload[1:], newline))
}

var newline = []byte{'\n'}

// headSize is what the head of an event takes, about.
const headSize = 64

// Deliver implements hub.Wire.
func (c *conn) Deliver(items []messaging.Item) {
	var scratch [headSize]byte
	for _, item := range items {
		if c.ending.Load() {
			return
		}
		c.event(wsconn.Soon, itemHead(scratch[:0], item), item.Payload)
	}
}

// Signal implements hub.Wire.
func (c *conn) Signal(signal messaging.Signal) {
	if c.ending.Load() {
		return
	}
	if !c.ws.HasRoom() {
		c.server.metrics.dropped.Inc()
		return
	}
	var scratch [headSize]byte
	c.event(wsconn.Later, eventHead(scratch[:0], signal.Kind, signal.Payload), signal.Payload)
}

// Room implements hub.Wire.
func (c *conn) Room(ctx context.Context) error {
	if c.ending.Load() {
		return wsconn.ErrClosed
	}
	return c.ws.Room(ctx)
}

// Move implements hub.Wire.
func (c *conn) Move(after, deadline time.Duration) {
	if !c.ending.Load() {
		c.reply(reconnect{Op: "reconnect", AfterMS: after.Milliseconds(), DeadlineMS: deadline.Milliseconds()})
	}
}

// SessionEnded implements hub.Wire.
func (c *conn) SessionEnded(payload json.RawMessage) {
	if !c.ending.Load() {
		c.event(wsconn.Now, eventHead(nil, messaging.KindSession, payload), payload)
	}
}

// End implements hub.Wire.
func (c *conn) End(reason hub.Reason) {
	switch reason {
	case hub.SessionEnded:
		c.end(CodeSessionEnded, "session ended", false)
	case hub.Drained, hub.Behind:
		c.end(CodeResume, "resume", false)
	}
}
