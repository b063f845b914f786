package wsapi

import (
	"context"
	"errors"
	"sync"
)

// outbox holds the objects that wait for a client, and writes them: several in
// one frame, by a goroutine that lives only while there is something to write.
type outbox struct {
	limit int // bytes that may wait
	write func(frame []byte) error

	mu      sync.Mutex
	lines   [][]byte
	size    int
	writing bool          // a writer is at work
	sealed  bool          // takes nothing more
	idle    chan struct{} // closed when the writer is done; nil while nobody waits
	room    chan struct{} // closed when half is free; nil while nobody waits
	wg      sync.WaitGroup
}

// maxFrame is how many bytes of objects are put into one frame; an object that
// is larger is a frame by itself.
const maxFrame = 32 << 10

var (
	errOverflow = errors.New("too much waits for the client")
	errSealed   = errors.New("the connection has ended")
)

// put queues an object. Nothing is queued that would go over the limit, unless
// nothing else waits.
func (o *outbox) put(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return errSealed
	}
	if o.size > 0 && o.size+len(line) > o.limit {
		return errOverflow
	}
	o.lines = append(o.lines, line)
	o.size += len(line)
	if !o.writing {
		o.writing = true
		o.wg.Go(o.flush)
	}
	return nil
}

// roomy says whether less than half of the limit waits.
func (o *outbox) roomy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size <= o.limit/2
}

// waitRoom waits until less than half of the limit waits.
func (o *outbox) waitRoom(ctx context.Context) error {
	o.mu.Lock()
	if o.sealed {
		o.mu.Unlock()
		return errSealed
	}
	if o.size <= o.limit/2 {
		o.mu.Unlock()
		return nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	room := o.room
	o.mu.Unlock()
	select {
	case <-room:
		return o.waitRoom(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *outbox) flush() {
	for {
		frame := o.next()
		if frame == nil {
			return
		}
		if err := o.write(frame); err != nil {
			o.seal(true)
		}
	}
}

// next takes a frame's worth of objects; nil ends the writer.
func (o *outbox) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 {
		o.lines, o.writing = nil, false
		if o.idle != nil {
			close(o.idle)
			o.idle = nil
		}
		return nil
	}
	n, size := 1, len(o.lines[0])
	for n < len(o.lines) && size+len(o.lines[n]) <= maxFrame {
		size += len(o.lines[n])
		n++
	}
	frame := o.lines[0]
	if n > 1 {
		frame = make([]byte, 0, size)
		for _, line := range o.lines[:n] {
			frame = append(frame, line...)
		}
	}
	clear(o.lines[:n])
	o.lines = o.lines[n:]
	o.size -= size
	if o.size <= o.limit/2 {
		o.wakeRoom()
	}
	return frame
}

func (o *outbox) wakeRoom() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// seal lets nothing more in; discard throws away what waits, too.
func (o *outbox) seal(discard bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	if discard {
		o.lines, o.size = nil, 0
	}
	o.wakeRoom()
}

// drained is closed when nothing waits and nothing is being written.
func (o *outbox) drained() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing {
		done := make(chan struct{})
		close(done)
		return done
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	return o.idle
}
