package load

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// loop waits for many sockets with epoll(7), in one thread. Its connections are
// only ever touched from there.
type loop struct {
	epoll  int
	events []syscall.EpollEvent
	// conns are by file descriptor, which the kernel keeps small.
	conns []*conn
	// scratch is what reads go into, of all connections.
	scratch []byte
	// broken is called when a connection ends that was not closed by us.
	broken func(*conn, error)
}

func newLoop(broken func(*conn, error)) (*loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &loop{
		epoll: epoll, broken: broken,
		events:  make([]syscall.EpollEvent, 1024),
		scratch: make([]byte, 256<<10),
	}, nil
}

func (l *loop) close() {
	for _, c := range l.conns {
		if c != nil {
			l.drop(c)
		}
	}
	_ = syscall.Close(l.epoll)
}

// open begins to connect to address, from a loopback address.
func (l *loop) open(c *conn, from [4]byte, to syscall.SockaddrInet4) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket (a process holds some 19,000; more need a higher limit of open files): %w", err)
	}
	// The port is chosen at connect, from all that are free towards the target.
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT of ip(7)
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from}),
	)
	if err == nil {
		if err = syscall.Connect(fd, &to); errors.Is(err, syscall.EINPROGRESS) {
			err = nil
		}
	}
	if err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("connect from %v: %w", from, err)
	}
	c.fd, c.writes = fd, true
	for fd >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
	return l.control(syscall.EPOLL_CTL_ADD, c)
}

// control tells the kernel what is wanted of a connection.
func (l *loop) control(operation int, c *conn) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)} //nolint:gosec // G115: the kernel gave it
	if c.writes {
		event.Events |= syscall.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(l.epoll, operation, c.fd, &event))
}

// drop closes a connection, without a word to its server.
func (l *loop) drop(c *conn) {
	if c.fd < 0 {
		return
	}
	l.conns[c.fd] = nil
	_ = syscall.Close(c.fd)
	c.fd, c.in, c.out, c.writes = -1, nil, nil, false
}

// fail drops a connection that went wrong.
func (l *loop) fail(c *conn, err error) {
	if c.fd >= 0 {
		l.drop(c)
		l.broken(c, err)
	}
}

// turn waits at most so long for something to happen, and handles it.
func (l *loop) turn(wait time.Duration) error {
	// Rounded up: to wait for less than a millisecond would be to wait busily.
	n, err := syscall.EpollWait(l.epoll, l.events, int((wait+time.Millisecond-1)/time.Millisecond))
	if errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, event := range l.events[:n] {
		c := l.conns[event.Fd]
		if c == nil {
			continue
		}
		if event.Events&syscall.EPOLLOUT != 0 {
			l.writable(c)
		}
		if c.fd >= 0 && event.Events&^syscall.EPOLLOUT != 0 {
			l.readable(c)
		}
	}
	return nil
}

func (l *loop) readable(c *conn) {
	n, err := syscall.Read(c.fd, l.scratch)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return
	case err != nil:
		l.fail(c, os.NewSyscallError("read", err))
		return
	case n == 0:
		l.fail(c, errors.New("the server closed the connection"))
		return
	}
	data := l.scratch[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	rest, err := c.receive(data)
	if err != nil {
		l.fail(c, err)
		return
	}
	switch {
	case c.fd < 0: // dropped meanwhile
	case len(rest) == 0:
		c.in = nil
	default:
		c.in = append([]byte(nil), rest...)
	}
}

// write sends data, and keeps what the kernel does not take yet.
func (l *loop) write(c *conn, data []byte) {
	if c.fd < 0 {
		return
	}
	if len(c.out) > 0 || !c.connected {
		c.out = append(c.out, data...)
		return
	}
	n, err := syscall.Write(c.fd, data)
	if err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
		l.fail(c, os.NewSyscallError("write", err))
		return
	}
	if n = max(n, 0); n < len(data) {
		c.out = append(c.out, data[n:]...)
		l.wantWrites(c, true)
	}
}

func (l *loop) writable(c *conn) {
	if !c.connected {
		if code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || code != 0 {
			l.fail(c, fmt.Errorf("connect: %w", errors.Join(err, syscall.Errno(code))))
			return
		}
		c.connected = true
	}
	n, err := syscall.Write(c.fd, c.out)
	if err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR) {
		l.fail(c, os.NewSyscallError("write", err))
		return
	}
	if c.out = c.out[max(n, 0):]; len(c.out) == 0 {
		c.out = nil
		l.wantWrites(c, false)
	}
}

func (l *loop) wantWrites(c *conn, want bool) {
	if c.writes == want {
		return
	}
	c.writes = want
	if err := l.control(syscall.EPOLL_CTL_MOD, c); err != nil {
		l.fail(c, err)
	}
}
