package wsconn

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// socket is what the library takes for the network.
type socket struct {
	net.Conn
	conn *Conn
}

// errSilent is what the library reads where a message would begin, and the peer
// has sent nothing yet.
var errSilent = errors.New("the peer is silent")

// Read gives the library what was read of the network. Within a message it
// waits, for as long as a message may take.
func (s *socket) Read(p []byte) (int, error) {
	c := s.conn
	if c.in.len() == 0 {
		if c.in.between {
			return 0, errSilent
		}
		if !c.in.timed {
			c.limitReading(c.group.options.MessageTimeout)
		}
		if err := c.fill(true); err != nil {
			return 0, err
		}
	}
	c.in.between = false
	return c.in.take(p), nil
}

// Write takes frames, to be written soon.
func (s *socket) Write(p []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.framed == nil {
		c.framed = newBuffer()
	}
	c.framed.b = append(c.framed.b, p...)
	c.kick()
	return len(p), nil
}

// Close closes the connection when the last frames are written. It does not
// wait for that.
func (s *socket) Close() error {
	c := s.conn
	c.mu.Lock()
	c.beginClosing()
	c.shut = true
	mine := !c.writing
	c.writing = true
	c.mu.Unlock()
	if mine {
		c.flush()
	}
	return nil
}

// inputSize is what is read at a time.
const inputSize = 4 << 10

var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

// input is what was read of a connection and is not handled yet.
type input struct {
	frames   *bufio.Reader // the library's, filled by the socket
	buf      []byte        // nil while nothing waits
	from, to int

	within  bool  // a message, or the closing handshake, is under way
	between bool  // outside of both, a frame is complete, and the next one has not begun
	timed   bool  // reading has a deadline
	failed  error // why reading the network failed

	known   bool // to the poller
	drained bool // the last read took all that was there, and the poller will tell of more

	try  func(fd uintptr) bool // Conn.readable, bound once
	wait bool                  // what it does when there is nothing, and its results:
	n    int
	err  error
}

func (in *input) len() int { return in.to - in.from }

func (in *input) take(p []byte) int {
	n := copy(p, in.buf[in.from:in.to])
	in.from += n
	return n
}

// space is where the network is read into, once all is taken.
func (in *input) space() []byte {
	if in.buf == nil {
		in.buf = inputs.Get().(*[inputSize]byte)[:] //nolint:errcheck,forcetypeassert // the pool holds nothing else
	}
	in.from, in.to = 0, 0
	return in.buf
}

func (in *input) release() {
	if len(in.buf) == inputSize {
		inputs.Put((*[inputSize]byte)(in.buf))
	}
	in.buf, in.from, in.to = nil, 0, 0
}

// fill reads from the network; if there is nothing, it waits, or says
// syscall.EAGAIN.
func (c *Conn) fill(wait bool) error {
	in := &c.in
	var n int
	var err error
	if c.raw == nil {
		n, err = c.socket.Conn.Read(in.space())
	} else {
		in.wait = wait
		if err = c.raw.Read(in.try); err == nil {
			n, err = in.n, in.err
		}
	}
	switch {
	case n > 0:
		in.to, in.drained = n, n < len(in.buf) && !c.hungUp.Load()
		c.lastRead.Store(time.Now().UnixNano())
		return nil
	case errors.Is(err, syscall.EAGAIN):
		return err //nolint:wrapcheck // for ourselves
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // to the library, EOF is the end of a message as well
	}
	in.failed = err
	return err //nolint:wrapcheck // for ourselves
}

// readable reads what is there; false waits until there is something. A
// connection that has to wait keeps no buffer.
func (c *Conn) readable(fd uintptr) bool {
	in := &c.in
	for {
		in.n, in.err = syscall.Read(int(fd), in.space())
		switch {
		case errors.Is(in.err, syscall.EINTR):
			continue
		case errors.Is(in.err, syscall.EAGAIN):
			in.release()
			return !in.wait
		}
		return true
	}
}

// limitReading gives the peer a time to send what is awaited; zero: any time. A
// connection that is closing has its own.
func (c *Conn) limitReading(d time.Duration) {
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	c.in.timed = d > 0
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		_ = c.socket.SetReadDeadline(deadline) // fails on what is closed
	}
}
