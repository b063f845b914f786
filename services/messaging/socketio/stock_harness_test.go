package socketio_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// server is an HTTP server with both packages on it.
type server struct {
	*socketio.Server
	engine *engineio.Server
	url    string
}

// serve serves until the test's end.
func serve(t *testing.T, o engineio.Options, s *socketio.Server) *server {
	t.Helper()
	return serveBehind(t, o, s, func(h http.Handler) http.Handler { return h })
}

// serveBehind serves behind what passes requests on.
func serveBehind(t *testing.T, o engineio.Options, s *socketio.Server, front func(http.Handler) http.Handler) *server {
	t.Helper()
	o.CloseTimeout = time.Second // for drivers that are gone
	engine := engineio.NewServer(o, s.Open)
	if err := engine.Start(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", front(engine))
	h := httptest.NewServer(mux)
	sv := &server{Server: s, engine: engine, url: h.URL}
	t.Cleanup(func() {
		sv.shutdown(t)
		h.Close()
	})
	return sv
}

func (s *server) shutdown(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.engine.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Wait(ctx); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Connections != 0 || st.Sockets != 0 {
		t.Errorf("after the end there are %d connections and %d sockets", st.Connections, st.Sockets)
	}
}

func newServer(t *testing.T) *socketio.Server {
	t.Helper()
	return socketio.NewServer(socketio.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

// driver is a process with stock clients; see its driver.js.
type driver struct {
	t      *testing.T
	stdin  io.Writer
	events chan happening

	upgraded map[string]bool // clients
}

// happening is what the driver tells.
type happening struct {
	Client, What string

	Transport string
	ID        string
	Recovered bool
	Reason    string
	Message   string
	Data      any
	Event     string
	Args      []any
	Error     string
}

func startDriver(t *testing.T) *driver {
	t.Helper()
	dir := filepath.Join("..", "..", "internal", "testkit", "stockclient", "client")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatalf("the stock client's packages are not installed: run make test, or npm ci in %s", dir)
	}
	cmd := exec.CommandContext(t.Context(), "node", "driver.js")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
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
	d := &driver{t: t, stdin: stdin, events: make(chan happening, 1000), upgraded: map[string]bool{}}
	go func() {
		defer close(d.events)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 10<<20)
		for lines.Scan() {
			var h happening
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
				t.Errorf("the driver says %.200s", lines.Text())
			}
			d.events <- h
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		for range d.events { // until it has ended
		}
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the driver: %v", err)
		}
	})
	return d
}

// do gives a command.
func (d *driver) do(command string, parameters map[string]any) {
	d.t.Helper()
	line := map[string]any{"command": command}
	for k, v := range parameters {
		line[k] = v
	}
	b, err := json.Marshal(line)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.stdin.Write(append(b, '\n')); err != nil {
		d.t.Fatal(err)
	}
}

// next is what happens next, but for upgrades.
func (d *driver) next() happening {
	d.t.Helper()
	for {
		if h := d.any(); h.What != "upgrade" {
			return h
		}
	}
}

func (d *driver) any() happening {
	d.t.Helper()
	select {
	case h, ok := <-d.events:
		if !ok {
			d.t.Fatal("the driver has ended")
		}
		if h.What == "upgrade" {
			d.upgraded[h.Client] = true
		}
		return h
	case <-time.After(patience):
		d.t.Fatal("nothing happens")
	}
	return happening{}
}

// until skips what happens until something of a kind does.
func (d *driver) until(what string) happening {
	d.t.Helper()
	for {
		if h := d.any(); h.What == what {
			return h
		}
	}
}

// upgrade returns when a client has upgraded.
func (d *driver) upgrade(client string) {
	d.t.Helper()
	for !d.upgraded[client] {
		d.until("upgrade")
	}
}

// want compares what happens next, in its order. IDs are compared if one is wanted.
func (d *driver) want(list ...happening) {
	d.t.Helper()
	for _, want := range list {
		got := d.next()
		if want.ID == "" {
			got.ID = ""
		}
		if want.Transport == "" {
			got.Transport = ""
		}
		if !reflect.DeepEqual(got, want) {
			d.t.Errorf("got  %.500s\nwant %.500s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
		}
	}
}

// wantAll compares what happens next, in any order.
func (d *driver) wantAll(list ...happening) {
	d.t.Helper()
	for range list {
		got := d.next()
		got.ID, got.Transport = "", ""
		i := 0
		for i < len(list) && !reflect.DeepEqual(got, list[i]) {
			i++
		}
		if i == len(list) {
			d.t.Errorf("got  %.500s\nwant one of %.500s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", list))
			return
		}
		list = append(list[:i:i], list[i+1:]...)
	}
}

// connect makes a client, with options of the stock client's.
func (d *driver) connect(client, url string, options map[string]any) {
	d.t.Helper()
	d.do("connect", map[string]any{"client": client, "url": url, "options": options})
}

// enter makes a client and returns when it is connected.
func (d *driver) enter(client, url string, options map[string]any) happening {
	d.t.Helper()
	d.connect(client, url, options)
	h := d.next()
	if h.Client != client || h.What != "connect" || h.ID == "" || h.Recovered {
		d.t.Fatalf("%s: %+v", client, h)
	}
	return h
}

func (d *driver) emit(client, event string, args ...any) {
	d.t.Helper()
	d.do("emit", map[string]any{"client": client, "event": event, "args": args})
}

func (d *driver) send(client, event string, args ...any) {
	d.t.Helper()
	d.do("send", map[string]any{"client": client, "event": event, "args": args})
}

// say gives a command about a client.
func (d *driver) say(command, client string) {
	d.t.Helper()
	d.do(command, map[string]any{"client": client})
}

// What happens, in short.

func event(client, name string, args ...any) happening {
	return happening{Client: client, What: "event", Event: name, Args: list(args)}
}

func ack(client, name string, args ...any) happening {
	return happening{Client: client, What: "ack", Event: name, Args: list(args)}
}

func list(args []any) []any {
	if args == nil {
		return []any{}
	}
	return args
}

func connected(client string) happening { return happening{Client: client, What: "connect"} }

func disconnected(client, reason string) happening {
	return happening{Client: client, What: "disconnect", Reason: reason}
}

func bytesOf(base64 string) map[string]any { return map[string]any{"$binary": base64} }

// receive takes what a test waits for.
func receive[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return v
}

// long is text of a length.
func long(n int) string { return strings.Repeat("x", n) }
