package socketio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// Section "Connection to a namespace": the server may let a client in or not.
func TestMiddleware(t *testing.T) {
	t.Run("lets in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{Facts: func(c Conn, r *http.Request) any { return c.ID() + " at " + r.URL.Path }})
			n := s.Of("/admin")
			var seen []*Handshake
			n.Use(func(_ context.Context, h *Handshake) error {
				seen = append(seen, h)
				h.Data = "first"
				return nil
			})
			n.Use(func(_ context.Context, h *Handshake) error {
				h.Data = fmt.Sprint(h.Data, " and second")
				return nil
			})
			var socket *Socket
			n.OnConnect(func(s *Socket) { socket = s })
			c := connect(t, s)
			c.say(`0/admin,{"token":"123"}`)
			synctest.Wait()
			sid := c.answered().SID
			want := Handshake{Namespace: "/admin", Auth: []byte(`{"token":"123"}`), SID: sid, Conn: c, Facts: "engine at /socket.io/", Data: "first and second"}
			if diff := cmp.Diff(want, *seen[0], cmp.Comparer(func(a, b Conn) bool { return a == b }), cmpopts.IgnoreUnexported(Handshake{})); diff != "" {
				t.Error(diff)
			}
			if socket.Data != "first and second" || socket.ID() != sid || socket.Facts() != want.Facts || socket.Conn() != Conn(c) || socket.Namespace() != n || socket.Recovered() {
				t.Errorf("socket: %+v", socket)
			}
			c.end(engineio.TransportClose)
			if err := s.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	for name, test := range map[string]struct {
		err  error
		want string
		log  string
	}{
		"refuses":                   {&Refusal{Message: "Not authorized"}, `4{"message":"Not authorized"}`, ""},
		"refuses with data":         {&Refusal{Message: "No", Data: map[string]any{"retry": true}}, `4{"message":"No","data":{"retry":true}}`, ""},
		"refuses, wrapped":          {fmt.Errorf("login: %w", &Refusal{Message: "No"}), `4{"message":"No"}`, ""},
		"refuses with what is none": {&Refusal{Message: "No", Data: func() {}}, `4{"message":"No"}`, "unsupported type"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := NewServer(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
				n := s.Of("/")
				j := keep(n)
				n.Use(func(context.Context, *Handshake) error { return test.err })
				n.Use(func(context.Context, *Handshake) error {
					t.Error("the next one is asked")
					return nil
				})
				c := connect(t, s)
				c.say("0")
				synctest.Wait()
				c.want(test.want)
				if !strings.Contains(log.String(), test.log) || test.log == "" && log.Len() > 0 {
					t.Errorf("logged %q, want %q", &log, test.log)
				}
				c.say(`2["a"]`)
				c.wantClosed(1002)
				c.end(engineio.TransportClose)
				j.want(t)
				if st := s.Stats(); st.Refused != 1 || st.Connected != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// A client of which nobody could find out whether it may come in is not told that
// it may not: it would stay away for good.
func TestMiddlewareThatFails(t *testing.T) {
	undecided := func(t *testing.T, s *Server, c *session) {
		t.Helper()
		c.want()
		c.wantClosed(1013)
		if strings.Contains(c.closing, "secret") {
			t.Errorf("the client is told: %s", c.closing)
		}
		if st := s.Stats(); st.Refused != 0 || st.Undecided != 1 || st.Malformed != 0 {
			t.Errorf("%+v", st)
		}
	}
	t.Run("with an error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			s := NewServer(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			n := s.Of("/")
			j, other := keep(n), keep(s.Of("/other"))
			n.Use(func(context.Context, *Handshake) error { return errors.New("the database's secret") })
			n.Use(func(context.Context, *Handshake) error {
				t.Error("the next one is asked")
				return nil
			})
			c := connect(t, s)
			c.say("0/other,")
			c.heard()
			c.say("0")
			synctest.Wait()
			undecided(t, s, c)
			if !strings.Contains(log.String(), "the database's secret") {
				t.Errorf("logged %q", &log)
			}
			c.end(engineio.ForcedClose)
			j.want(t)
			other.want(t, "connect", "disconnect: forced close")
		})
	})
	t.Run("the hook of recovery", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/").Recover(func(context.Context, *Handshake) (Recovery, error) {
				return Recovery{PID: "x"}, errors.New("the database's secret")
			})
			c := connect(t, s)
			c.say("0")
			synctest.Wait()
			undecided(t, s, c)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("by taking too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			j := keep(s.Of("/"))
			s.Of("/").Use(func(context.Context, *Handshake) error {
				time.Sleep(time.Hour) // it takes no notice
				return nil
			})
			c := connect(t, s)
			c.say("0")
			c.wantClosedAfter(45*time.Second, 1013)
			undecided(t, s, c)
			time.Sleep(2 * time.Hour) // it lets in who is gone
			c.want()
			c.end(engineio.ForcedClose)
			j.want(t)
		})
	})
	t.Run("by ending with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			slow(s.Of("/"))
			c := connect(t, s)
			c.say("0")
			c.wantClosedAfter(45*time.Second, 1013)
			undecided(t, s, c)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("by being busy with others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxConnecting: 1})
			goOn := make(chan struct{})
			s.Of("/").Use(func(context.Context, *Handshake) error {
				<-goOn
				return nil
			})
			first, c := connect(t, s), connect(t, s)
			first.say("0")
			first.end(engineio.TransportClose)
			c.say("0")
			c.wantClosedAfter(45*time.Second, 1013)
			undecided(t, s, c)
			if n := s.admitter.queue.Len(); n != 0 {
				t.Errorf("%d wait for what they have lost", n)
			}
			close(goOn)
			c.end(engineio.ForcedClose)
			if err := s.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

// What was taken for a socket that does not come to be is given back, once.
func TestOnAbandon(t *testing.T) {
	// begin has two take something, the second one in the hook of recovery.
	begin := func(t *testing.T, o Options, decide func(ctx context.Context) error) (*Server, *journal, *session) {
		t.Helper()
		s := NewServer(o)
		n := s.Of("/")
		j := keep(n)
		n.Use(func(_ context.Context, h *Handshake) error {
			j.add("take one")
			h.OnAbandon(func() { j.add("give one back") })
			return nil
		})
		n.Recover(func(ctx context.Context, h *Handshake) (Recovery, error) {
			j.add("take two")
			h.OnAbandon(func() { j.add("give two back") })
			return Recovery{}, decide(ctx)
		})
		c := connect(t, s)
		c.say("0")
		synctest.Wait()
		return s, j, c
	}
	for name, test := range map[string]struct {
		err error
		end engineio.Reason
	}{
		"refused":             {err: &Refusal{Message: "No"}},
		"undecided":           {err: errors.New("the database is down"), end: engineio.ForcedClose},
		"the connection ends": {end: engineio.TransportClose},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				goOn := make(chan error)
				s, j, c := begin(t, Options{}, func(context.Context) error { return <-goOn })
				if test.end == engineio.TransportClose {
					c.end(test.end)
				}
				j.want(t, "take one", "take two")
				goOn <- test.err
				synctest.Wait()
				j.want(t, "give two back", "give one back")
				if test.end != engineio.TransportClose {
					c.end(engineio.ForcedClose)
				}
				if err := s.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				j.want(t)
			})
		})
	}
	t.Run("it takes too long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, j, c := begin(t, Options{}, func(context.Context) error {
				time.Sleep(time.Hour)
				return nil
			})
			time.Sleep(2 * time.Hour)
			j.want(t, "take one", "take two", "give two back", "give one back")
			c.end(engineio.ForcedClose)
			j.want(t)
		})
	})
	t.Run("let in", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, j, c := begin(t, Options{}, func(context.Context) error { return nil })
			c.end(engineio.TransportClose)
			synctest.Wait()
			j.want(t, "take one", "take two", "connect", "disconnect: transport close")
		})
	})
	t.Run("let in at the moment of its end", func(t *testing.T) {
		s := NewServer(Options{})
		n := s.Of("/")
		var taken atomic.Int32
		n.Use(func(_ context.Context, h *Handshake) error {
			taken.Add(1)
			h.OnAbandon(func() { taken.Add(-1) })
			return nil
		})
		n.OnDisconnect(func(*Socket, Reason) { taken.Add(-1) })
		for range 500 {
			c := connect(t, s)
			c.say("0")
			c.end(engineio.TransportClose)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if n := taken.Load(); n != 0 {
			t.Errorf("%d are not given back", n)
		}
	})
}

// slow makes middleware that takes its time: until a test lets it go on.
func slow(n *Namespace) (goOn chan error, ended *atomic.Int32) {
	goOn, ended = make(chan error), new(atomic.Int32)
	n.Use(func(ctx context.Context, _ *Handshake) error {
		select {
		case err := <-goOn:
			return err
		case <-ctx.Done():
			ended.Add(1)
			return ctx.Err()
		}
	})
	return goOn, ended
}

func TestSlowMiddleware(t *testing.T) {
	t.Run("while the connection goes on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			j, other := keep(s.Of("/slow")), keep(s.Of("/"))
			goOn, _ := slow(s.Of("/slow"))
			c := connect(t, s)
			c.say("0/slow,", "0", `2["a"]`)
			other.want(t, "connect", "a()")
			c.want(`0{"sid":"*"}`)
			goOn <- nil
			synctest.Wait()
			c.want(`0/slow,{"sid":"*"}`)
			j.want(t, "connect")
			c.end(engineio.TransportClose)
			j.want(t, "disconnect: transport close")
		})
	})
	for name, message := range map[string]string{
		"an event comes":       `2["a"]`,
		"an ack comes":         `31[]`,
		"DISCONNECT comes":     `1`,
		"CONNECT comes, again": `0`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Options{})
				j := keep(s.Of("/"))
				_, ended := slow(s.Of("/"))
				c := connect(t, s)
				c.say("0")
				synctest.Wait()
				c.say(message)
				c.wantClosed(1002)
				c.end(engineio.ForcedClose)
				synctest.Wait()
				if ended.Load() != 1 {
					t.Error("the middleware has not ended")
				}
				j.want(t)
				c.want()
			})
		})
	}
	t.Run("of many, some at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxConnecting: 2})
			goOn, ended := slow(s.Of("/"))
			var order []string
			s.Of("/").Use(func(_ context.Context, h *Handshake) error {
				order = append(order, string(h.Auth))
				return nil
			})
			var sessions []*session
			for i := range 5 {
				c := connect(t, s)
				c.say(fmt.Sprintf(`0{"n":%d}`, i))
				sessions = append(sessions, c)
			}
			synctest.Wait()
			sessions[3].end(engineio.TransportClose) // while it is in the queue
			sessions[0].end(engineio.TransportClose) // while it is being decided on
			synctest.Wait()
			if ended.Load() != 1 || s.admitter.queue.Len() != 1 {
				t.Errorf("%d have ended, %d wait", ended.Load(), s.admitter.queue.Len())
			}
			for range 3 {
				goOn <- nil
				synctest.Wait()
			}
			slices.Sort(order)
			if diff := cmp.Diff([]string{`{"n":1}`, `{"n":2}`, `{"n":4}`}, order); diff != "" {
				t.Error(diff)
			}
			for _, i := range []int{1, 2, 4} {
				sessions[i].want(`0{"sid":"*"}`)
				sessions[i].end(engineio.TransportClose)
			}
			if err := s.Wait(t.Context()); err != nil || s.admitter.deciding != 0 {
				t.Errorf("%d run: %v", s.admitter.deciding, err)
			}
		})
	})
	t.Run("does not wait for OnConnect of others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxConnecting: 1})
			n := s.Of("/")
			n.Use(func(context.Context, *Handshake) error { return nil })
			goOn := make(chan struct{})
			n.OnConnect(func(*Socket) { <-goOn }) // clients that do not read what they missed
			var sessions []*session
			for range 3 {
				c := connect(t, s)
				c.say("0")
				synctest.Wait()
				c.want(`0{"sid":"*"}`)
				sessions = append(sessions, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error("it does not wait for OnConnect:", err)
			}
			close(goOn)
			for _, c := range sessions {
				c.end(engineio.TransportClose)
			}
			if err := s.Wait(t.Context()); err != nil || s.admitter.deciding != 0 {
				t.Errorf("%d run: %v", s.admitter.deciding, err)
			}
		})
	})
	t.Run("is waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			slow(s.Of("/"))
			c := connect(t, s)
			c.say("0")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			c.end(engineio.TransportClose)
			if err := s.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

// What comes while OnConnect runs waits for it; see the package's documentation.
func TestGreeting(t *testing.T) {
	type test struct {
		s    *Server
		c    *session
		j    *journal
		goOn chan struct{}
	}
	begin := func(t *testing.T) test {
		t.Helper()
		s := NewServer(Options{})
		n := s.Of("/")
		j := keep(n)
		goOn := make(chan struct{})
		n.Use(func(context.Context, *Handshake) error { return nil })
		n.OnConnect(func(s *Socket) {
			_ = s.EmitAck(time.Hour, func(args Args, err error) { j.add("ack: %s, %v", args.list, err) }, "hello")
			<-goOn
			j.add("connect, may send: %v", s.Emit("welcome"))
		})
		c := connect(t, s)
		c.say("0")
		synctest.Wait()
		c.want(`0{"sid":"*"}`, `20["hello"]`)
		return test{s, c, j, goOn}
	}
	t.Run("an event waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t)
			pause := b.c.say(`2["a",{"b":1}]`)
			synctest.Wait()
			b.j.want(t)
			close(b.goOn)
			<-pause
			b.j.want(t, "connect, may send: <nil>", `a({"b":1})`)
			if pause := b.c.say(`2["b"]`); pause != nil {
				t.Error("the next one waits, too")
			}
			b.j.want(t, "b()")
			b.c.end(engineio.TransportClose)
			b.j.want(t, "disconnect: transport close", "ack: , the socket is disconnected")
		})
	})
	t.Run("an acknowledgement does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t)
			if pause := b.c.say(`30["x"]`); pause != nil {
				t.Error("it waits")
			}
			b.j.want(t, `ack: "x", <nil>`)
			close(b.goOn)
			synctest.Wait()
			b.c.end(engineio.TransportClose)
		})
	})
	t.Run("an event with attachments waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t)
			pause := b.c.say(`51-["a",{"_placeholder":true,"num":0}]`, "bin:x")
			close(b.goOn)
			<-pause
			b.j.want(t, "connect, may send: <nil>", `a({"_placeholder":true,"num":0})`)
			b.c.end(engineio.TransportClose)
		})
	})
	t.Run("DISCONNECT waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t)
			pause := b.c.say(`1`)
			synctest.Wait()
			b.j.want(t)
			close(b.goOn)
			<-pause
			b.j.want(t, "connect, may send: <nil>", "ack: , the socket is disconnected", "disconnect: client namespace disconnect")
			b.c.wantOpen()
			b.c.end(engineio.TransportClose)
			b.j.want(t)
		})
	})
	t.Run("the connection ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t)
			pause := b.c.say(`2["a"]`)
			b.c.end(engineio.TransportClose)
			b.j.want(t, "ack: , the socket is disconnected")
			close(b.goOn)
			<-pause
			synctest.Wait()
			b.j.want(t, "connect, may send: the socket is disconnected", "disconnect: transport close")
			if n := b.s.Stats().Sockets; n != 0 {
				t.Errorf("%d sockets", n)
			}
		})
	})
	t.Run("the server disconnects meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			j := keep(n)
			n.OnConnect(func(s *Socket) {
				s.Disconnect()
				j.add("connect")
			})
			c := connect(t, s)
			c.say("0", `2["late"]`)
			c.want(`0{"sid":"*"}`, "1")
			j.want(t, "connect", "disconnect: server namespace disconnect")
			c.end(engineio.TransportClose)
			j.want(t)
		})
	})
	t.Run("the event that waited pauses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			greet, until := make(chan struct{}), make(chan struct{})
			n.Use(func(context.Context, *Handshake) error { return nil })
			n.OnConnect(func(*Socket) { <-greet })
			n.OnAny(func(*Socket, Event) <-chan struct{} { return until })
			c := connect(t, s)
			c.say("0")
			synctest.Wait()
			pause := c.say(`2["a"]`)
			close(greet)
			synctest.Wait()
			select {
			case <-pause:
				t.Error("the connection reads on")
			default:
			}
			close(until)
			<-pause
			c.end(engineio.TransportClose)
			if err := s.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

// The hooks of connection state recovery. What the client makes of them is in the
// tests with the stock client.
func TestRecover(t *testing.T) {
	server := func() (*Server, *[]*Handshake) {
		s := NewServer(Options{})
		var seen []*Handshake
		s.Of("/").Recover(func(_ context.Context, h *Handshake) (Recovery, error) {
			seen = append(seen, h)
			switch h.PID {
			case "theirs":
				return Recovery{}, &Refusal{Message: "No"}
			case "old":
				return Recovery{PID: h.PID, SID: "earlier"}, nil
			case "other":
				return Recovery{PID: "another", SID: "earlier"}, nil
			case "same":
				return Recovery{PID: h.PID}, nil
			default:
				return Recovery{PID: "new of " + h.SID}, nil
			}
		})
		s.Of("/").OnConnect(func(s *Socket) { _ = s.Emit("missed", s.Recovered(), Offset("1")) })
		return s, &seen
	}
	t.Run("a first connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, seen := server()
			c := connect(t, s)
			c.say(`0{"token":"1"}`)
			synctest.Wait()
			c.want(`0{"sid":"*","pid":"new of *"}`, `2["missed",false,"1"]`)
			if h := (*seen)[0]; h.PID != "" || h.Offset != "" {
				t.Errorf("%+v", h)
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("recovered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, seen := server()
			c := connect(t, s)
			c.say(`0{"pid":"old","offset":"7","token":"1"}`)
			synctest.Wait()
			c.want(`0{"sid":"earlier","pid":"old"}`, `2["missed",true,"1"]`)
			if h := (*seen)[0]; h.PID != "old" || h.Offset != "7" {
				t.Errorf("%+v", h)
			}
			if n := s.Stats().Recovered; n != 1 {
				t.Errorf("%d are recovered", n)
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("not recovered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := server()
			c := connect(t, s)
			c.say(`0{"pid":"older","offset":"7"}`)
			synctest.Wait()
			c.want(`0{"sid":"*","pid":"new of *"}`, `2["missed",false,"1"]`)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("as the client reckons, which looks at the PID", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := server()
			for pid, want := range map[string][]string{
				"other": {`0{"sid":"earlier","pid":"another"}`, `2["missed",false,"1"]`},
				"same":  {`0{"sid":"*","pid":"same"}`, `2["missed",true,"1"]`},
			} {
				c := connect(t, s)
				c.say(`0{"pid":"` + pid + `"}`)
				synctest.Wait()
				c.want(want...)
				c.end(engineio.TransportClose)
			}
			if n := s.Stats().Recovered; n != 1 {
				t.Errorf("%d are recovered", n)
			}
		})
	})
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := server()
			c := connect(t, s)
			c.say(`0{"pid":"theirs"}`)
			synctest.Wait()
			c.want(`4{"message":"No"}`)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("what is no string is not there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, seen := server()
			c := connect(t, s)
			c.say(`0{"pid":["old"],"PID":"old","offset":7}`)
			synctest.Wait()
			if h := (*seen)[0]; h.PID != "" || h.Offset != "" {
				t.Errorf("%+v", h)
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("while the earlier connection seems to live", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := server()
			n := s.Of("/")
			var reasons []Reason
			n.OnDisconnect(func(_ *Socket, reason Reason) { reasons = append(reasons, reason) })
			first := connect(t, s)
			first.say(`0{"pid":"old"}`)
			synctest.Wait()
			second := connect(t, s)
			second.say(`0{"pid":"old"}`)
			synctest.Wait()
			first.wantAborted()
			first.end(engineio.ForcedClose)
			if n.Socket("earlier") == nil || len(reasons) != 1 {
				t.Errorf("the second has gone with the first: %v", reasons)
			}
			second.wantOpen()
			second.end(engineio.TransportClose)
			if n.Socket("earlier") != nil || s.Stats().Sockets != 0 {
				t.Error("the second is left")
			}
		})
	})
	t.Run("while the program hears of the end of the earlier socket", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := server()
			n := s.Of("/")
			n.OnDisconnect(func(s *Socket, _ Reason) {
				c := s.Conn().(*session) //nolint:forcetypeassert // it is a test's
				c.say(`0{"pid":"old"}`)  // which may come before this returns
				synctest.Wait()
				c.wantOpen()
				n.onDisconnect = func(*Socket, Reason) {}
			})
			c := connect(t, s)
			c.say(`0{"pid":"old"}`)
			synctest.Wait()
			first := n.Socket("earlier")
			first.Disconnect()
			synctest.Wait()
			c.want(`0{"sid":"earlier","pid":"old"}`, `2["missed",true,"1"]`, `1`, `0{"sid":"earlier","pid":"old"}`, `2["missed",true,"1"]`)
			if second := n.Socket("earlier"); second == nil || second == first || s.Stats().Sockets != 1 {
				t.Error("the second has gone with the first")
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c := connect(t, s)
			c.say(`0{"pid":"old","offset":"7"}`)
			c.want(`0{"sid":"*"}`)
			c.end(engineio.TransportClose)
		})
	})
}
