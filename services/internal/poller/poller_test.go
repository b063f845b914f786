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
	news chan bool // whether it has ended
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
	mine = &watched{Conn: c, news: make(chan bool, 10)}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { mine.fd = int32(fd) }); err != nil {
		t.Fatal(err)
	}
	return mine, theirs
}

func (w *watched) want(t *testing.T, ended bool) {
	t.Helper()
	select {
	case got := <-w.news:
		if got != ended {
			t.Errorf("ended: %t, want %t", got, ended)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is woken")
	}
}

func TestWatchedConnectionsAreWoken(t *testing.T) {
	t.Parallel()
	p, err := New(func(w *watched, ended bool) { w.news <- ended })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	watch := func(w *watched) {
		if err := p.Watch(w.fd, w); err != nil {
			t.Fatal(err)
		}
	}
	a, theirs := pair(t)
	_, _ = theirs.Write([]byte("a"))
	watch(a) // what is there already counts
	a.want(t, false)
	_, _ = theirs.Write([]byte("b")) // and more of it, though nobody has read
	a.want(t, false)

	other, others := pair(t)
	watch(other)
	_, _ = others.Write([]byte("c"))
	other.want(t, false)
	if len(a.news) != 0 {
		t.Error("woken without news")
	}
	_ = theirs.Close() // and the end
	a.want(t, true)

	p.Forget(other.fd, a) // another one has the descriptor
	_, _ = others.Write([]byte("d"))
	other.want(t, false)
	p.Forget(other.fd, other)
	_, _ = others.Write([]byte("e"))
	late, last := pair(t)
	_, _ = last.Write([]byte("f"))
	_ = last.Close()
	watch(late)
	late.want(t, true) // both at once
	if len(other.news) != 0 {
		t.Error("woken after it was forgotten")
	}
}
