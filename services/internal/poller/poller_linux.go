package poller

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// edgeTriggered is EPOLLET, whose sign is wrong in syscall.
const edgeTriggered = 1 << 31

// Poller watches (epoll(7)). It waits in Go's own poller, which can watch a
// poller. T is what the program has for a connection.
type Poller[T any] struct {
	wake func(c *T, hungUp bool)
	file *os.File
	raw  syscall.RawConn
	fd   int
	done chan struct{}

	mu    sync.Mutex
	conns []*T // by their file descriptors
}

// New makes a poller, or nil where there is none. wake is told whether the peer has
// said its last, which may come together with other news, and is not told of again.
// It is called from one goroutine; it must not block, and may hear late of a
// connection that nobody watches any more.
func New[T any](wake func(c *T, hungUp bool)) (*Poller[T], error) {
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

// Watch wakes the connection with a file descriptor whenever something more is there
// to read, or the end of it; what is there already counts. It may be told of what it
// has read meanwhile. The caller sees to it that the connection is not closed at the
// same time.
func (p *Poller[T]) Watch(fd int32, c *T) error {
	p.mu.Lock()
	for len(p.conns) <= int(fd) {
		p.conns = append(p.conns, nil)
	}
	p.conns[fd] = c
	p.mu.Unlock()
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | edgeTriggered, Fd: fd}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, int(fd), &event); err != nil {
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
				p.wake(c, events[i].Events&^syscall.EPOLLIN != 0)
			}
			ready[i] = nil
		}
	}
}
