package testkit

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/internal/bus"
)

// NewBus starts a NATS server of the test's own.
func NewBus(t testing.TB) *bus.Server {
	t.Helper()
	s, err := bus.StartServer(bus.ServerOptions{Name: "test", Listen: "127.0.0.1:0", Log: Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop the bus: %v", err)
		}
	})
	return s
}

// ConnectBus connects to a server, and waits until it is connected.
func ConnectBus(t testing.TB, server *bus.Server) *nats.Conn {
	t.Helper()
	conn, err := bus.Connect(bus.Options{URLs: []string{server.URL()}, Name: "test", Log: Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.FlushTimeout(5 * time.Second); err != nil {
		t.Fatalf("connect to the bus: %v", err)
	}
	return conn
}
