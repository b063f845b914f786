package socketio_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

// The ways in which stock clients come.
var ways = map[string]map[string]any{
	"default options": nil,
	"polling alone":   {"transports": []string{"polling"}},
	"WebSocket alone": {"transports": []string{"websocket"}},
}

// echo answers as it is asked.
func echo(n *socketio.Namespace) {
	n.OnAny(func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
		if e.Ack != nil {
			_ = e.Ack.Send(e.Args)
			return nil
		}
		_ = s.Emit(e.Name, e.Args)
		return nil
	})
}

// With every transport: events, acknowledgements, binary data and large payloads
// both ways, in order.
func TestStockTransports(t *testing.T) {
	for name, options := range ways {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			sockets := make(chan *socketio.Socket, 1)
			echo(s.Of("/"))
			s.Of("/").OnConnect(func(s *socketio.Socket) { sockets <- s })
			sv := serve(t, engineio.Options{MaxPayload: 1<<20 + 100, MaxQueued: 4 << 20}, s)
			d := startDriver(t)
			first := d.Enter("a", sv.url, options)
			socket := receive(t, sockets)
			if first.ID != socket.ID() {
				t.Errorf("the client is %s, and %s here", first.ID, socket.ID())
			}
			transport := "polling"
			switch {
			case options == nil:
				d.UntilUpgraded("a")
				transport = "websocket"
			case name == "WebSocket alone":
				transport = "websocket"
			}

			d.Send("a", "text", 1, "2", map[string]any{"3": []any{true, nil}}, "ä€𝄞\u2028")
			want := event("a", "text", 1.0, "2", map[string]any{"3": []any{true, nil}}, "ä€𝄞\u2028")
			want.Transport = transport
			d.want(want)

			d.Emit("a", "asked")
			d.want(ack("a", "asked"))
			d.Emit("a", "asked", 1, "2")
			d.want(ack("a", "asked", 1.0, "2"))

			blob := []any{bytesOf("AAEC"), map[string]any{"deep": []any{bytesOf(""), "x", bytesOf("/w==")}}}
			d.Send("a", "blob", blob...)
			d.want(event("a", "blob", blob...))
			d.Emit("a", "blob", blob...)
			d.want(ack("a", "blob", blob...))

			d.Emit("a", "large", long(1<<20))
			d.want(ack("a", "large", long(1<<20)))

			type result struct {
				text string
				err  error
			}
			results := make(chan result, 1)
			if err := socket.EmitAck(patience, func(args socketio.Args, err error) {
				var r result
				if r.err = err; err == nil {
					var data []byte
					r.err = args.Decode(&r.text, &data)
					r.text += string(data)
				}
				results <- r
			}, "question", "text and ", []byte("data")); err != nil {
				t.Error(err)
			}
			d.want(event("a", "question", "text and ", bytesOf("ZGF0YQ==")))
			if r := receive(t, results); r.err != nil || r.text != "text and data" {
				t.Errorf("acknowledged: %+v", r)
			}

			const many = 300
			for i := range many {
				d.Send("a", "n", i)
			}
			for i := range many {
				d.want(event("a", "n", float64(i)))
			}
			if got := string(socket.Conn().Transport()); got != transport {
				t.Errorf("the transport is %s, want %s", got, transport)
			}
		})
	}
}

// What both sides send before, in, and after the upgrade comes once, and in order.
func TestStockUpgradeLosesNothing(t *testing.T) {
	s := newServer(t)
	echo(s.Of("/"))
	upgrade := make(chan struct{})
	sv := serveBehind(t, engineio.Options{}, s, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				<-upgrade
			}
			h.ServeHTTP(w, r)
		})
	})
	release := sync.OnceFunc(func() { close(upgrade) })
	t.Cleanup(release)
	d := startDriver(t)
	d.Enter("a", sv.url, nil)
	const enough = 200
	sent, came := 0, map[string]int{} // over each transport
	for n := 0; n < sent || n == 0; n++ {
		for ; sent < n+50 && came["websocket"] < enough && n < 20_000; sent++ { // some are always on their way
			d.Send("a", "n", sent)
		}
		h := d.Next()
		came[h.Transport]++
		if came["polling"] == enough {
			release()
		}
		h.Transport = ""
		if want := event("a", "n", float64(n)); !reflect.DeepEqual(h, want) {
			t.Fatalf("%+v came, want %+v", h, want)
		}
	}
	if came["polling"] < enough || came["websocket"] < enough {
		t.Errorf("there was no upgrade: %v", came)
	}
}

func TestStockAckTimeouts(t *testing.T) {
	s := newServer(t)
	n := s.Of("/")
	acks := make(chan *socketio.Ack, 1)
	n.On("kept", func(_ *socketio.Socket, e socketio.Event) <-chan struct{} {
		acks <- e.Ack
		return nil
	})
	n.On("bye", func(s *socketio.Socket, _ socketio.Event) <-chan struct{} {
		s.Disconnect()
		return nil
	})
	sockets := make(chan *socketio.Socket, 1)
	n.OnConnect(func(s *socketio.Socket) { sockets <- s })
	sv := serve(t, engineio.Options{}, s)
	d := startDriver(t)
	d.Enter("a", sv.url, nil)
	socket := receive(t, sockets)

	d.Do("emit", map[string]any{"client": "a", "event": "kept", "timeout": 50})
	late := receive(t, acks)
	d.want(happening{Client: "a", What: "ack", Event: "kept", Error: "operation has timed out", Args: []any{}})
	if err := late.Send("late"); err != nil {
		t.Error(err)
	}
	d.Emit("a", "kept")
	go func() { _ = (<-acks).Send("from elsewhere") }()
	d.want(ack("a", "kept", "from elsewhere"))

	errs := make(chan error, 2)
	done := func(_ socketio.Args, err error) { errs <- err }
	if err := socket.EmitAck(50*time.Millisecond, done, "mute"); err != nil {
		t.Error(err)
	}
	d.want(event("a", "mute"))
	if err := receive(t, errs); !errors.Is(err, socketio.ErrTimeout) {
		t.Error(err)
	}
	if err := socket.EmitAck(time.Hour, done, "mute"); err != nil {
		t.Error(err)
	}
	d.want(event("a", "mute"))
	d.Emit("a", "bye")
	d.wantAll(disconnected("a", "io server disconnect"), happening{Client: "a", What: "ack", Event: "bye", Error: "socket has been disconnected", Args: []any{}})
	if err := receive(t, errs); !errors.Is(err, socketio.ErrDisconnected) {
		t.Error(err)
	}
}

func TestStockMiddleware(t *testing.T) {
	s := newServer(t)
	n := s.Of("/")
	n.Use(func(_ context.Context, h *socketio.Handshake) error {
		var auth struct{ Token string }
		if err := json.Unmarshal(h.Auth, &auth); err != nil {
			return err
		}
		switch auth.Token {
		case "good":
			h.Data = "user"
			return nil
		default:
			return &socketio.Refusal{Message: "Not authorized", Data: map[string]any{"code": 401}}
		}
	})
	n.OnConnect(func(s *socketio.Socket) { _ = s.Emit("you are", s.Data) })
	echo(n)
	sv := serve(t, engineio.Options{}, s)
	d := startDriver(t)
	d.Connect("a", sv.url, nil)
	d.want(happening{Client: "a", What: "connect_error", Message: "Not authorized", Data: map[string]any{"code": 401.0}})
	d.Do("auth", map[string]any{"client": "a", "auth": map[string]any{"token": "good"}})
	d.Send("a", "early") // the client keeps it until it is let in
	d.Say("open", "a")
	d.want(connected("a"), event("a", "you are", "user"), event("a", "early"))
}

func TestStockNamespaces(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"/", "/chat", "/admin"} {
		echo(s.Of(name))
		s.Of(name).OnConnect(func(s *socketio.Socket) { _ = s.Emit("welcome", s.Namespace().Name()) })
	}
	s.Of("/admin").Use(func(context.Context, *socketio.Handshake) error { return nil })
	sv := serve(t, engineio.Options{}, s)
	d := startDriver(t)
	d.Enter("main", sv.url, nil)
	d.want(event("main", "welcome", "/"))
	d.Enter("chat", sv.url+"/chat", nil)
	d.want(event("chat", "welcome", "/chat"))
	d.Enter("admin", sv.url+"/admin", nil)
	d.want(event("admin", "welcome", "/admin"))
	if n := s.Stats(); n.Connections != 1 || n.Sockets != 3 {
		t.Errorf("%d connections and %d sockets", n.Connections, n.Sockets)
	}
	d.Connect("none", sv.url+"/none", nil)
	d.want(happening{Client: "none", What: "connect_error", Message: "Invalid namespace"})
	d.Send("chat", "x", bytesOf("AAEC"))
	d.want(event("chat", "x", bytesOf("AAEC")))
	d.Emit("admin", "y", 1)
	d.want(ack("admin", "y", 1.0))

	d.Say("disconnect", "chat")
	d.want(disconnected("chat", "io client disconnect"))
	d.Emit("main", "z")
	d.want(ack("main", "z"))
	d.Say("open", "chat")
	d.want(connected("chat"), event("chat", "welcome", "/chat"))
}

func TestStockRooms(t *testing.T) {
	s := newServer(t)
	n := s.Of("/")
	n.On("join", func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
		var room string
		err := e.Args.Decode(&room)
		if err == nil {
			err = s.Join(room)
		}
		if err != nil {
			t.Error(err)
		}
		_ = e.Ack.Send(s.Rooms())
		return nil
	})
	n.On("say", func(s *socketio.Socket, e socketio.Event) <-chan struct{} {
		_ = s.To("red").Except("blue").Emit("said", e.Args)
		_ = e.Ack.Send()
		return nil
	})
	sv := serve(t, engineio.Options{}, s)
	d := startDriver(t)
	for client, options := range map[string]map[string]any{"a": nil, "b": ways["polling alone"], "c": ways["WebSocket alone"], "d": nil} {
		d.Enter(client, sv.url, options)
	}
	for client, room := range map[string]string{"a": "red", "b": "red", "c": "blue"} {
		d.Emit(client, "join", room)
		d.want(ack(client, "join", []any{room}))
	}
	d.Emit("c", "join", "red")
	d.want(ack("c", "join", []any{"blue", "red"}))
	d.Emit("a", "say", "hello", bytesOf("AAEC"))
	d.wantAll(ack("a", "say"), event("b", "said", "hello", bytesOf("AAEC")))
	if err := n.To("red", "blue").Emit("all", 1); err != nil {
		t.Error(err)
	}
	d.wantAll(event("a", "all", 1.0), event("b", "all", 1.0), event("c", "all", 1.0))
	if err := n.All().Emit("everybody"); err != nil {
		t.Error(err)
	}
	d.wantAll(event("a", "everybody"), event("b", "everybody"), event("c", "everybody"), event("d", "everybody"))
}

// The reasons that both sides see, and whether the client comes back.
func TestStockDisconnects(t *testing.T) {
	for name, test := range map[string]struct {
		do             func(d *driver, s *socketio.Socket)
		server, client string
		back           bool
	}{
		"the client leaves": {
			func(d *driver, _ *socketio.Socket) { d.Say("disconnect", "a") },
			"client namespace disconnect", "io client disconnect", false,
		},
		"the server disconnects": {
			func(_ *driver, s *socketio.Socket) { s.Disconnect() },
			"server namespace disconnect", "io server disconnect", false,
		},
		"the server disconnects all": {
			func(_ *driver, s *socketio.Socket) { s.DisconnectAll() },
			"server namespace disconnect", "io server disconnect", false,
		},
		"the network goes": {
			func(d *driver, _ *socketio.Socket) { d.Say("cut", "a") },
			"transport close", "transport close", true,
		},
		"the server drains": {
			func(_ *driver, s *socketio.Socket) { s.Conn().Close(1012, "restart") },
			"forced close", "transport close", true,
		},
		"the server aborts": {
			func(_ *driver, s *socketio.Socket) { s.Conn().Abort() },
			"forced close", "transport close", true,
		},
		"a malformed packet": {
			func(d *driver, _ *socketio.Socket) {
				d.Do("raw", map[string]any{"client": "a", "text": "abc"})
			},
			"forced close", "transport close", true,
		},
		"an event before CONNECT": {
			func(d *driver, _ *socketio.Socket) {
				d.Do("raw", map[string]any{"client": "a", "text": `2/other,["x"]`})
			},
			"forced close", "transport close", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			sockets, reasons := make(chan *socketio.Socket, 2), make(chan socketio.Reason, 2)
			s.Of("/other")
			n := s.Of("/")
			n.OnConnect(func(s *socketio.Socket) { sockets <- s })
			n.OnDisconnect(func(_ *socketio.Socket, reason socketio.Reason) { reasons <- reason })
			sv := serve(t, engineio.Options{}, s)
			d := startDriver(t)
			d.Enter("a", sv.url, map[string]any{"transports": []string{"websocket"}})
			test.do(d, receive(t, sockets))
			d.want(disconnected("a", test.client))
			reason := receive(t, reasons)
			if name == "the network goes" && reason == "transport error" {
				reason = "transport close" // a reset, where there was something to read
			}
			if string(reason) != test.server {
				t.Errorf("the server says %s, want %s", reason, test.server)
			}
			if test.back {
				d.want(connected("a"))
			} else {
				d.Say("open", "a")
				d.want(connected("a"))
			}
		})
	}
	t.Run("nobody answers pings", func(t *testing.T) {
		s := newServer(t)
		reasons := make(chan socketio.Reason, 2)
		s.Of("/").OnDisconnect(func(_ *socketio.Socket, reason socketio.Reason) {
			select {
			case reasons <- reason:
			default: // on a slow machine there may be more
			}
		})
		sv := serve(t, engineio.Options{PingInterval: 500 * time.Millisecond, PingTimeout: 500 * time.Millisecond}, s)
		d := startDriver(t)
		d.Enter("a", sv.url, ways["WebSocket alone"])
		d.Do("block", map[string]any{"ms": 3000})
		if reason := receive(t, reasons); reason != "ping timeout" {
			t.Errorf("the server says %s", reason)
		}
		d.until("disconnect")
		d.until("connect")
	})
	t.Run("the server shuts down", func(t *testing.T) {
		s := newServer(t)
		reasons := make(chan socketio.Reason, 2)
		s.Of("/").OnDisconnect(func(_ *socketio.Socket, reason socketio.Reason) { reasons <- reason })
		sv := serve(t, engineio.Options{}, s)
		d := startDriver(t)
		d.Enter("a", sv.url, nil)
		sv.shutdown(t)
		d.want(disconnected("a", "transport close"))
		if reason := receive(t, reasons); reason != "server shutting down" {
			t.Errorf("the server says %s", reason)
		}
	})
}

// store is what a program may keep to recover: here, of one stream for all.
type store struct {
	mu     sync.Mutex
	events []string
	lost   int // events that are kept no more
}

// add appends an event.
func (s *store) add(text string, send func(offset socketio.Offset)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, text)
	send(socketio.Offset(strconv.Itoa(len(s.events))))
}

// Connection state recovery, as the stock client has it.
func TestStockRecovery(t *testing.T) {
	for name, options := range ways {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			n := s.Of("/")
			st := new(store)
			n.Recover(func(_ context.Context, h *socketio.Handshake) (socketio.Recovery, error) {
				st.mu.Lock()
				defer st.mu.Unlock()
				offset, err := strconv.Atoi(h.Offset)
				var sid string
				if known, _ := fmt.Sscanf(h.PID, "pid-of-%s", &sid); known == 1 && err == nil && offset >= st.lost {
					h.Data = offset
					return socketio.Recovery{PID: h.PID, SID: sid}, nil
				}
				h.Data = len(st.events)
				return socketio.Recovery{PID: "pid-of-" + h.SID}, nil
			})
			sockets := make(chan *socketio.Socket, 1)
			n.OnConnect(func(s *socketio.Socket) {
				st.mu.Lock()
				defer st.mu.Unlock()
				for i := s.Data.(int); i < len(st.events); i++ { //nolint:forcetypeassert // the hook's
					_ = s.Emit("e", st.events[i], socketio.Offset(strconv.Itoa(i+1)))
				}
				_ = s.Join("all")
				sockets <- s
			})
			sv := serve(t, engineio.Options{}, s)
			d := startDriver(t)
			say := func(text string) {
				st.add(text, func(offset socketio.Offset) { _ = n.To("all").Emit("e", text, offset) })
			}

			first := d.Enter("a", sv.url, options)
			socket := receive(t, sockets)
			say("one")
			say("two")
			d.want(event("a", "e", "one", "1"), event("a", "e", "two", "2"))

			socket.Leave("all") // so that it misses what comes
			say("three")
			say("four")
			socket.Conn().Abort()
			d.until("disconnect")
			want := connected("a")
			want.Recovered, want.ID = true, first.ID
			d.want(want, event("a", "e", "three", "3"), event("a", "e", "four", "4"))
			socket = receive(t, sockets)
			if !socket.Recovered() || socket.ID() != first.ID {
				t.Errorf("recovered %v as %s, was %s", socket.Recovered(), socket.ID(), first.ID)
			}
			say("five")
			d.want(event("a", "e", "five", "5"))

			socket.Leave("all")
			say("six")
			say("seven")
			st.mu.Lock()
			st.lost = 6
			st.mu.Unlock()
			socket.Conn().Abort()
			d.until("disconnect")
			if h := d.Next(); h.What != "connect" || h.Recovered || h.ID == first.ID {
				t.Errorf("what is lost was recovered: %+v", h)
			}
			receive(t, sockets)
			say("eight")
			d.want(event("a", "e", "eight", "8"))
			if n := s.Stats().Recovered; n != 1 {
				t.Errorf("%d were recovered", n)
			}
		})
	}
}

// Nobody can find out who the client is, twice: it comes back by itself, and is
// recovered.
func TestStockComesBackWhenUndecided(t *testing.T) {
	for name, options := range ways {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			n := s.Of("/")
			var failures atomic.Int32
			n.Use(func(context.Context, *socketio.Handshake) error {
				if failures.Add(-1) >= 0 {
					return errors.New("the database is down")
				}
				return nil
			})
			n.Recover(func(_ context.Context, h *socketio.Handshake) (socketio.Recovery, error) {
				if h.PID != "" {
					return socketio.Recovery{PID: h.PID, SID: "earlier"}, nil
				}
				return socketio.Recovery{PID: "pid", SID: ""}, nil
			})
			sockets := make(chan *socketio.Socket, 1)
			n.OnConnect(func(s *socketio.Socket) { sockets <- s })
			sv := serve(t, engineio.Options{}, s)
			d := startDriver(t)
			comesBack := func(disconnects int) happening {
				for {
					h := d.Next()
					switch {
					case h.What == "disconnect" && disconnects > 0:
						disconnects--
					case h.What == "connect" && disconnects == 0:
						return h
					default:
						t.Fatalf("%d disconnects before what is to happen: %+v", disconnects, h)
					}
				}
			}
			failures.Store(2)
			d.Connect("a", sv.url, options)
			if h := comesBack(2); h.Recovered {
				t.Errorf("%+v", h)
			}
			socket := receive(t, sockets)
			failures.Store(2)
			socket.Conn().Abort()
			if h := comesBack(3); !h.Recovered || h.ID != "earlier" {
				t.Errorf("%+v", h)
			}
			if st := s.Stats(); st.Undecided != 4 || st.Refused != 0 || st.Recovered != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// Without the hook nothing is recovered, and events that end in a string are just
// that.
func TestStockWithoutRecovery(t *testing.T) {
	s := newServer(t)
	sockets := make(chan *socketio.Socket, 1)
	s.Of("/").OnConnect(func(s *socketio.Socket) { sockets <- s })
	sv := serve(t, engineio.Options{}, s)
	d := startDriver(t)
	d.Enter("a", sv.url, nil)
	socket := receive(t, sockets)
	if err := socket.Emit("e", "text"); err != nil {
		t.Error(err)
	}
	d.want(event("a", "e", "text"))
	socket.Conn().Abort()
	d.until("disconnect")
	d.want(connected("a"))
	if receive(t, sockets).Recovered() {
		t.Error("it was recovered")
	}
}
