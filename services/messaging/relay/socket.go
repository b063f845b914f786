package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// kernelBuffer bounds what the kernel holds for a client that takes nothing. It
// would be megabytes.
const kernelBuffer = 256 << 10

// socket is a forwarded WebSocket: what the one side says, the other is told. A
// side that has said its last has the other hear that, and go on for CloseTimeout.
type socket struct {
	relay         *Relay
	client, owner side

	mu     sync.Mutex
	closed bool
	linger *time.Timer // closes it
}

// side is a connection of a socket's. One goroutine at a time reads it, and writes
// to the other.
type side struct {
	socket *socket
	other  *side
	conn   net.Conn
	raw    syscall.RawConn // nil if the connection has no file descriptor
	fd     int32
	known  bool        // to the poller
	hungUp atomic.Bool // it has said its last, which may wait to be read

	resting bool // the poller waits, and nobody else; under the socket's mu
	stirred bool // it has said more since somebody began to copy; under the socket's mu
	ended   bool // its last was read; under the socket's mu
	told    bool // that nothing comes any more; under the socket's mu
}

// connect makes a socket of two connections, and what was read of them so far. The
// caller counts as running.
func (f *Relay) connect(client, owner net.Conn, fromClient, fromOwner []byte) {
	s := &socket{relay: f}
	s.client.init(s, &s.owner, client)
	s.owner.init(s, &s.client, owner)
	if tcp, ok := client.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(kernelBuffer) // it works without
	}
	if tcp, ok := owner.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(kernelBuffer) // as above
	}
	f.mu.Lock()
	f.sockets[s] = struct{}{}
	f.running.Add(1)
	stopping := f.stopping
	f.mu.Unlock()
	if s.client.write(fromOwner) != nil || s.owner.write(fromClient) != nil {
		s.close()
		return
	}
	for _, from := range []*side{&s.client, &s.owner} {
		s.rest(from)
	}
	if stopping {
		s.shut()
	}
}

func (d *side) init(s *socket, other *side, conn net.Conn) {
	d.socket, d.other, d.conn = s, other, conn
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			d.raw = raw
			_ = raw.Control(func(fd uintptr) { d.fd = int32(fd) }) //nolint:gosec // G115: it is one; on what is closed, nothing is read
		}
	}
}

// watched says whether somebody else waits for what a side says.
func (d *side) watched() bool { return d.raw != nil && d.socket.relay.poller != nil }

// wake is called when a side has said something.
func (d *side) wake(hungUp bool) {
	if hungUp {
		d.hungUp.Store(true)
	}
	s := d.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	d.stirred = !d.resting
	if d.resting && !s.closed {
		d.resting = false
		s.run(d)
	}
}

// run has a goroutine copy what a side says; under mu.
func (s *socket) run(from *side) {
	s.relay.running.Add(1)
	go func() {
		defer s.relay.running.Done()
		if s.copy(from) {
			s.rest(from)
		}
	}()
}

// copy copies until a side is silent, which is true, or the end. A side that takes
// nothing has the other wait.
func (s *socket) copy(from *side) (silent bool) {
	b := newBuffer()
	defer buffers.Put(b)
	for {
		n, err := from.read(b[:])
		switch {
		case n > 0:
			if from.other.write(b[:n]) != nil && !s.over(from.other) {
				s.close()
				return false
			}
			if n < len(b) && from.watched() && !from.hungUp.Load() {
				return true // the poller will tell of more
			}
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err == nil || errors.Is(err, io.EOF):
			s.end(from)
			return false
		default:
			s.close()
			return false
		}
	}
}

// rest gives a side into the poller's hands, unless that has told of more, or there is
// no poller.
func (s *socket) rest(from *side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // the file descriptor belongs to it no more
		return
	}
	if from.stirred || !from.watched() {
		from.stirred = false
		s.run(from)
		return
	}
	from.resting = true
	if from.known {
		return
	}
	from.known = true
	if err := s.relay.poller.Watch(from.fd, from); err != nil {
		go s.close() // which needs mu
	}
}

// read reads what is there. If there is nothing it says syscall.EAGAIN, or waits
// where nobody else does.
func (d *side) read(b []byte) (n int, err error) {
	if !d.watched() {
		return d.conn.Read(b) //nolint:wrapcheck // for ourselves
	}
	if broken := d.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = syscall.Read(int(fd), b); !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	}); broken != nil {
		return 0, broken //nolint:wrapcheck // for ourselves
	}
	return n, err //nolint:wrapcheck // for ourselves
}

// write gives bytes to the kernel. It waits for the kernel to take them, for
// WriteTimeout at most.
func (d *side) write(b []byte) error {
	if d.raw != nil {
		var n int
		if err := d.raw.Write(func(fd uintptr) bool {
			n, _ = syscall.Write(int(fd), b) // what failed fails again
			return true
		}); err != nil {
			return err //nolint:wrapcheck // for ourselves
		}
		b = b[max(n, 0):]
	}
	if len(b) == 0 {
		return nil
	}
	_ = d.conn.SetWriteDeadline(time.Now().Add(d.socket.relay.options.WriteTimeout)) // fails on what is closed
	_, err := d.conn.Write(b)
	_ = d.conn.SetWriteDeadline(time.Time{}) // as above
	return err                               //nolint:wrapcheck // for ourselves
}

// end is the end of what a side says.
func (s *socket) end(from *side) {
	s.mu.Lock()
	from.ended = true
	both := from.other.ended
	s.mu.Unlock()
	if both {
		s.close()
		return
	}
	s.finish(from.other)
}

// shut has the client hear that it is over. What it has said until then still goes
// to the owner, who hears the client's end.
func (s *socket) shut() { s.finish(&s.client) }

// over says whether nobody minds what a side is not told: it is gone, or was told
// that nothing comes. The other may have something to say or to hear still.
func (s *socket) over(d *side) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return d.ended || d.told
}

// finish says to a side that nothing comes any more, and closes the socket after a
// while.
func (s *socket) finish(d *side) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.linger == nil {
		s.linger = time.AfterFunc(s.relay.options.CloseTimeout, s.close)
	}
	d.told = true
	if half, ok := d.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it is being closed
	}
}

// close ends a socket at once.
func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.linger != nil {
		s.linger.Stop()
	}
	for _, d := range []*side{&s.client, &s.owner} {
		if d.known {
			s.relay.poller.Forget(d.fd, d)
		}
		_ = d.conn.Close() // nothing of it is needed
	}
	s.relay.forget(s)
}
