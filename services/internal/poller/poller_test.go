//go:build linux

package poller

import (
	"net"
	"syscall"
	"testing"
	"time"
)

type watched struct {
	net.Conn
	fd   int32
	news chan struct{}
}

func pair(t *testing.T) (mine *watched, theirs net.Conn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	mine = &watched{Conn: c, news: make(chan struct{}, 10)}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { mine.fd = int32(fd) }); err != nil {
		t.Fatal(err)
	}
	return mine, theirs
}

func (w *watched) want(t *testing.T) {
	t.Helper()
	select {
	case <-w.news:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is woken")
	}
}

func TestEachWatchWakesOnce(t *testing.T) {
	t.Parallel()
	p, err := New(func(w *watched) { w.news <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	a, theirs := pair(t)
	other, others := pair(t)
	watch := func(w *watched, first bool) {
		if err := p.Watch(w.fd, w, first); err != nil {
			t.Fatal(err)
		}
	}
	watch(a, true)
	_, _ = theirs.Write([]byte("a"))
	a.want(t)
	_, _ = theirs.Write([]byte("b")) // of which it does not tell
	watch(other, true)
	_, _ = others.Write([]byte("c"))
	other.want(t)
	if len(a.news) != 0 {
		t.Error("woken twice")
	}
	watch(a, false) // what is there already counts
	a.want(t)
	_, _ = a.Read(make([]byte, 10))
	watch(a, false)
	_ = theirs.Close() // and the end does
	a.want(t)

	p.Forget(other.fd, a) // another one has the descriptor
	watch(other, false)
	other.want(t)
	p.Forget(other.fd, other)
	watch(other, false)
	late, last := pair(t)
	watch(late, true)
	_, _ = last.Write([]byte("d"))
	late.want(t)
	if len(other.news) != 0 {
		t.Error("woken after it was forgotten")
	}
}
