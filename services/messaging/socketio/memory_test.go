package socketio_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// serverVariable has this program be a server whose memory is measured, in a process
// of its own.
const serverVariable = "SOCKETIO_TEST_SERVER"

// runServer serves until its stdin ends. It says its address, and at /collect gives
// back what memory it can, and says what there is.
func runServer() error {
	s := socketio.NewServer(socketio.Options{})
	s.Of("/").OnConnect(func(s *socketio.Socket) { _ = s.Join("all") })
	engine := engineio.NewServer(engineio.Options{PingInterval: time.Hour}, s.Open)
	if err := engine.Start(); err != nil {
		return err
	}
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/socket.io/", func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		defer requests.Add(-1)
		engine.ServeHTTP(w, r)
	})
	mux.HandleFunc("/collect", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		_ = json.NewEncoder(w).Encode(population{s.Stats().Sockets, requests.Load()})
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, mux) }()
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// population is what there is on a server: sockets, and requests that wait.
type population struct{ Sockets, Requests int64 }

// A silent connection that is in a namespace and in a room takes at most so much of its
// server's memory: over WebSocket 12 KB, which is the goal; polling, with a poll that
// waits, 40 KB, a quarter above what was measured (docs/benchmarks.md). The server is
// built without the race detector, which takes a multiple.
func TestMemoryOfAnIdleConnection(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a process holds")
	}
	program := filepath.Join(t.TempDir(), "server")
	if output, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, output)
	}
	for name, test := range map[string]struct {
		enter func(address string) (net.Conn, *bufio.Reader, error)
		polls int64 // that wait for each
		limit int   // bytes
	}{
		"websocket": {enter, 0, 12_000},
		"polling":   {enterPolling, 1, 40_000},
	} {
		t.Run(name, func(t *testing.T) {
			const warm, connections = 200, 2000
			pid, lines := testkit.Program(t, program, serverVariable, "1")
			if !lines.Scan() {
				t.Fatal("the server has ended")
			}
			address := lines.Text()
			silent := func(n int) { // until the test's end
				for range n {
					conn, _, err := test.enter(address)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = conn.Close() })
				}
			}
			rss := func(sockets int64) int {
				want := population{sockets, sockets * test.polls}
				for deadline := time.Now().Add(patience); collect(t, address) != want; {
					if time.Now().After(deadline) {
						t.Fatalf("there is %+v, want %+v", collect(t, address), want)
					}
				}
				return memoryOf(t, pid)
			}
			silent(warm)
			before := rss(warm)
			silent(connections)
			var each int
			for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // until its workers rest
				each = (rss(warm+connections) - before) / connections
				if each <= test.limit || time.Now().After(deadline) {
					break
				}
			}
			t.Logf("a connection takes %d bytes", each)
			if each > test.limit || each < 1000 {
				t.Errorf("a connection takes %d bytes, want at most %d (and not next to none)", each, test.limit)
			}
		})
	}
}

// enterPolling connects a client that polls, and leaves it with a poll that waits.
func enterPolling(address string) (net.Conn, *bufio.Reader, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(conn, 1024)
	url := "/socket.io/?EIO=4&transport=polling"
	ask := func(method, body string) error {
		_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", method, url, address, len(body), body)
		return err
	}
	answer := func(method, body string) (string, error) {
		if err := ask(method, body); err != nil {
			return "", err
		}
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s %s", method, response.Status, text)
		}
		return string(text), err
	}
	open, err := answer(http.MethodGet, "")
	if err != nil {
		return nil, nil, err
	}
	var session struct{ SID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(open, "0")), &session); err != nil {
		return nil, nil, err
	}
	url += "&sid=" + session.SID
	if _, err := answer(http.MethodPost, "40"); err != nil {
		return nil, nil, err
	}
	if _, err := answer(http.MethodGet, ""); err != nil { // CONNECT
		return nil, nil, err
	}
	return conn, r, ask(http.MethodGet, "")
}

// collect has the server give back what memory it can; it says what there is.
func collect(t *testing.T, address string) (p population) {
	t.Helper()
	response, err := http.Get("http://" + address + "/collect")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// memoryOf is what a process holds, in bytes.
func memoryOf(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatal("the process does not say what it holds")
	return 0
}
