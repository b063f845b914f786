package relay

import (
	"io"
	"net"
	"sync"
	"time"
)

// socket is a forwarded WebSocket.
type socket struct {
	relay         *Relay
	client, owner net.Conn
	once          sync.Once
}

func (f *Relay) connect(client, owner net.Conn, fromClient, fromOwner []byte) {
	s := &socket{relay: f, client: client, owner: owner}
	f.mu.Lock()
	f.sockets[s] = struct{}{}
	stopping := f.stopping
	f.mu.Unlock()
	if stopping {
		defer s.shut()
	}
	f.running.Add(2)
	go s.copy(owner, client, fromClient)
	go s.copy(client, owner, fromOwner)
}

func (s *socket) copy(to, from net.Conn, first []byte) {
	defer s.relay.running.Done()
	if _, err := to.Write(first); err != nil {
		s.close()
		return
	}
	if _, err := io.Copy(to, from); err != nil {
		s.close()
		return
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	time.AfterFunc(s.relay.options.CloseTimeout, s.close)
}

func (s *socket) shut() { s.close() }

func (s *socket) close() {
	s.once.Do(func() {
		_ = s.client.Close()
		_ = s.owner.Close()
		s.relay.mu.Lock()
		delete(s.relay.sockets, s)
		s.relay.mu.Unlock()
	})
}
