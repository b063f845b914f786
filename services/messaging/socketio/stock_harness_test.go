package socketio_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/client/stockclient"
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

// driver is a process with stock clients.
type driver struct {
	*stockclient.Driver
	t *testing.T
}

// happening is what the driver tells.
type happening = stockclient.Happening

func startDriver(t *testing.T) *driver {
	t.Helper()
	return &driver{stockclient.Start(t, patience), t}
}

// until skips what happens until something of a kind does.
func (d *driver) until(what string) {
	d.t.Helper()
	for d.Any().What != what {
	}
}

// want compares what happens next, in its order. IDs are compared if one is wanted.
func (d *driver) want(list ...happening) {
	d.t.Helper()
	for _, want := range list {
		got := d.Next()
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
		got := d.Next()
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
