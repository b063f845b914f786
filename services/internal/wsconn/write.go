package wsconn

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

const (
	// maxJoined is how large a message becomes by joining; text that is larger is
	// a message by itself.
	maxJoined = 32 << 10
	// keptBuffer bounds the buffers that are reused.
	keptBuffer = 64 << 10
	// slowChunk is written at a time where the kernel makes us wait, so that the
	// deadline is one for progress.
	slowChunk = 32 << 10
)

// buffer holds messages, or the frames of messages.
type buffer struct {
	b        []byte
	messages []message // that are in b, unless they are framed
	size     int       // bytes of payload
}

type message struct {
	kind  Kind
	joins bool // with more text
	end   int  // in the buffer
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 1024)} }}

func newBuffer() *buffer {
	return buffers.Get().(*buffer) //nolint:errcheck,forcetypeassert // the pool holds nothing else
}

func (b *buffer) release() {
	if cap(b.b) <= keptBuffer {
		b.b, b.messages, b.size = b.b[:0], b.messages[:0], 0
		buffers.Put(b)
	}
}

// add adds a message, or joins it with the last one.
func (b *buffer) add(kind Kind, join bool, parts [][]byte, size int) {
	start := 0
	if n := len(b.messages); n > 1 {
		start = b.messages[n-2].end
	}
	for _, p := range parts {
		b.b = append(b.b, p...)
	}
	b.size += size
	if n := len(b.messages); n > 0 && join && b.messages[n-1].joins && len(b.b)-start <= maxJoined {
		b.messages[n-1].end = len(b.b)
		return
	}
	b.messages = append(b.messages, message{kind: kind, joins: join, end: len(b.b)})
}

// enqueue queues a message.
func (c *Conn) enqueue(kind Kind, u Urgency, join bool, parts [][]byte) error {
	size := sizeOf(parts)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reserve(size); err != nil {
		return err
	}
	c.waiting.add(kind, join, parts, size)
	if !c.hold(u) {
		c.kick()
	}
	return nil
}

func (c *Conn) enqueueAll(messages []Message) error {
	size := 0
	for _, m := range messages {
		size += sizeOf(m.Parts)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reserve(size); err != nil {
		return err
	}
	for _, m := range messages {
		c.waiting.add(m.Kind, false, m.Parts, sizeOf(m.Parts))
	}
	c.kick()
	return nil
}

// sizeOf is how much a message counts. An empty one takes memory, too.
func sizeOf(parts [][]byte) (size int) {
	for _, p := range parts {
		size += len(p)
	}
	return max(size, 1)
}

// reserve counts payload that is going to wait, or refuses it; under mu.
func (c *Conn) reserve(size int) error {
	if c.closing {
		return ErrClosed
	}
	if c.queued > 0 && c.queued+size > c.group.options.MaxQueued {
		return ErrOverflow
	}
	if c.waiting == nil {
		c.waiting = newBuffer()
	}
	c.queued += size
	c.group.queued.Add(int64(size))
	return nil
}

// kick has a flusher write what waits, unless someone is going to; under mu.
func (c *Conn) kick() {
	if c.claim() {
		c.group.push(c)
	}
}

// claim says whether the caller has to write; under mu.
func (c *Conn) claim() bool {
	if c.writing || c.corked || c.waiting == nil && c.framed == nil {
		return false
	}
	c.writing = true
	return true
}

// Cork keeps what is queued until Uncork, or until the message is handled. Only its
// handler calls it.
func (c *Conn) Cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// Uncork writes what was queued while a message is being handled. Handlers that
// are going to wait call it first, and Cork afterwards: what comes from elsewhere would
// wait, too.
func (c *Conn) Uncork() {
	c.mu.Lock()
	c.corked = false
	claimed := c.claim()
	c.mu.Unlock()
	if claimed {
		c.flush()
	}
}

// take frames what waits, and takes all frames, to write them; nil ends the
// writing. Only whoever set writing calls it.
func (c *Conn) take() *buffer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting != nil || c.framed != nil {
		if c.waiting != nil {
			c.frame()
		}
		if b := c.framed; b != nil {
			c.framed = nil
			return b
		}
	}
	c.writing = false
	if c.shut {
		_ = c.socket.Conn.Close() // the worker ends, too
	}
	c.notify()
	return nil
}

// frame has the library frame what waits; it needs mu, and leaves it meanwhile.
func (c *Conn) frame() {
	b := c.waiting
	c.waiting, c.held = nil, 0
	c.mu.Unlock()
	start := 0
	for _, m := range b.messages {
		if c.ws.Write(context.Background(), m.kind, b.b[start:m.end]) != nil {
			break // a close frame went before; nobody waits for the rest
		}
		start = m.end
	}
	c.mu.Lock()
	if c.framed != nil {
		c.framed.size += b.size
	} else {
		c.settle(b.size)
	}
	b.release()
}

// settle counts payload as written, or as lost; under mu.
func (c *Conn) settle(size int) {
	c.queued -= size
	c.group.queued.Add(-int64(size))
	if c.hasRoom() {
		c.notify()
	}
}

func (c *Conn) written(b *buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(b.size)
	b.release()
}

// flush writes what waits, without blocking. Only whoever set writing calls it.
func (c *Conn) flush() {
	for b := c.take(); b != nil; b = c.take() {
		n, err := c.tryWrite(b.b)
		if err == nil && n < len(b.b) {
			c.group.running.Go(func() { c.flushSlowly(b, n) })
			return
		}
		if err != nil {
			c.Abort()
		}
		c.written(b)
	}
}

// flushSlowly writes the rest of a buffer, and then what waits, as the peer
// takes it.
func (c *Conn) flushSlowly(b *buffer, n int) {
	for ; b != nil; b, n = c.take(), 0 {
		for n < len(b.b) {
			c.limitWriting(time.Now().Add(c.group.options.WriteTimeout))
			wrote, err := c.socket.Conn.Write(b.b[n:min(n+slowChunk, len(b.b))])
			if n += wrote; err != nil {
				c.Abort()
				break
			}
		}
		c.limitWriting(time.Time{})
		c.written(b)
	}
}

// limitWriting sets the deadline of what is being written. A connection that is
// closing has its own.
func (c *Conn) limitWriting(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		_ = c.socket.SetWriteDeadline(deadline) // fails on what is closed
	}
}

// attempt is a write that does not block.
type attempt struct {
	b   []byte
	n   int
	err error
	try func(fd uintptr) bool // do, bound once
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.try = a.do
	return a
}}

func (a *attempt) do(fd uintptr) bool {
	for {
		a.n, a.err = syscall.Write(int(fd), a.b)
		if !errors.Is(a.err, syscall.EINTR) {
			return true // not even EAGAIN makes us wait
		}
	}
}

// tryWrite gives the kernel what it takes at once.
func (c *Conn) tryWrite(b []byte) (int, error) {
	if c.raw == nil {
		return 0, nil
	}
	a := attempts.Get().(*attempt) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	a.b = b
	err := c.raw.Write(a.try)
	n, writeErr := a.n, a.err
	a.b, a.n, a.err = nil, 0, nil
	attempts.Put(a)
	switch {
	case err != nil:
		return 0, err
	case errors.Is(writeErr, syscall.EAGAIN):
		return 0, nil
	case writeErr != nil:
		return 0, writeErr
	default:
		return n, nil
	}
}
