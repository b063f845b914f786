package relay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// happening is what the driver of the stock clients tells; see package socketio's
// testdata/client/driver.js.
type happening struct {
	Client, What, Event, Transport, Reason, Message, Error string
	Args                                                   []any
}

// driver is a process with stock clients.
type driver struct {
	t      *testing.T
	stdin  io.Writer
	events chan happening
}

func startDriver(t *testing.T) *driver {
	t.Helper()
	dir := filepath.Join("..", "socketio", "testdata", "client")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal("the stock client's packages are not installed: run make test, or npm ci in services/messaging/socketio/testdata/client")
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
	d := &driver{t: t, stdin: stdin, events: make(chan happening, 10_000)}
	go func() {
		defer close(d.events)
		for lines := json.NewDecoder(bufio.NewReader(stdout)); ; {
			var h happening
			if lines.Decode(&h) != nil {
				return
			}
			d.events <- h
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		for range d.events { // until it has ended
		}
		_ = cmd.Wait()
	})
	return d
}

func (d *driver) do(command, client string, more map[string]any) {
	d.t.Helper()
	line := map[string]any{"command": command, "client": client}
	for k, v := range more {
		line[k] = v
	}
	if err := json.NewEncoder(d.stdin).Encode(line); err != nil {
		d.t.Fatal(err)
	}
}

func (d *driver) next() happening {
	d.t.Helper()
	return wait(d.t, "what happens", d.events)
}

// roundRobin is a Service without affinity, at its worst: each request comes to
// the next process.
func roundRobin(t *testing.T, pods []*pod) string {
	t.Helper()
	var turn atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			target, _ := url.Parse(pods[int(turn.Add(1))%len(pods)].url)
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
	})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// Stock clients that find a process by chance at each request: what both sides
// say comes once, in order, before, during and after the upgrade.
func TestStockClients(t *testing.T) {
	const clients, events = 50, 20
	for _, count := range []int{2, 3} {
		for name, options := range map[string]map[string]any{
			"default options": {},
			"polling alone":   {"transports": []string{"polling"}},
			"WebSocket alone": {"transports": []string{"websocket"}},
		} {
			t.Run(fmt.Sprintf("%d processes, %s", count, name), func(t *testing.T) {
				left := make(chan socketio.Reason, clients)
				pods := make([]*pod, count)
				for i := range pods {
					pods[i] = &pod{t: t}
					sockets := socketio.NewServer(socketio.Options{})
					n := sockets.Of("/")
					n.OnConnect(func(s *socketio.Socket) { s.Data = new(int) })
					n.On("in", func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
						next := s.Data.(*int)
						var i int
						if err := e.Args.Decode(&i); err != nil || i != *next {
							t.Errorf("got %d, not %d: %v", i, *next, err)
						}
						*next++
						_ = s.Emit("out", i)
						_ = e.Ack.Send(i)
						return nil
					})
					n.OnDisconnect(func(_ *socketio.Socket, reason socketio.Reason) { left <- reason })
					pods[i].start(listen(t, "127.0.0.1:0"), Options{}, engineio.Options{}, sockets.Open)
				}
				address := roundRobin(t, pods)
				d := startDriver(t)
				for i := range clients {
					d.do("connect", strconv.Itoa(i), map[string]any{"url": address, "options": options})
				}
				type state struct {
					connected, upgraded bool
					sent                int
					acked, came         []int
				}
				states := map[string]*state{}
				emit := func(client string, s *state) {
					for range events {
						d.do("emit", client, map[string]any{"event": "in", "args": []any{s.sent}})
						s.sent++
					}
				}
				upgrades := name == "default options"
				for done := 0; done < clients; {
					h := d.next()
					s := states[h.Client]
					if s == nil {
						s = &state{}
						states[h.Client] = s
					}
					switch h.What {
					case "connect":
						if s.connected {
							t.Fatalf("%s connects again", h.Client)
						}
						s.connected = true
						emit(h.Client, s)
						if !upgrades {
							emit(h.Client, s)
						}
					case "upgrade": // maybe before it is connected, and told twice
						if !s.upgraded {
							s.upgraded = true
							emit(h.Client, s)
						}
					case "event":
						s.came = append(s.came, int(h.Args[0].(float64)))
					case "ack":
						if h.Error != "" {
							t.Fatalf("no answer: %+v", h)
						}
						s.acked = append(s.acked, int(h.Args[0].(float64)))
					default:
						t.Fatalf("%+v", h)
					}
					if len(s.came) == 2*events && len(s.acked) == 2*events {
						done++
					}
				}
				all := make([]int, 2*events)
				for i := range all {
					all[i] = i
				}
				for client, s := range states {
					if s.upgraded != upgrades || !slices.Equal(s.came, all) || !slices.Equal(s.acked, all) {
						t.Errorf("%s: %.300s", client, fmt.Sprintf("%+v", s))
					}
				}
				sockets, requests := 0, 0
				for _, p := range pods {
					sockets += p.relay.Sockets()
					requests += p.count(forwarded)
				}
				t.Logf("%d of %d sockets are forwarded, %d requests were", sockets, clients, requests)
				if upgrades && sockets == 0 || name == "WebSocket alone" && requests != 0 || name != "WebSocket alone" && requests == 0 {
					t.Error("this is not what it tests")
				}
				for i := range clients {
					d.do("disconnect", strconv.Itoa(i), nil)
				}
				for range clients {
					if reason := wait(t, "the end", left); reason != socketio.ClientDisconnect {
						t.Errorf("ended for %s", reason)
					}
				}
				for _, p := range pods {
					until(t, "no socket is left", func() bool { return p.relay.Sockets() == 0 })
				}
			})
		}
	}
}

// A process goes away while clients are at work: they begin anew, by themselves, and
// whatever was not acknowledged is known not to be.
func TestStockClientsOutliveProcesses(t *testing.T) {
	const clients = 20
	pods := make([]*pod, 3)
	for i := range pods {
		pods[i] = &pod{t: t}
		sockets := socketio.NewServer(socketio.Options{})
		sockets.Of("/").On("in", func(_ *socketio.Socket, e socketio.Event) <-chan struct{} {
			_ = e.Ack.Send(e.Args)
			return nil
		})
		pods[i].start(listen(t, "127.0.0.1:0"), Options{DialTimeout: time.Second}, engineio.Options{}, sockets.Open)
	}
	var stopped atomic.Bool // the first of them
	var turn atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Rewrite: func(r *httputil.ProxyRequest) {
			up := pods
			if stopped.Load() {
				up = pods[1:]
			}
			target, _ := url.Parse(up[int(turn.Add(1))%len(up)].url)
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
	})
	t.Cleanup(proxy.Close)
	d := startDriver(t)
	for i := range clients {
		options := map[string]any{}
		if i%2 == 0 {
			options["transports"] = []string{"polling"}
		}
		d.do("connect", strconv.Itoa(i), map[string]any{"url": proxy.URL, "options": options})
	}
	connected := map[string]int{}
	upgraded := map[string]bool{}
	for len(connected) < clients || len(upgraded) < clients/2 {
		switch h := d.next(); h.What {
		case "connect":
			connected[h.Client]++
		case "upgrade":
			upgraded[h.Client] = true
		default:
			t.Fatalf("%+v", h)
		}
	}
	stopped.Store(true)
	_ = pods[0].internal.Close()
	_ = pods[0].public.Close()
	pods[0].stop()
	for i := range clients {
		d.do("emit", strconv.Itoa(i), map[string]any{"event": "in", "args": []any{i}, "timeout": patience.Milliseconds() / 2})
	}
	for acked := 0; acked < clients; {
		switch h := d.next(); h.What {
		case "connect":
			connected[h.Client]++
		case "ack":
			if h.Error != "" { // it was on its way to the process that went away
				d.do("emit", h.Client, map[string]any{"event": "in", "args": []any{1}})
				continue
			}
			acked++
		}
	}
	again := 0
	for _, n := range connected {
		if n > 1 {
			again++
		}
	}
	t.Logf("%d of %d clients began anew", again, clients)
	if again == 0 || again == clients {
		t.Error("this is not what it tests")
	}
}
