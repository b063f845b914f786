package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

const patience = 20 * time.Second

func await[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func stop(t *testing.T, s *bus.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func start(t *testing.T, options bus.ServerOptions) *bus.Server {
	t.Helper()
	options.Log = testkit.Logger(t)
	s, err := bus.StartServer(options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A process starts before the bus, lives through its loss, and hears of its
// return; what it published meanwhile is gone, and it is told so.
func TestConnectOutlivesTheServer(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	options := bus.ServerOptions{Name: "one", Listen: address, Token: "secret"}
	connected := make(chan struct{}, 10)
	conn, err := bus.Connect(bus.Options{
		URLs: []string{"nats://" + address}, Token: "secret", Name: "test", Log: testkit.Logger(t),
		Connected: func() { connected <- struct{}{} },
	})
	if err != nil {
		t.Fatalf("connect without a server: %v", err)
	}
	defer conn.Close()
	wake, err := bus.Wake(conn, "subject")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Publish("subject", nil); err == nil {
		t.Error("publishing without a server was accepted; it would be sent late, as news")
	}

	first := start(t, options)
	await(t, connected, "the first connection")
	if err := conn.Publish("subject", nil); err != nil {
		t.Fatal(err)
	}
	await(t, wake, "a wake-up")
	stop(t, first)

	second := start(t, options)
	defer stop(t, second)
	await(t, connected, "the reconnect")
	if err := conn.Publish("subject", nil); err != nil {
		t.Fatal(err)
	}
	await(t, wake, "a wake-up after the reconnect")
}

func TestServerWantsItsToken(t *testing.T) {
	t.Parallel()
	s := start(t, bus.ServerOptions{Name: "one", Listen: "127.0.0.1:0", Token: "secret"})
	defer stop(t, s)
	for name, options := range map[string][]nats.Option{"no token": nil, "another token": {nats.Token("guess")}} {
		conn, err := nats.Connect(s.URL(), options...)
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("with %s: error = %v, want %v", name, err, nats.ErrAuthorization)
		}
	}
}

// What knows another token does not become a member of the cluster.
func TestMemberWantsItsToken(t *testing.T) {
	t.Parallel()
	route := freeAddress(t)
	logged := make(records, 64)
	s, err := bus.StartServer(bus.ServerOptions{
		Name: "one", Listen: "127.0.0.1:0", Token: "secret", RouteListen: route, Log: slog.New(logged),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	stranger := start(t, bus.ServerOptions{
		Name: "two", Listen: "127.0.0.1:0", Token: "guess", RouteListen: "127.0.0.1:0", Routes: []string{"nats-route://" + route},
	})
	defer stop(t, stranger)
	timeout := time.After(patience)
	for {
		select {
		case record := <-logged:
			if strings.Contains(strings.ToLower(record.Message), "authentication error") {
				return
			}
		case <-timeout:
			t.Fatal("a member with another token was not refused")
		}
	}
}

// Three servers are one bus.
func TestServersFormACluster(t *testing.T) {
	t.Parallel()
	routes := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	var urls []string
	for _, r := range routes {
		urls = append(urls, "nats-route://"+r)
	}
	var servers []*bus.Server
	for i, r := range routes {
		s := start(t, bus.ServerOptions{
			Name: fmt.Sprint("member-", i), Listen: "127.0.0.1:0", Token: "secret", RouteListen: r, Routes: urls,
		})
		defer stop(t, s)
		servers = append(servers, s)
	}
	conns := make([]*nats.Conn, 0, len(servers))
	for _, s := range servers {
		conn, err := nats.Connect(s.URL(), nats.Token("secret"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	heard, err := bus.Wake(conns[2], "subject")
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for { // members find each other in their own time
		if err := conns[0].Publish("subject", nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-heard:
			return
		case <-tick.C:
		case <-deadline:
			t.Fatal("a message did not cross the cluster")
		}
	}
}

// records hands on what is logged.
type records chan slog.Record

func (records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r records) WithGroup(string) slog.Handler          { return r }
func (r records) Handle(_ context.Context, record slog.Record) error {
	select {
	case r <- record:
	default: // The test has seen enough.
	}
	return nil
}

// At the first start of a cluster no other member is up: that is no error.
func TestMemberThatIsAwayIsAWarning(t *testing.T) {
	t.Parallel()
	logged := make(records, 64)
	s, err := bus.StartServer(bus.ServerOptions{
		Name: "bus-0", Listen: "127.0.0.1:0", Token: "t", RouteListen: "127.0.0.1:0",
		Routes: []string{"nats-route://" + freeAddress(t)},
		Log:    slog.New(logged),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	timeout := time.After(patience)
	for {
		select {
		case record := <-logged:
			if record.Level >= slog.LevelError {
				t.Fatalf("logged as an error: %s", record.Message)
			}
			if record.Level == slog.LevelWarn && strings.Contains(record.Message, "connect to route") {
				return
			}
		case <-timeout:
			t.Fatal("the member that is away is not told of")
		}
	}
}
