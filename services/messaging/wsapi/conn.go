package wsapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
)

// conn is one connection. Its goroutines: run reads and executes commands, one
// after the other, so that a client's messages keep their order; the outbox
// writes while there is something to write; a timer's pings; and one that
// closes. Only run is there for the connection's whole life.
type conn struct {
	server *Server
	out    outbox

	ready chan struct{} // closed when ws and link are set, or never will be
	ws    *websocket.Conn
	link  *hub.Link

	// commands is held while a command is executed: who wants to close waits
	// for its answer.
	commands sync.Mutex
	bucket   messaging.Bucket // run's own

	lastSign atomic.Int64 // when the client was last heard of, in Unix nanoseconds

	mu        sync.Mutex
	ending    bool // no more events and commands
	dead      bool // run is about to return; starts no more goroutines
	timer     *time.Timer
	principal identity.Principal // zero until authenticated
	tasks     sync.WaitGroup

	typedIn uuid.UUID // run's own: where typing was last told of, and when
	typedAt time.Time
}

func newConn(s *Server) *conn {
	c := &conn{server: s, ready: make(chan struct{})}
	c.out.limit = s.options.MaxQueued
	c.out.write = c.writeFrame
	return c
}

// run serves the connection until it is closed.
func (c *conn) run(ws *websocket.Conn, link *hub.Link) {
	c.ws, c.link = ws, link
	ws.SetReadLimit(-1) // bounded below, with a close code of our own
	c.alive()
	close(c.ready)
	c.reply(hello{
		Op: "hello", PingMS: c.server.options.PingInterval.Milliseconds(),
		MaxPayload: maxPayload, ResumeTTL: int64(c.server.options.ResumeTTL.Seconds()),
	})
	c.after(c.server.options.AuthTimeout, func() { c.end(CodeAuthTimeout, "no auth in time", false) })

	err := c.read()

	c.mu.Lock()
	closedByUs := c.ending
	c.ending, c.dead = true, true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	c.out.seal(true)
	link.Leave()
	_ = ws.CloseNow() // it may be closed already
	c.out.wg.Wait()
	c.tasks.Wait()
	switch {
	case closedByUs: // counted by end
	case websocket.CloseStatus(err) != -1:
		c.server.metrics.closes.WithLabelValues("client").Inc() // clients choose codes; they must not become label values
	default:
		c.server.metrics.closes.WithLabelValues("none").Inc()
	}
}

// read executes what arrives, until the connection is closed.
func (c *conn) read() error {
	ctx := context.Background() // a context that ends would kill the connection
	for {
		kind, r, err := c.ws.Reader(ctx)
		if err != nil {
			return err
		}
		frame, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
		if err != nil {
			return err
		}
		c.alive()
		switch {
		case len(frame) > maxPayload:
			c.end(CodeTooLarge, "frame too large", false)
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
		case kind != websocket.MessageText:
			c.end(CodeMalformed, "not a text frame", false)
		default:
			c.executeAll(frame)
		}
	}
}

func (c *conn) executeAll(frame []byte) {
	objects, ok := lines(frame)
	if !ok {
		c.end(CodeMalformed, "not UTF-8", false)
		return
	}
	for _, line := range objects {
		if !c.execute(line) {
			return
		}
	}
}

// writeFrame is the outbox's.
func (c *conn) writeFrame(frame []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, frame)
}

// queue queues an object for the client, who is too slow if there is no room.
func (c *conn) queue(line []byte) {
	err := c.out.put(line)
	if errors.Is(err, errOverflow) {
		c.end(CodeSlowConsumer, "too slow", true)
		return
	}
	if err == nil {
		c.server.metrics.sent.Inc()
	}
}

// reply queues an answer, which goes out even when the connection is ending.
func (c *conn) reply(object any) {
	line, err := encode(object)
	if err != nil {
		c.server.log.Error("reply not sent", "error", err)
		return
	}
	c.queue(line)
}

// end closes the connection with a code, once: after the answer to the command
// that is being executed, and, unless discard is set, after everything that
// waits is written. It returns at once.
func (c *conn) end(code websocket.StatusCode, reason string, discard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.ending = true
	c.server.metrics.closes.WithLabelValues(strconv.Itoa(int(code))).Inc()
	c.tasks.Go(func() { c.finish(code, reason, discard) })
}

func (c *conn) finish(code websocket.StatusCode, reason string, discard bool) {
	if discard {
		c.out.seal(true)
	}
	c.commands.Lock()   // from here on, no command is executed: see execute
	c.commands.Unlock() //nolint:staticcheck // SA2001: it waits for the one at work
	c.out.seal(discard)
	late := time.NewTimer(flushTimeout)
	defer late.Stop()
	<-c.ready
	if c.ws == nil {
		return // it did not become a WebSocket
	}
	select {
	case <-c.out.drained():
		_ = c.ws.Close(code, reason) // waits a few seconds for the client's own close
	case <-late.C:
		_ = c.ws.CloseNow()
	}
}

// isEnding says whether nothing more is to be taken or told.
func (c *conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// after replaces the connection's one timer.
func (c *conn) after(d time.Duration, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.ending {
		return
	}
	c.timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		if c.dead {
			c.mu.Unlock()
			return
		}
		c.tasks.Add(1)
		c.mu.Unlock()
		defer c.tasks.Done()
		f()
	})
}

// alive notes that the client was heard of.
func (c *conn) alive() { c.lastSign.Store(c.server.now().UnixNano()) }

// ping asks for a sign of life, unless there was one lately, and ends the
// connection if there is none.
func (c *conn) ping() {
	options := c.server.options
	silent := c.server.now().Sub(time.Unix(0, c.lastSign.Load()))
	if silent >= options.PingInterval {
		ctx, cancel := context.WithTimeout(context.Background(), options.PingTimeout)
		err := c.ws.Ping(ctx)
		cancel()
		if err != nil {
			c.end(CodePingTimeout, "no answer to ping", true)
			return
		}
		silent = 0
	}
	c.after(options.PingInterval-silent, c.ping)
}

// Deliver implements hub.Wire.
func (c *conn) Deliver(items []messaging.Item) {
	for _, item := range items {
		if c.isEnding() {
			return
		}
		c.queue(encodeEvent(string(item.Kind), messaging.EncodeCursor(item.UserID, item.Offset), item.Payload))
	}
}

// Signal implements hub.Wire.
func (c *conn) Signal(signal messaging.Signal) {
	if c.isEnding() {
		return
	}
	if !c.out.roomy() {
		c.server.metrics.dropped.Inc()
		return
	}
	c.queue(encodeEvent(string(signal.Kind), "", signal.Payload))
}

// Room implements hub.Wire.
func (c *conn) Room(ctx context.Context) error {
	if c.isEnding() {
		return errSealed
	}
	return c.out.waitRoom(ctx)
}

// Move implements hub.Wire.
func (c *conn) Move(after, deadline time.Duration) {
	if !c.isEnding() {
		c.reply(reconnect{Op: "reconnect", AfterMS: after.Milliseconds(), DeadlineMS: deadline.Milliseconds()})
	}
}

// SessionEnded implements hub.Wire.
func (c *conn) SessionEnded(payload json.RawMessage) {
	if !c.isEnding() {
		c.queue(encodeEvent(string(messaging.KindSession), "", payload))
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
