package socketio_test

import (
	"bufio"
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
// back what memory it can, and says how many sockets there are.
func runServer() error {
	s := socketio.NewServer(socketio.Options{})
	s.Of("/").OnConnect(func(s *socketio.Socket) { _ = s.Join("all") })
	engine := engineio.NewServer(engineio.Options{PingInterval: time.Hour}, s.Open)
	if err := engine.Start(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", engine)
	mux.HandleFunc("/collect", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		_, _ = fmt.Fprint(w, s.Stats().Sockets)
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

// A silent connection over WebSocket that is connected to a namespace and in a room
// takes at most 12 KB of its server's memory. The server is built without the race
// detector, which takes a multiple.
func TestMemoryOfAnIdleConnection(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a process holds")
	}
	const warm, connections, limit = 200, 2000, 12_000
	program := filepath.Join(t.TempDir(), "server")
	if output, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, output)
	}
	pid, lines := testkit.Program(t, program, serverVariable, "1")
	if !lines.Scan() {
		t.Fatal("the server has ended")
	}
	address := lines.Text()
	rss := func(sockets int) int {
		t.Helper()
		if n := collect(t, address); n != sockets {
			t.Fatalf("there are %d sockets, want %d", n, sockets)
		}
		return memoryOf(t, pid)
	}
	silent(t, address, warm)
	before := rss(warm)
	silent(t, address, connections)
	var each int
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // until its workers rest
		each = (rss(warm+connections) - before) / connections
		if each <= limit || time.Now().After(deadline) {
			break
		}
	}
	t.Logf("a connection takes %d bytes", each)
	if each > limit || each < 1000 {
		t.Errorf("a connection takes %d bytes, want at most %d (and not next to none)", each, limit)
	}
}

// silent connects clients that say nothing more, until the test's end.
func silent(t *testing.T, address string, n int) {
	t.Helper()
	for range n {
		conn, _, err := enter(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

// collect has the server give back what memory it can; it says how many sockets there
// are.
func collect(t *testing.T, address string) int {
	t.Helper()
	response, err := http.Get("http://" + address + "/collect")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(body))
	if err != nil {
		t.Fatal(err)
	}
	return n
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
