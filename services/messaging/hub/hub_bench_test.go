package hub

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/messaging"
)

// silent is a wire that costs nothing.
type silent struct{}

func (silent) Deliver([]messaging.Item)          {}
func (silent) Signal(messaging.Signal)           {}
func (silent) Room(context.Context) error        { return nil }
func (silent) Move(time.Duration, time.Duration) {}
func (silent) SessionEnded(json.RawMessage)      {}
func (silent) End(Reason)                        {}

// crowd is a hub with many users, on a bus that takes everything.
func crowd(b *testing.B, bus Bus, n int) (*Hub, []uuid.UUID) {
	b.Helper()
	h := New(newFakeStore(), bus, Options{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := h.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	users := make([]uuid.UUID, n)
	for i := range users {
		users[i] = uuid.New()
		link, err := h.Admit(silent{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := link.Attach(b.Context(), users[i], uuid.New(), nil); err != nil {
			b.Fatal(err)
		}
		link.Start()
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // silent wires never leave
		_ = h.Stop(ctx)
	})
	return h, users
}

var (
	benchPayload = messaging.MessagePayload(messaging.Message{
		Seq: 42, Body: json.RawMessage(`{"text":"Shall I bring the long ladder for the upper shelves, too?"}`), SentAt: time.Now(),
	})
	benchSignal = messaging.Signal{Kind: messaging.KindTyping, Payload: json.RawMessage(`{"conversation_id":"0199","from":"0199"}`)}
)

// What the hub costs for each delivery, by where the message comes from. An
// operation is one delivery.
func BenchmarkDelivery(b *testing.B) {
	const receivers = 1000
	items := func(users []uuid.UUID, offset int64) []messaging.Item {
		out := make([]messaging.Item, len(users))
		for i, user := range users {
			out[i] = messaging.Item{UserID: user, Offset: offset, Kind: messaging.KindMessage, Payload: benchPayload}
		}
		return out
	}
	many := func(users []uuid.UUID, what byte, offset int64) []byte {
		all := make([]receiver, len(users))
		for i, user := range users {
			all[i] = receiver{id: user, offset: offset}
		}
		return appendMany(nil, what, messaging.KindMessage, benchPayload, all)
	}
	for name, deliver := range map[string]func(h *Hub, users []uuid.UUID, offset int64){
		"message written here to many": func(h *Hub, users []uuid.UUID, offset int64) { h.Announce(items(users, offset)) },
		"message written here to pairs": func(h *Hub, users []uuid.UUID, offset int64) {
			for i := 0; i < len(users); i += 2 {
				h.Announce(items(users[i:i+2], offset))
			}
		},
		"message from the bus to many": func(h *Hub, users []uuid.UUID, offset int64) {
			h.receiveMany(many(users, manyItems, offset), func(*user) {})
		},
		"message from the bus to one": func(h *Hub, users []uuid.UUID, offset int64) {
			for _, id := range users {
				h.receive(&nats.Msg{Subject: subjects.User(id), Data: appendItem(nil, messaging.Item{Offset: offset, Kind: messaging.KindMessage, Payload: benchPayload})}, func(*user) {})
			}
		},
		"signal from here":    func(h *Hub, users []uuid.UUID, _ int64) { h.Signal(users, benchSignal) },
		"signal from the bus": func(h *Hub, users []uuid.UUID, _ int64) { h.receiveMany(many(users, manySignal, 0), func(*user) {}) },
	} {
		b.Run(name, func(b *testing.B) {
			h, users := crowd(b, newFakeBus(), receivers)
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			for offset := int64(1); (offset-1)*receivers < int64(b.N); offset++ {
				deliver(h, users, offset)
			}
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// What a connected user holds in the hub and in the connection to the bus. The
// wire and the socket are not in it. Use -benchtime 1x: later rounds find what
// the first one gave back.
func BenchmarkMemory(b *testing.B) {
	const users = 10_000
	conn, err := nats.Connect(deafBus(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h, _ := crowd(b, NewNATS(conn, subjects, slog.New(slog.DiscardHandler)), users)
	h.takeFresh()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "B/user")
	b.ReportMetric(0, "ns/op")
	runtime.KeepAlive(h)
}

// deafBus speaks as much of NATS as lets a client subscribe, so that no server's
// memory is in this process.
func deafBus(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("INFO {\"headers\":true,\"max_payload\":1048576}\r\n"))
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "PING") {
				_, _ = conn.Write([]byte("PONG\r\n"))
			}
		}
	}()
	return "nats://" + listener.Addr().String()
}

// cpu is the processor time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
