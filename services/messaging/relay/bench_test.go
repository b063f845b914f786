package relay

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

// A relay that is measured is a process of its own: this program, told so.
const benchmarked = "RELAY_BENCHMARKED"

func TestMain(m *testing.M) {
	if os.Getenv(benchmarked) != "" {
		serveBenchmark()
		return
	}
	os.Exit(m.Run())
}

// serveBenchmark says where it forwards, and does so until its input ends.
func serveBenchmark() {
	b := &testing.B{}
	f := New(netip.MustParseAddrPort("192.0.2.1:81"), newSealer(b), Options{}, discard{})
	if err := f.Start(b.Context()); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { f.Missing(w, r, r.URL.Query().Get("sid")) })
	mux.HandleFunc("/free", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	fmt.Println(httptest.NewServer(mux).Listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is the relay, and an owner that echoes bytes.
type process struct {
	b       *testing.B
	address string
	pid     int
	sid     string
}

func startProcess(b *testing.B) *process {
	b.Helper()
	pid, lines := testkit.Self(b, benchmarked, "1")
	if !lines.Scan() {
		b.Fatalf("the relay says nothing: %v", lines.Err())
	}
	owner := listen(b, "127.0.0.1:0")
	go func() {
		for {
			conn, err := owner.Accept()
			if err != nil {
				return
			}
			b.Cleanup(func() { _ = conn.Close() })
			go func() {
				in := bufio.NewReader(conn)
				if _, err := http.ReadRequest(in); err != nil {
					return
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
				_, _ = io.Copy(conn, in)
			}()
		}
	}()
	b.Cleanup(func() { _ = owner.Close() })
	sid := New(netip.MustParseAddrPort(owner.Addr().String()), newSealer(b), Options{}, discard{}).NewID()
	return &process{b, lines.Text(), pid, sid}
}

// connect is a client's socket, through the relay.
func (p *process) connect() net.Conn {
	p.b.Helper()
	c, err := net.Dial("tcp", p.address)
	if err != nil {
		p.b.Fatal(err)
	}
	p.b.Cleanup(func() { _ = c.Close() })
	_, _ = fmt.Fprintf(c, "GET %s?sid=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path, p.sid)
	in := bufio.NewReaderSize(c, 512)
	response, err := http.ReadResponse(in, nil) //nolint:bodyclose // the body is the socket
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		p.b.Fatalf("handshake: %+v, %v", response, err)
	}
	return c
}

// echo sends what comes back.
func (p *process) echo(c net.Conn, message, back []byte) error {
	if _, err := c.Write(message); err != nil {
		return err
	}
	_, err := io.ReadFull(c, back)
	return err
}

// rss is the memory that the relay holds, in bytes (proc(5)).
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

// cpu is the time that the relay has used (proc(5)), whose unit is 10 ms.
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

// What a forwarded socket holds while nobody says anything, after both have said
// something: "B/socket" of RSS.
func BenchmarkSilentSocket(b *testing.B) {
	const sockets = 2000
	p := startProcess(b)
	message, back := make([]byte, 100), make([]byte, 100)
	one := func() {
		if err := p.echo(p.connect(), message, back); err != nil {
			b.Fatal(err)
		}
	}
	for range 50 {
		one()
	}
	before := p.rss()
	for range sockets {
		one()
	}
	b.ReportMetric((p.rss()-before)/sockets, "B/socket")
	b.ReportMetric(0, "ns/op")
}

// What forwarding 100 bytes, and their echo, costs the relay: "cpu-ns/echo".
func BenchmarkForward(b *testing.B) {
	const clients = 32
	p := startProcess(b)
	var wg sync.WaitGroup
	before := p.cpu()
	n := b.N/clients + 1
	for range clients {
		c := p.connect()
		wg.Go(func() {
			message, back := make([]byte, 100), make([]byte, 100)
			for range n {
				if err := p.echo(c, message, back); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(p.cpu()-before)/float64(n*clients), "cpu-ns/echo")
}
