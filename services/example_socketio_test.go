package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/client"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// example is docs/examples/socketio-client, running.
type example struct {
	name  string
	stdin io.WriteCloser
	lines chan string // of its output; closed at its end
	wait  func() error
}

const (
	exampleDir      = "../docs/examples/socketio-client"
	examplePatience = 30 * time.Second
)

func startExample(t *testing.T, name string, args ...string) *example {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"chat.js"}, args...)...)
	cmd.Dir, cmd.Stderr = exampleDir, testWriter{t}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &example{name: name, stdin: stdin, lines: make(chan string, 100), wait: cmd.Wait}
	go func() {
		defer close(c.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			c.lines <- scanner.Text()
		}
	}()
	return c
}

// says checks the next lines of its output.
func (c *example) says(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case line, ok := <-c.lines:
			if !ok || line != w {
				t.Fatalf("%s: %q, want %q", c.name, line, w)
			}
		case <-time.After(examplePatience):
			t.Fatalf("%s says nothing, want %q", c.name, w)
		}
	}
}

func (c *example) types(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c.stdin, line+"\n"); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
}

// wire forwards connections, which it can cut.
type wire struct {
	listener net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener}
	var copying sync.WaitGroup
	copying.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				_ = from.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, from, to)
			w.mu.Unlock()
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				copying.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		w.cut()
		copying.Wait()
	})
	return w
}

// cut breaks all connections. New ones are taken.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// The example of docs/migrate-from-socketio.md does what it says.
func TestTheSocketIOExample(t *testing.T) {
	if _, err := os.Stat(filepath.Join(exampleDir, "node_modules")); err != nil {
		t.Fatalf("the example's packages are not installed: run make test, or npm ci in %s", exampleDir)
	}
	d := startDev(t, "--data-dir", t.TempDir(), "--database-url", testkit.EmptyDatabase(t))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const ann, tom, password = "ann@example.com", "tom@example.com", "a long enough password"
	api := client.New(client.At(d.url), nil)
	owner, err := api.Register(ctx, ann, password, "Ann")
	if err != nil {
		t.Fatal(err)
	}
	tasker, err := api.Register(ctx, tom, password, "Tom")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := owner.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	task, err := owner.PostTask(ctx, "Put up shelves", "Three of them, on brick.", client.Money{AmountMinor: 6000, Currency: "EUR"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tasker.MakeOffer(ctx, task.ID, client.Money{AmountMinor: 5500, Currency: "EUR"}, "I have the drill."); err != nil {
		t.Fatal(err)
	}
	select {
	case <-socket.Events(): // of the offer, which has begun a conversation
	case <-ctx.Done():
		t.Fatal("no conversation begins")
	}

	hers := newWire(t, strings.TrimPrefix(d.url, "http://"))
	her := startExample(t, "Ann", "http://"+hers.listener.Addr().String(), ann, password)
	his := startExample(t, "Tom", d.url, tom, password)
	her.says(t, "connected")
	his.says(t, "connected")
	her.types(t, "When can you come?")
	his.says(t, "they: When can you come?")
	his.types(t, "On Saturday.")
	her.says(t, "you: When can you come?", "they: On Saturday.")
	his.says(t, "you: On Saturday.")
	hers.cut()
	his.types(t, "At ten.")
	her.says(t, "connected again", "they: At ten.")
	his.says(t, "you: At ten.")
	for _, c := range []*example{her, his} {
		if err := c.stdin.Close(); err != nil {
			t.Fatal(err)
		}
		if line, ok := <-c.lines; ok {
			t.Errorf("%s says %q at the end", c.name, line)
		}
		if err := c.wait(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := d.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}
