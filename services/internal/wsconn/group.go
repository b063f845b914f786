package wsconn

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/internal/poller"
	"github.com/marketplane/marketplane/services/internal/workers"
)

// Options bound the connections of a Group. Zero values mean the defaults.
type Options struct {
	// MaxMessage is how large a message from the peer may be: 64 KiB.
	MaxMessage int
	// Reading is what messages are held in while they come and are handled, as far as
	// they are larger than 4 KiB: 64 MiB for all connections. Who finds nothing left is
	// closed, to try again later (1013).
	Reading *budget.Budget
	// MaxQueued is how many bytes may wait for a peer: 256 KiB. The kernel may
	// hold as much, about.
	MaxQueued int
	// Soon and Later are how often text of these urgencies is written: every 25 ms
	// and every 200 ms.
	Soon, Later time.Duration
	// WriteTimeout is for how long a peer may take nothing of what waits: 10 s.
	WriteTimeout time.Duration
	// MessageTimeout is how long a message may take from its first byte to its
	// last: 30 s.
	MessageTimeout time.Duration
	// CloseTimeout is how long a peer may take to answer a close frame: 5 s, which
	// is the library's bound, too. What waits before it must be written within
	// WriteTimeout and this.
	CloseTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.MaxMessage == 0 {
		o.MaxMessage = 64 << 10
	}
	if o.Reading == nil {
		o.Reading = budget.New(64 << 20)
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = 256 << 10
	}
	if o.Soon == 0 {
		o.Soon = 25 * time.Millisecond
	}
	if o.Later == 0 {
		o.Later = 200 * time.Millisecond
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 10 * time.Second
	}
	if o.MessageTimeout == 0 {
		o.MessageTimeout = 30 * time.Second
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = 5 * time.Second
	}
	return o
}

// maxIdle is how many workers are kept for later.
const maxIdle = 64

// Group is what connections share: bounds, flushers and workers. Start it before
// it accepts.
type Group struct {
	options Options
	queued  atomic.Int64
	running sync.WaitGroup       // connections, flushers and pings
	poller  *poller.Poller[Conn] // nil where there is none

	workers *workers.Pool[*Conn] // what one waits for is bounded by its own connection alone
	once    sync.Once

	mu          sync.Mutex
	first, last *Conn // those with something to write, in their order
	flushers    int

	gathers [urgencies]gather
}

// NewGroup makes a group.
func NewGroup(options Options) *Group {
	options = options.withDefaults()
	g := &Group{options: options, workers: workers.New(maxIdle, (*Conn).serve)}
	for u, within := range map[Urgency]time.Duration{Soon: options.Soon, Later: options.Later} {
		g.gathers[u].urgency, g.gathers[u].within = u, within
	}
	return g
}

// Start begins to watch for what peers send.
func (g *Group) Start() (err error) {
	g.poller, err = poller.New((*Conn).wake)
	return err
}

// Queued is how many bytes wait for peers.
func (g *Group) Queued() int64 { return g.queued.Load() }

// Wait returns when every connection is gone, and everything is stopped. Accept
// must not be called any more.
func (g *Group) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		g.once.Do(func() {
			g.workers.Stop()
			g.running.Wait()
			g.workers.Wait()
			for i := range g.gathers {
				g.gathers[i].end()
			}
			if g.poller != nil {
				g.poller.Stop()
			}
		})
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// push hands a connection to a flusher. Its writing is set, so it is in the
// list once.
func (g *Group) push(c *Conn) {
	g.mu.Lock()
	if g.last == nil {
		g.first = c
	} else {
		g.last.next = c
	}
	g.last = c
	more := g.flushers < runtime.GOMAXPROCS(0)
	if more {
		g.flushers++
	}
	g.mu.Unlock()
	if more {
		g.running.Go(g.flush)
	}
}

// flush writes until no connection is left in the list.
func (g *Group) flush() {
	for {
		g.mu.Lock()
		c := g.first
		if c == nil {
			g.flushers--
			g.mu.Unlock()
			return
		}
		if g.first = c.next; g.first == nil {
			g.last = nil
		}
		c.next = nil
		g.mu.Unlock()
		c.flush()
	}
}
