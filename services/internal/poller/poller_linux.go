package poller

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Poller watches (epoll(7)). It waits in Go's own poller, which can watch a
// poller. T is what the program has for a connection.
type Poller[T any] struct {
	wake func(*T)
	file *os.File
	raw  syscall.RawConn
	fd   int
	done chan struct{}

	mu    sync.Mutex
	conns []*T // by their file descriptors
}

// New makes a poller, or nil where there is none. wake is called from one
// goroutine; it must not block, and may hear late of a connection that nobody
// watches any more.
func New[T any](wake func(*T)) (*Poller[T], error) {
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
	p := &Poller[T]{wake: wake, file: file, raw: raw, fd: fd, done: make(chan struct{})}
	go p.run()
	return p, nil
}

// Stop ends the watching. Nothing is watched any more.
func (p *Poller[T]) Stop() {
	_ = p.file.Close() // run ends
	<-p.done
}

// Watch wakes the connection with a file descriptor, once, when there is something
// to read, or the end of it. The first call for a connection says so. The caller
// sees to it that the connection is not closed at the same time.
func (p *Poller[T]) Watch(fd int32, c *T, first bool) error {
	op := syscall.EPOLL_CTL_MOD
	if first {
		op = syscall.EPOLL_CTL_ADD
		p.mu.Lock()
		for len(p.conns) <= int(fd) {
			p.conns = append(p.conns, nil)
		}
		p.conns[fd] = c
		p.mu.Unlock()
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: fd}
	if err := syscall.EpollCtl(p.fd, op, int(fd), &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// Forget is called when a connection is closed, of which the kernel knows. Its
// file descriptor may be another one's by now.
func (p *Poller[T]) Forget(fd int32, c *T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(fd) < len(p.conns) && p.conns[fd] == c {
		p.conns[fd] = nil
	}
}

func (p *Poller[T]) run() {
	defer close(p.done)
	var events [128]syscall.EpollEvent
	var ready [len(events)]*T
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
				p.wake(c)
			}
			ready[i] = nil
		}
	}
}
