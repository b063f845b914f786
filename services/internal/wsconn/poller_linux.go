package wsconn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// poller watches silent connections (epoll(7)), so that they need no goroutine
// each. It waits in Go's own poller, which can watch a poller.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	done chan struct{}

	mu    sync.Mutex
	conns []*Conn // by their file descriptors
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	err = syscall.SetNonblock(fd, true) // or os would not poll it
	file := os.NewFile(uintptr(fd), "epoll")
	raw, rawErr := file.SyscallConn()
	if err := errors.Join(err, rawErr); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("poll for sockets: %w", err)
	}
	p := &poller{file: file, raw: raw, fd: fd, done: make(chan struct{})}
	go p.run()
	return p, nil
}

// stop ends the watching. Nothing is watched any more.
func (p *poller) stop() {
	_ = p.file.Close() // run ends
	<-p.done
}

// watch wakes the connection, once, when there is something to read, or the end
// of it. The first call for a connection says so.
func (p *poller) watch(c *Conn, first bool) error {
	op := syscall.EPOLL_CTL_MOD
	if first {
		op = syscall.EPOLL_CTL_ADD
		p.mu.Lock()
		for len(p.conns) <= int(c.fd) {
			p.conns = append(p.conns, nil)
		}
		p.conns[c.fd] = c
		p.mu.Unlock()
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: c.fd}
	if err := syscall.EpollCtl(p.fd, op, int(c.fd), &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// forget is called when a connection is closed, of which the kernel knows. Its
// file descriptor may be another one's by now.
func (p *poller) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(c.fd) < len(p.conns) && p.conns[c.fd] == c {
		p.conns[c.fd] = nil
	}
}

func (p *poller) run() {
	defer close(p.done)
	var events [128]syscall.EpollEvent
	var ready [len(events)]*Conn
	for {
		var n int
		var err error
		closed := p.raw.Read(func(fd uintptr) bool {
			n, err = syscall.EpollWait(int(fd), events[:], 0)
			return n != 0
		})
		if closed != nil {
			return
		}
		if err != nil {
			continue // EINTR
		}
		p.mu.Lock()
		for i, event := range events[:n] {
			ready[i] = p.conns[event.Fd]
		}
		p.mu.Unlock()
		for i, c := range ready[:n] {
			if c != nil { // a late word of one that is gone
				c.wake()
			}
			ready[i] = nil
		}
	}
}
