package wsconn

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/marketplane/marketplane/services/internal/budget"
)

// errClosing ends the reading of messages.
var errClosing = errors.New("the connection is closing")

// serve handles what the peer sends until it is silent, or the connection is
// gone. It runs on one worker at a time.
func (c *Conn) serve() {
	c.in.drained = false
	if err := c.readMessages(); err != nil {
		c.end(c.finish(err))
	}
}

// readMessages handles messages until the connection rests, which is no error, or
// it is closing, or broken, or the peer breaks the rules.
func (c *Conn) readMessages() error {
	for {
		if c.isClosing() {
			return errClosing
		}
		if c.in.frames.Buffered() == 0 && c.in.len() == 0 {
			if resting, err := c.more(); err != nil || resting {
				return err
			}
			continue
		}
		pause, err := c.receive()
		if err != nil {
			return err
		}
		if pause != nil {
			c.await(pause, func() bool { return c.closing })
		}
	}
}

// more reads on, or lets the connection rest until there is more to read.
func (c *Conn) more() (resting bool, err error) {
	if !c.watched() {
		return false, c.fill(true)
	}
	if !c.in.drained {
		if err := c.fill(false); !errors.Is(err, syscall.EAGAIN) {
			return false, err
		}
	}
	return c.rest()
}

// watched says whether somebody else waits for the peer.
func (c *Conn) watched() bool { return c.raw != nil && c.group.poller != nil }

// rest gives the connection into the poller's hands, unless it is closing, or the
// poller has told of more.
func (c *Conn) rest() (resting bool, err error) {
	c.in.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing { // as all that are closed, to whom the file descriptor belongs no more
		return false, nil
	}
	if c.stirred {
		c.stirred, c.in.drained = false, false
		return false, nil
	}
	if !c.in.known {
		c.in.known = true
		if err := c.group.poller.Watch(c.fd, c); err != nil {
			c.in.failed = err
			return false, err
		}
	}
	c.resting = true
	return true, nil
}

// wake is called when there is something to read.
func (c *Conn) wake(hungUp bool) {
	if hungUp {
		c.hungUp.Store(true)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stirred = !c.resting
	c.disturb()
}

// disturb has a worker serve a connection that rests; under mu.
func (c *Conn) disturb() {
	if c.resting {
		c.resting = false
		c.group.workers.Do(c)
	}
}

// receive handles at most one message. It returns when there is nothing to read
// where a message would begin.
func (c *Conn) receive() (pause <-chan struct{}, err error) {
	defer func() {
		c.in.within, c.in.between = false, false
		if c.in.timed {
			c.limitReading(0)
		}
	}()
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		if errors.Is(err, errSilent) {
			return nil, nil
		}
		return nil, err //nolint:wrapcheck // for ourselves
	}
	c.in.within = true
	message, hold := newBuffer(), c.group.options.Reading.Hold(HeldFreely)
	defer hold.Release()
	defer message.release()
	switch err := message.read(r, c.maxMessage(), &hold); {
	case errors.Is(err, errTooLarge):
		c.handler.TooLarge()
		return make(chan struct{}), nil // until it is closing
	case errors.Is(err, errTooMuch):
		c.Close(int(websocket.StatusTryAgainLater), errTooMuch.Error())
		return nil, nil
	case err != nil:
		return nil, err
	}
	if c.isClosing() {
		return nil, nil
	}
	c.Cork()
	defer c.Uncork()
	return c.handler.Message(kind, message.b), nil
}

// onPing and onPong are told of complete frames.

func (c *Conn) onPing(context.Context, []byte) (answer bool) {
	c.endFrame()
	c.mu.Lock()
	defer c.mu.Unlock()
	// A peer that makes us answer, and does not read, is bounded like every other.
	return c.framed == nil || len(c.framed.b) < c.group.options.MaxQueued
}

func (c *Conn) onPong(context.Context, []byte) { c.endFrame() }

// endFrame notes the end of a frame that is no message's; messages may have such
// frames between theirs.
func (c *Conn) endFrame() {
	c.in.between = !c.in.within && c.in.frames.Buffered() == 0
}

// finish closes the connection in the way in which its reading ended.
func (c *Conn) finish(err error) Closure {
	if code := websocket.CloseStatus(err); code >= 0 {
		return Closure{Code: int(code), ByPeer: true} // the library has answered, and closed
	}
	c.mu.Lock()
	closure, reason := Closure{Code: c.code}, c.reason
	violation := !c.closing && c.in.failed == nil
	if violation {
		// The library has said so to the peer, in most cases.
		closure, reason = Closure{Code: int(websocket.StatusProtocolError), Err: err}, "protocol error"
		c.beginClosing()
	}
	c.mu.Unlock()
	switch {
	case violation:
		_ = c.shakeHands(closure.Code, reason) // the violation is what broke it
	case closure.Code != 0:
		c.await(nil, func() bool { return !c.writing && c.waiting == nil && c.framed == nil })
		closure.Err = c.shakeHands(closure.Code, reason)
	default:
		closure.Err = err
		c.Abort()
		_ = c.ws.CloseNow() // as it is aborted
	}
	return closure
}

// shakeHands is the closing handshake; on what the peer sends before it answers,
// the error is nil.
func (c *Conn) shakeHands(code int, reason string) error {
	c.in.within, c.in.timed, c.in.failed = true, true, nil
	_ = c.socket.SetReadDeadline(time.Now().Add(c.group.options.CloseTimeout)) // fails on what is closed
	err := c.ws.Close(websocket.StatusCode(code), reason)
	if c.in.failed != nil {
		return c.in.failed
	}
	if websocket.CloseStatus(err) >= 0 { // the peer's choice
		return nil
	}
	return err //nolint:wrapcheck // for ourselves
}

// end is the last act.
func (c *Conn) end(closure Closure) {
	c.in.release()
	if c.in.known {
		c.group.poller.Forget(c.fd, c)
	}
	c.Discard()
	c.handler.Closed(closure)
	c.group.running.Done()
}

var (
	errTooLarge = errors.New("the message is too large")
	errTooMuch  = errors.New("too many large messages at once")
)

// HeldFreely is how large a message may be that does not count for Options.Reading.
const HeldFreely = 4 << 10

// read reads a message, in capacity that is held.
func (b *buffer) read(r io.Reader, most int, hold *budget.Hold) error {
	if !hold.Grow(cap(b.b)) { // it was used before, for a large message
		b.b = make([]byte, 0, HeldFreely)
	}
	for {
		if len(b.b) == cap(b.b) {
			if b.b = append(b.b, 0)[:len(b.b)]; !hold.Grow(cap(b.b)) {
				return errTooMuch
			}
		}
		n, err := r.Read(b.b[len(b.b):cap(b.b)])
		b.b = b.b[:len(b.b)+n]
		switch {
		case len(b.b) > most:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err //nolint:wrapcheck // for ourselves
		}
	}
}
