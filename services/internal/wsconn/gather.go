package wsconn

import (
	"sync"
	"time"
)

// Urgency says for how long text may wait for more, to share a frame and a system
// call with it. What comes first after a while never waits: an urgency bounds how
// often a connection is written to, and so what a busy one costs.
type Urgency uint8

const (
	// Now is for text that does not wait.
	Now Urgency = iota
	// Soon is for text that is written Options.Soon after the last of its urgency.
	Soon
	// Later is for text that is written Options.Later after the last of its urgency.
	Later
	urgencies
)

func (u Urgency) bit() uint8 { return 1 << u }

// gather holds the connections to which text of one urgency was written lately:
// what comes next for them waits until the round is over.
type gather struct {
	urgency Urgency
	within  time.Duration

	mu    sync.Mutex
	conns []*Conn
	spare []*Conn // the list of the round before, empty
	timer *time.Timer
	ended bool
}

// add is called under the connection's mu.
func (g *gather) add(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	if g.conns = append(g.conns, c); len(g.conns) > 1 {
		return // a round is under way
	}
	if g.timer == nil {
		g.timer = time.AfterFunc(g.within, g.round)
	} else {
		g.timer.Reset(g.within)
	}
}

// round ends a round. Who had to wait is in the next one.
func (g *gather) round() {
	g.mu.Lock()
	conns := g.conns
	g.conns, g.spare = g.spare, nil
	g.mu.Unlock()
	for _, c := range conns {
		c.release(g.urgency)
	}
	clear(conns)
	g.mu.Lock()
	g.spare = conns[:0]
	g.mu.Unlock()
}

// end ends the last round. No connection is left that would be written to.
func (g *gather) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// hold says whether text that was just queued waits for its round; under mu.
func (c *Conn) hold(u Urgency) bool {
	switch {
	case u == Now:
		return false
	case c.lately&u.bit() != 0:
		c.held |= u.bit()
		return true
	}
	c.lately |= u.bit()
	c.group.gathers[u].add(c)
	return false
}

// release ends a connection's round, and has written what waited for that.
func (c *Conn) release(u Urgency) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held&u.bit() == 0 {
		c.lately &^= u.bit()
		return
	}
	c.group.gathers[u].add(c)
	c.kick()
}
