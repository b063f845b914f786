package socketio_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// The clients of the benchmarks are a process of their own, which is this program
// again: what is measured here is the server's.
const crowdVariable = "SOCKETIO_BENCH_CROWD"

func TestMain(m *testing.M) {
	if address, n, ok := strings.Cut(os.Getenv(crowdVariable), " "); ok {
		if err := runCrowd(address, n); err != nil {
			fmt.Fprintln(os.Stderr, "crowd:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(serverVariable) != "" {
		if err := runServer(); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runCrowd connects n clients to the main namespace, and writes a line when all of
// them are, and again for every n messages that come. It ends with its stdin.
func runCrowd(address, number string) error {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return err
	}
	var received atomic.Int64
	for range n {
		_, r, err := enter(address)
		if err != nil {
			return err
		}
		go func() {
			for skipFrame(r) == nil {
				if received.Add(1)%n == 0 {
					fmt.Println("all")
				}
			}
		}()
	}
	fmt.Println("connected")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// enter connects a client to the main namespace, over WebSocket.
func enter(address string) (net.Conn, *bufio.Reader, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	_, err = fmt.Fprintf(conn, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", address)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(conn, 1024)
	response, err := http.ReadResponse(r, nil) //nolint:bodyclose // it has none: the connection is a WebSocket
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		return nil, nil, fmt.Errorf("handshake: %v, %w", response, err)
	}
	if _, err := conn.Write([]byte{0x81, 0x82, 0, 0, 0, 0, '4', '0'}); err != nil { // masked with zeros
		return nil, nil, err
	}
	for range 2 { // OPEN and CONNECT
		if err := skipFrame(r); err != nil {
			return nil, nil, err
		}
	}
	return conn, r, nil
}

// skipFrame reads a frame (RFC 6455, section 5.2).
func skipFrame(r *bufio.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return err
	}
	length := int(head[1])
	if length == 126 {
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return err
		}
		length = int(binary.BigEndian.Uint16(head[2:]))
	}
	_, err := r.Discard(length)
	return err
}

// crowd serves a namespace whose clients are all in the room "all". wait returns
// when all of them have got one message more.
func crowd(b *testing.B, n int) (ns *socketio.Namespace, wait func()) {
	b.Helper()
	s := socketio.NewServer(socketio.Options{})
	ns = s.Of("/")
	ns.OnConnect(func(s *socketio.Socket) { _ = s.Join("all") })
	engine := engineio.NewServer(engineio.Options{PingInterval: time.Hour}, s.Open)
	if err := engine.Start(); err != nil {
		b.Fatal(err)
	}
	h := httptest.NewServer(engine)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := engine.Shutdown(ctx); err != nil {
			b.Error(err)
		}
		h.Close()
	})
	_, lines := testkit.Self(b, crowdVariable, fmt.Sprintf("%s %d", h.Listener.Addr(), n))
	wait = func() {
		if !lines.Scan() {
			b.Fatal("the crowd has ended")
		}
	}
	wait()
	return ns, wait
}

var benchBody = json.RawMessage(`{"conversation_id":"0197c9a2-4d1c-7c3e-8f0a-9a1b2c3d4e5f","seq":42,"from":"0197c9a2-4d1c-7c3e-8f0a-000000000001","body":{"text":"` + long(100) + `"}}`)

// A delivery to each member of a room of 1,000, over WebSockets: an operation is
// one delivery, and cpu-ns/op is this process's time for it, the kernel's too.
func BenchmarkDelivery(b *testing.B) {
	const receivers = 1000
	head, tail := []byte(`"message",`), []byte(`,"0197c9a2-offset"`)
	for name, deliver := range map[string]func(n *socketio.Namespace, sockets []*socketio.Socket){
		"emitted to a room": func(n *socketio.Namespace, _ []*socketio.Socket) {
			_ = n.To("all").Emit("message", benchBody)
		},
		"each with an offset": func(n *socketio.Namespace, _ []*socketio.Socket) {
			_ = n.To("all").Offset(func(*socketio.Socket) socketio.Offset { return "0197c9a2-offset" }).Emit("message", benchBody)
		},
		"from parts, to each": func(_ *socketio.Namespace, sockets []*socketio.Socket) {
			for _, s := range sockets {
				_ = s.EmitRaw(head, benchBody, tail)
			}
		},
		"encoded for each": func(_ *socketio.Namespace, sockets []*socketio.Socket) {
			for _, s := range sockets {
				_ = s.Emit("message", benchBody)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			n, wait := crowd(b, receivers)
			sockets := n.All().Sockets()
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			for done := 0; done < b.N; done += receivers {
				deliver(n, sockets)
				wait()
			}
			rounds := (b.N + receivers - 1) / receivers
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(rounds*receivers), "cpu-ns/op")
		})
	}
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
