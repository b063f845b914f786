package engineio

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

// A server that is measured is a process of its own: this program, told so.
const benchmarked = "ENGINEIO_BENCHMARKED"

func TestMain(m *testing.M) {
	if os.Getenv(benchmarked) != "" {
		serveBenchmark()
		return
	}
	os.Exit(m.Run())
}

type echoes struct{ conn *Conn }

func (e echoes) Message(kind Kind, payload []byte) <-chan struct{} {
	_ = e.conn.Send(kind, payload)
	return nil
}

func (e echoes) Closed(Reason, error) {}

// serveBenchmark says where it serves, and does so until its input ends.
func serveBenchmark() {
	server := NewServer(Options{PingInterval: time.Hour}, func(c *Conn, _ *http.Request) Handler { return echoes{c} })
	if err := server.Start(); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", server)
	mux.HandleFunc("/free", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	fmt.Println(httptest.NewServer(mux).Listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is the server.
type process struct {
	b       *testing.B
	address string
	pid     int
}

func startProcess(b *testing.B) *process {
	b.Helper()
	pid, lines := testkit.Self(b, benchmarked, "1")
	if !lines.Scan() {
		b.Fatalf("the server says nothing: %v", lines.Err())
	}
	return &process{b, lines.Text(), pid}
}

// rss is the memory that the server holds, in bytes (proc(5)).
func (p *process) rss() float64 {
	p.b.Helper()
	if response, err := http.Get("http://" + p.address + "/free"); err == nil {
		_ = response.Body.Close()
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		p.b.Skip("it needs proc(5): ", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(stat))[1])
	if err != nil {
		p.b.Fatal(err)
	}
	return float64(pages * os.Getpagesize())
}

// cpu is the time that the server has used (proc(5)), whose unit is 10 ms.
func (p *process) cpu() time.Duration {
	p.b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		p.b.Skip("it needs proc(5): ", err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))
	var ticks int
	for _, field := range fields[12:14] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			p.b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rawSocket is a client's WebSocket that costs next to nothing.
type rawSocket struct {
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, address string) *rawSocket {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = fmt.Fprintf(c, "GET /?%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", newWebSocket)
	s := &rawSocket{c, bufio.NewReaderSize(c, 512)}
	response, err := http.ReadResponse(s.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() // which has nothing
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %+v", response)
	}
	if packet, err := s.read(); err != nil || packet[0] != byte(packetOpen) {
		t.Fatalf("handshake: %q, %v", packet, err)
	}
	return s
}

// frame is a short text message of a client, with a mask of zeros (RFC 6455, section
// 5.2).
func frame(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// read reads a message that is not long.
func (s *rawSocket) read() ([]byte, error) {
	head, err := s.r.Peek(2)
	if err != nil {
		return nil, err
	}
	_, _ = s.r.Discard(2)
	size := int(head[1])
	if size == 126 {
		if head, err = s.r.Peek(2); err != nil {
			return nil, err
		}
		size = int(binary.BigEndian.Uint16(head))
		_, _ = s.r.Discard(2)
	}
	payload, err := s.r.Peek(size)
	_, _ = s.r.Discard(size)
	return payload, err
}

// What a session on WebSocket holds while nobody says anything: "B/session" of RSS.
func BenchmarkIdleWebSocket(b *testing.B) {
	const sessions = 4000
	p := startProcess(b)
	dialRaw(b, p.address)
	before := p.rss()
	for range sessions {
		dialRaw(b, p.address).r = nil
	}
	b.ReportMetric((p.rss()-before)/sessions, "B/session")
	b.ReportMetric(0, "ns/op")
}

// What a message costs the server that is read, handled and sent back: "cpu-ns/msg".
func BenchmarkEcho(b *testing.B) {
	const clients, batch = 32, 16
	messages := bytes.Repeat(frame("4"+strings.Repeat("x", 99)), batch)
	b.Run("websocket", func(b *testing.B) {
		p := startProcess(b)
		sockets := make([]*rawSocket, clients)
		for i := range sockets {
			sockets[i] = dialRaw(b, p.address)
		}
		before := p.cpu()
		b.ResetTimer()
		var wg sync.WaitGroup
		for _, s := range sockets {
			wg.Go(func() {
				for range b.N/clients/batch + 1 {
					_, _ = s.Write(messages) // the reading fails, if it does
					for range batch {
						if _, err := s.read(); err != nil {
							b.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		n := (b.N/clients/batch + 1) * clients * batch
		b.ReportMetric(float64(p.cpu()-before)/float64(n), "cpu-ns/msg")
	})
	b.Run("polling", func(b *testing.B) {
		p := startProcess(b)
		h := prepare(b, Options{}, nil)
		h.url, h.client, h.ctx = "http://"+p.address+"/", &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}, b.Context()
		sids := make([]string, clients)
		for i := range sids {
			_, sid, _ := strings.Cut(h.request("GET", newPolling, "").body, `"sid":"`)
			sids[i], _, _ = strings.Cut(sid, `"`)
		}
		payload := strings.TrimSuffix(strings.Repeat("4"+strings.Repeat("x", 99)+"\x1e", batch), "\x1e")
		before := p.cpu()
		b.ResetTimer()
		var wg sync.WaitGroup
		for _, sid := range sids {
			wg.Go(func() {
				for range b.N/clients/batch + 1 {
					_, _ = h.do(h.ctx, "POST", newPolling+"&sid="+sid, strings.NewReader(payload), nil)
					a, err := h.do(h.ctx, "GET", newPolling+"&sid="+sid, nil, nil)
					if err != nil || a.body != payload {
						b.Errorf("%+v, %v", a, err)
						return
					}
				}
			})
		}
		wg.Wait()
		n := (b.N/clients/batch + 1) * clients * batch
		b.ReportMetric(float64(p.cpu()-before)/float64(n), "cpu-ns/msg")
	})
}
