package engineio

import (
	"errors"
	"time"
)

// The server asks for a sign of life, as browsers slow down the timers of pages
// that nobody sees (section "Heartbeat").

var errNoPong = errors.New("the client has not answered a ping in time")

// now is the server's clock.
func (s *Server) now() time.Duration { return time.Since(s.epoch) }

// schedule has the timer fire after d; under mu.
func (c *Conn) schedule(d time.Duration) {
	c.due = c.server.now() + d
	c.server.wheel.Schedule(&c.timer, d)
}

// tick is the timer's.
func (c *Conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat()
}

// beat does what is due; under mu. It is called before a client's request is looked
// at, as well: the timer may be late.
func (c *Conn) beat() {
	if c.server.now() < c.due {
		return // it fired while it was being scheduled anew
	}
	options := c.server.options
	switch {
	case c.state == stateEnded:
		if c.polling != nil {
			c.polling.left = false
		}
		c.server.forget(c)
	case c.state == stateClosing && c.socket != nil: // which has a time of its own
	case c.state == stateClosing:
		c.end(c.reason, nil)
	case !c.awaiting:
		if c.control(packetPing) != nil {
			c.schedule(options.PingTimeout / 10) // the queue is full, and what is stuck has a time of its own
			return
		}
		c.awaiting, c.extended = true, false
		late := c.server.now() - c.due
		c.schedule(max(options.PingTimeout-late, options.PingTimeout/2))
	case c.paused():
		// The client has to hear of us, or gives up, whatever it may answer.
		if c.socket != nil || len(c.polling.queue) == 0 {
			_ = c.control(packetPing) // the next one comes soon
		}
		c.schedule(options.PingInterval)
	case !c.extended && time.Since(c.heard()) < options.PingTimeout:
		c.extended = true // the pong may stand behind something large
		c.schedule(options.PingTimeout)
	default:
		c.endWith(PingTimeout, errNoPong, closePolicy, string(PingTimeout))
	}
}

// paused says whether the handler keeps us from hearing the client, or has done so
// since it was asked last: a pause may have ended just now. It needs mu.
func (c *Conn) paused() bool {
	if c.pause == nil {
		return false
	}
	select {
	case <-c.pause:
		c.pause = nil
	default:
	}
	return true
}

// pong is the answer.
func (c *Conn) pong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateOpen && c.awaiting {
		c.awaiting = false
		c.schedule(c.server.options.PingInterval)
	}
}
