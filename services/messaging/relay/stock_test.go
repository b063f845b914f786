package relay

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/client/stockclient"
	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

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
				d := stockclient.Start(t, patience)
				for i := range clients {
					d.Connect(strconv.Itoa(i), address, options)
				}
				type state struct {
					connected, upgraded bool
					sent                int
					acked, came         []int
				}
				states := map[string]*state{}
				emit := func(client string, s *state) {
					for range events {
						d.Emit(client, "in", s.sent)
						s.sent++
					}
				}
				upgrades := name == "default options"
				for done := 0; done < clients; {
					h := d.Any()
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
					d.Say("disconnect", strconv.Itoa(i))
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

// Binary data comes through other processes both ways, in an event and in an
// acknowledgement, and as large as it may be.
func TestBinaryOfStockClients(t *testing.T) {
	pods := make([]*pod, 2)
	for i := range pods {
		pods[i] = &pod{t: t}
		sockets := socketio.NewServer(socketio.Options{})
		sockets.Of("/").On("in", func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
			data, _ := e.Args.At(0).Binary()
			_ = s.Emit("out", data)
			_ = e.Ack.Send(data)
			return nil
		})
		pods[i].start(listen(t, "127.0.0.1:0"), Options{}, engineio.Options{}, sockets.Open)
	}
	address := roundRobin(t, pods)
	d := stockclient.Start(t, patience)
	data := make([]byte, 700_000) // in base64 less than a megabyte
	_, _ = rand.Read(data)
	binary := map[string]any{"$binary": base64.StdEncoding.EncodeToString(data)}
	for name, options := range map[string]map[string]any{
		"upgraded": {}, "polling": {"transports": []string{"polling"}}, "websocket": {"transports": []string{"websocket"}},
	} {
		d.Connect(name, address, options)
		if name == "upgraded" {
			d.UntilUpgraded(name)
		}
		d.Emit(name, "in", binary)
		for _, what := range []string{"event", "ack"} {
			h := d.Find(func(h stockclient.Happening) bool { return h.Client == name && h.What == what })
			if diff := cmp.Diff([]any{any(binary)}, h.Args); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%.500s", name, what, diff)
			}
		}
		d.Say("disconnect", name)
	}
	if n := pods[0].count(forwarded) + pods[1].count(forwarded); n == 0 {
		t.Error("nothing was forwarded")
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
	d := stockclient.Start(t, patience)
	for i := range clients {
		options := map[string]any{}
		if i%2 == 0 {
			options["transports"] = []string{"polling"}
		}
		d.Connect(strconv.Itoa(i), proxy.URL, options)
	}
	connected := map[string]int{}
	upgraded := map[string]bool{}
	for len(connected) < clients || len(upgraded) < clients/2 {
		switch h := d.Any(); h.What {
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
		d.Do("emit", map[string]any{"client": strconv.Itoa(i), "event": "in", "args": []any{i}, "timeout": patience.Milliseconds() / 2})
	}
	for acked := 0; acked < clients; {
		switch h := d.Any(); h.What {
		case "connect":
			connected[h.Client]++
		case "ack":
			if h.Error != "" { // it was on its way to the process that went away
				d.Emit(h.Client, "in", 1)
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
