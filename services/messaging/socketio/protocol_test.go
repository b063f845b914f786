package socketio

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// Section "Connection to a namespace".
func TestConnect(t *testing.T) {
	t.Run("to the main namespace", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			j := keep(s.Of("/"))
			c := connect(t, s)
			c.say("0")
			c.want(`0{"sid":"*"}`)
			j.want(t, "connect")
			c.end(engineio.TransportClose)
			j.want(t, "disconnect: transport close")
		})
	})
	t.Run("to one of many on the same connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			main, admin := keep(s.Of("/")), keep(s.Of("/admin"))
			c := connect(t, s)
			c.say(`0/admin,{"token":"123"}`)
			c.want(`0/admin,{"sid":"*"}`)
			c.say(`0`, `2["a"]`, `2/admin,["b"]`)
			c.want(`0{"sid":"*"}`)
			main.want(t, "connect", "a()")
			admin.want(t, "connect", "b()")
			c.end(engineio.PingTimeout)
			main.want(t, "disconnect: ping timeout")
			admin.want(t, "disconnect: ping timeout")
		})
	})
	t.Run("sids differ from each other and from the session's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			s.Of("/b")
			c := connect(t, s)
			c.say("0")
			first := c.answered()
			c.say("0/b,")
			if second := c.answered(); first.SID == second.SID || first.SID == c.ID() || len(first.SID) < 20 {
				t.Errorf("sids %q and %q", first.SID, second.SID)
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("to one that is unknown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			j := keep(s.Of("/"))
			c := connect(t, s)
			c.say(`0/random,{"token":"123"}`)
			c.want(`4/random,{"message":"Invalid namespace"}`)
			c.wantOpen()
			c.say(`0`)
			c.want(`0{"sid":"*"}`)
			j.want(t, "connect")
			c.end(engineio.TransportClose)
		})
	})
	t.Run("after a refusal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/").Use(func(_ context.Context, h *Handshake) error {
				if string(h.Auth) == "{}" {
					return &Refusal{Message: "Not authorized"}
				}
				return nil
			})
			c := connect(t, s)
			c.say("0")
			synctest.Wait()
			c.want(`4{"message":"Not authorized"}`)
			c.say(`0{"token":"1"}`)
			synctest.Wait()
			c.want(`0{"sid":"*"}`)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("to too many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxNamespaces: 2})
			s.Of("/")
			s.Of("/b")
			s.Of("/c")
			c := connect(t, s)
			c.say("0", "0/b", "0/c")
			c.want(`0{"sid":"*"}`, `0/b,{"sid":"*"}`, `4/c,{"message":"Too many namespaces"}`)
			c.say("1/b", "0/c")
			c.want(`0/c,{"sid":"*"}`)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("refused too often", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxRefusals: 3})
			c := connect(t, s)
			c.say("0", "0/b")
			c.wantOpen()
			c.say("0")
			c.wantClosed(1008)
			if n := s.Stats().Malformed; n != 0 {
				t.Error("its packets were in order")
			}
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("refused now and then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxRefusals: 3})
			s.Of("/")
			c := connect(t, s)
			for range 10 {
				c.say("0/b", "0/b", "0", "1")
			}
			c.wantOpen()
			c.say("0/b", "0/b", "0/b")
			c.wantClosed(1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxConnects: 3, ConnectTimeout: time.Hour})
			asked := 0
			s.Of("/").Use(func(context.Context, *Handshake) error {
				asked++
				return nil
			})
			c := connect(t, s)
			again := func(n int) {
				for range n {
					c.say("0")
					synctest.Wait()
					c.say("1")
				}
			}
			again(3)
			time.Sleep(time.Minute)
			again(3)
			c.wantOpen()
			time.Sleep(time.Minute - 1)
			c.say("0")
			synctest.Wait()
			c.wantClosed(1008)
			if asked != 6 || s.Stats().Malformed != 0 {
				t.Errorf("asked %d times; %+v", asked, s.Stats())
			}
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("refused too often by middleware", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxRefusals: 2})
			s.Of("/").Use(func(context.Context, *Handshake) error { return &Refusal{Message: "No"} })
			c := connect(t, s)
			for range 2 {
				c.wantOpen()
				c.say("0")
				synctest.Wait()
			}
			c.want(`4{"message":"No"}`, `4{"message":"No"}`)
			c.wantClosed(1008)
			c.end(engineio.ForcedClose)
		})
	})
}

// Section "Connection to a namespace": a client that does not CONNECT is closed; so
// is one that has left its last namespace, in time.
func TestConnectTimeout(t *testing.T) {
	t.Run("nothing comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			c := connect(t, s)
			c.wantClosedAfter(45*time.Second, 1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("CONNECT comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{ConnectTimeout: time.Second})
			s.Of("/")
			c := connect(t, s)
			time.Sleep(time.Second - 1)
			c.say("0")
			time.Sleep(time.Hour)
			c.wantOpen()
			c.say("1")
			time.Sleep(time.Second - 1)
			synctest.Wait()
			c.wantOpen()
			c.say("0")
			time.Sleep(time.Hour)
			c.wantOpen()
			c.say("1")
			c.wantClosedAfter(time.Second, 1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("CONNECT is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{ConnectTimeout: time.Second})
			c := connect(t, s)
			time.Sleep(time.Second / 2)
			c.say("0")
			c.wantClosedAfter(time.Second/2, 1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("the session ends before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := connect(t, NewServer(Options{}))
			c.end(engineio.TransportClose)
			time.Sleep(time.Hour)
			if c.closing != "ended" {
				t.Errorf("closed for %s", c.closing)
			}
		})
	})
}

// What closes the connection, in every state ("Connection to a namespace": CONNECT
// is first; "Sending and receiving data": the payload; "Packet encoding").
func TestViolations(t *testing.T) {
	for name, messages := range map[string][]string{
		"an event before CONNECT":          {`2["a"]`},
		"an ack before CONNECT":            {`31[]`},
		"DISCONNECT before CONNECT":        {`1`},
		"an event for another namespace":   {`0`, `2/b,["a"]`},
		"a binary event before CONNECT":    {`51-["a",{"_placeholder":true,"num":0}]`},
		"a binary event for another":       {`0`, `51-/b,["a",{"_placeholder":true,"num":0}]`},
		"a binary event after DISCONNECT":  {`0`, `1`, `51-["a",{"_placeholder":true,"num":0}]`},
		"a binary ack before CONNECT":      {`61-1[{"_placeholder":true,"num":0}]`},
		"CONNECT twice":                    {`0`, `0`},
		"an event after DISCONNECT":        {`0`, `1`, `2["a"]`},
		"DISCONNECT twice":                 {`0`, `1`, `1`},
		"CONNECT_ERROR":                    {`0`, `4{"message":"a"}`},
		"CONNECT_ERROR first":              {`4{"message":"a"}`},
		"a malformed packet":               {`0`, `abc`},
		"an event without a payload":       {`0`, `2`},
		"an event with an object":          {`0`, `2{}`},
		"an attachment of no packet":       {`0`, `bin:x`},
		"an attachment too many":           {`0`, `51-["a",{"_placeholder":true,"num":0}]`, `bin:x`, `bin:y`},
		"text in an attachment's place":    {`0`, `51-["a",{"_placeholder":true,"num":0}]`, `2["b"]`},
		"attachments that are too large":   {`0`, `52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, `bin:1234567890`, `bin:1234567890`},
		"a binary text that is too large":  {`0`, `51-["a",{"_placeholder":true,"num":0},"12345678901234567890123456789012345678901234567890"]`},
		"too many attachments":             {`0`, `53-["a"]`},
		"a placeholder that is out of all": {`0`, `51-["a",{"_placeholder":true,"num":1}]`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Options{MaxAttachments: 2, MaxPacket: 85})
				s.Of("/")
				s.Of("/b")
				c := connect(t, s)
				c.say(messages[:len(messages)-1]...)
				c.wantOpen()
				c.say(messages[len(messages)-1])
				c.wantClosed(1002)
				if n := s.Stats().Malformed; n != 1 {
					t.Errorf("%d malformed packets", n)
				}
				c.end(engineio.ForcedClose)
			})
		})
	}
}

// Packets that wait for attachments share what they are held in.
func TestPacketsThatWaitShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const event, limit = `52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, 200
		s := NewServer(Options{MaxHeld: limit})
		j := keep(s.Of("/"))
		first, _ := enter(t, s)
		first.say(event, "bin:"+strings.Repeat("x", limit-2*len(event)))
		second, _ := enter(t, s)
		second.say(event)
		third, _ := enter(t, s)
		third.say(event)
		third.wantClosed(1013)
		third.end(engineio.ForcedClose)
		second.end(engineio.TransportClose) // which gives back what it held
		first.say("bin:two")
		first.wantOpen()
		j.want(t, "connect", "connect", "connect", "disconnect: forced close", "disconnect: transport close", "a(*)")
		first.end(engineio.TransportClose)
		if n := s.held.Left(); n != limit {
			t.Errorf("%d are left in the end", n)
		}
		if n := s.Stats().Malformed; n != 0 {
			t.Errorf("%d packets count as malformed", n)
		}
	})
}

// Section "Sending and receiving data".
func TestEvents(t *testing.T) {
	t.Run("to their handlers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			j := keep(n)
			n.On("a", func(_ *Socket, e Event) <-chan struct{} {
				j.add("a's: %s(%s)", e.Name, e.Args.list)
				return nil
			})
			n.On("7", func(_ *Socket, e Event) <-chan struct{} {
				j.add("7's: %s(%s)", e.Name, e.Args.list)
				return nil
			})
			c, _ := enter(t, s)
			c.say(`2["a",1,"2",{"3":[true]}]`, `2["\u0061"]`, `2[7]`, `2["b",1]`)
			j.want(t, "connect", `a's: a(1,"2",{"3":[true]})`, `a's: a()`, `7's: 7()`, `b(1)`)
			c.end(engineio.TransportClose)
			if n := s.Stats().EventsIn; n != 4 {
				t.Errorf("%d events", n)
			}
		})
	})
	t.Run("nobody handles", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c, _ := enter(t, s)
			c.say(`21["a"]`)
			c.want()
			c.wantOpen()
			c.end(engineio.TransportClose)
		})
	})
	t.Run("with attachments", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			n.On("message", func(s *Socket, e Event) <-chan struct{} {
				_ = s.Emit("message-back", e.Args)
				return nil
			})
			c, _ := enter(t, s)
			c.say(`52-["message",{"_placeholder":true,"num":0},{"a":[{"_placeholder":true,"num":1}]}]`, "bin:one")
			c.want()
			c.say("bin:two")
			c.want(`52-["message-back",{"_placeholder":true,"num":0},{"a":[{"_placeholder":true,"num":1}]}]`, "bin:one", "bin:two")
			c.end(engineio.TransportClose)
		})
	})
	t.Run("whose attachments do not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c, _ := enter(t, s)
			c.say(`52-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
			time.Sleep(time.Minute / 2)
			c.say("bin:one")
			c.wantClosedAfter(time.Minute/2, 1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("whose attachments come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c, _ := enter(t, s)
			c.say(`51-["message",{"_placeholder":true,"num":0}]`, "bin:one")
			time.Sleep(time.Hour)
			c.wantOpen()
			c.say(`51-["message",{"_placeholder":true,"num":0}]`)
			c.end(engineio.TransportClose)
			time.Sleep(time.Hour)
			if c.closing != "ended" {
				t.Errorf("closed for %s", c.closing)
			}
		})
	})
	t.Run("from the server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			s.Of("/b").OnConnect(func(s *Socket) {
				_ = s.Emit("hello", s.ID() != "")
				_ = s.EmitRaw([]byte(`"raw",`), []byte(`{}`), []byte(`,"offset"`))
			})
			c, socket := enter(t, s)
			for _, err := range []error{
				socket.Emit("a"),
				socket.Emit(`"`, 1, "2", Offset("3")),
				socket.Emit("b", []byte("x"), 1, []byte("y")),
				socket.EmitRaw([]byte(`"raw"`)),
				socket.GatherRaw(engineio.Later, []byte(`"slow"`)),
			} {
				if err != nil {
					t.Error(err)
				}
			}
			c.want(`2["a"]`, `2["\"",1,"2","3"]`, `52-["b",{"_placeholder":true,"num":0},1,{"_placeholder":true,"num":1}]`, "bin:x", "bin:y", `2["raw"]`, `2["slow"]`)
			c.say("0/b,")
			c.want(`0/b,{"sid":"*"}`, `2/b,["hello",true]`, `2/b,["raw",{},"offset"]`)
			if err := socket.Emit("connect"); err == nil {
				t.Error("an event with a reserved name was sent")
			}
			c.overflow = true
			if err := socket.Emit("a"); err != ErrOverflow { //nolint:errorlint // it is documented to be this
				t.Error(err)
			}
			c.overflow = false
			c.want()
			if n := s.Stats().EventsOut; n != 7 {
				t.Errorf("%d events", n)
			}
			c.end(engineio.TransportClose)
			for _, err := range []error{socket.Emit("a"), socket.EmitRaw([]byte(`"a"`)), socket.GatherRaw(engineio.Soon, []byte(`"a"`)), socket.Emit("a", []byte("x"))} {
				if err != ErrDisconnected { //nolint:errorlint // it is documented to be this
					t.Error(err)
				}
			}
		})
	})
	t.Run("a handler's pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			until := make(chan struct{})
			s.Of("/").On("a", func(*Socket, Event) <-chan struct{} { return until })
			c, _ := enter(t, s)
			if pause := c.say(`2["a"]`); pause != (<-chan struct{})(until) {
				t.Error("it did not come")
			}
			c.end(engineio.TransportClose)
		})
	})
}

// A connection holds no attachments for whoever is not connected.
func TestAttachmentsOfNobody(t *testing.T) {
	const event = `52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`
	t.Run("while middleware is at work", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			slow(s.Of("/"))
			c := connect(t, s)
			c.say("0")
			synctest.Wait()
			c.say(event)
			c.wantClosed(1002)
			c.end(engineio.ForcedClose)
		})
	})
	for name, test := range map[string]struct{ before, after []string }{
		"after the server's DISCONNECT":  {nil, []string{event, "bin:one", "bin:two"}},
		"before the server's DISCONNECT": {[]string{event}, []string{"bin:one", "bin:two"}},
		"in the middle":                  {[]string{event, "bin:one"}, []string{"bin:two"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Options{MaxPacket: 80})
				j := keep(s.Of("/"))
				c, socket := enter(t, s)
				c.say(test.before...)
				socket.Disconnect()
				for _, m := range test.after {
					c.say(m)
					if p := c.handler.partial; p != nil && len(p.attachments) > 0 {
						t.Errorf("%d attachments are held", len(p.attachments))
					}
				}
				c.wantOpen()
				j.want(t, "connect", "disconnect: server namespace disconnect")
				c.say("0", event, "bin:three", "bin:four") // nothing is mixed up
				j.want(t, "connect", `a(*)`)
				time.Sleep(time.Hour)
				c.wantOpen()
				c.end(engineio.TransportClose)
			})
		})
	}
	t.Run("too much of it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxPacket: 80})
			s.Of("/")
			c, socket := enter(t, s)
			socket.Disconnect()
			c.say(event, "bin:"+strings.Repeat("x", 20))
			c.wantClosed(1002)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("which do not come", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			s.Of("/b")
			c, socket := enter(t, s)
			c.say("0/b,")
			socket.Disconnect()
			c.say(event)
			c.wantClosedAfter(time.Minute, 1008)
			c.end(engineio.ForcedClose)
		})
	})
}

// Section "Disconnection from a namespace", and the reference implementation's
// reasons.
func TestDisconnect(t *testing.T) {
	t.Run("by the client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			main, admin := keep(s.Of("/")), keep(s.Of("/admin"))
			c, socket := enter(t, s)
			c.say("0/admin,", "1/admin,", `2["a"]`)
			c.want(`0/admin,{"sid":"*"}`)
			admin.want(t, "connect", "disconnect: client namespace disconnect")
			main.want(t, "connect", "a()")
			c.say("0/admin")
			admin.want(t, "connect")
			c.say("1")
			main.want(t, "disconnect: client namespace disconnect")
			if err := socket.Emit("a"); err != ErrDisconnected { //nolint:errorlint // it is documented to be this
				t.Error(err)
			}
			c.wantOpen()
			c.end(engineio.TransportClose)
			main.want(t)
			admin.want(t, "disconnect: transport close")
		})
	})
	t.Run("by the server", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{ConnectTimeout: time.Second})
			j := keep(s.Of("/"))
			c, socket := enter(t, s)
			socket.Disconnect()
			socket.Disconnect()
			c.want("1")
			// Until it knows, the client may go on.
			c.say(`2["late"]`, `31[]`, "1")
			j.want(t, "connect", "disconnect: server namespace disconnect")
			c.wantOpen()
			if err := socket.Emit("a"); err != ErrDisconnected { //nolint:errorlint // it is documented to be this
				t.Error(err)
			}
			time.Sleep(time.Second / 2)
			c.say("0", `2["a"]`)
			c.want(`0{"sid":"*"}`)
			j.want(t, "connect", "a()")
			time.Sleep(time.Hour)
			c.wantOpen()
			c.end(engineio.ServerShutdown)
			j.want(t, "disconnect: server shutting down")
		})
	})
	t.Run("by the server, and nothing follows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{ConnectTimeout: time.Second})
			s.Of("/")
			c, socket := enter(t, s)
			socket.Disconnect()
			c.wantClosedAfter(time.Second, 1008)
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("by the server, with the connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			main, admin := keep(s.Of("/")), keep(s.Of("/admin"))
			c, socket := enter(t, s)
			c.say("0/admin,")
			c.heard()
			socket.DisconnectAll()
			c.want("1", "1/admin,")
			c.wantClosed(1000)
			c.end(engineio.ForcedClose)
			main.want(t, "connect", "disconnect: server namespace disconnect")
			admin.want(t, "connect", "disconnect: server namespace disconnect")
		})
	})
	t.Run("by a malformed packet", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			j := keep(s.Of("/"))
			c, _ := enter(t, s)
			c.say("abc")
			c.wantClosed(1002)
			c.end(engineio.ForcedClose)
			j.want(t, "connect", "disconnect: forced close")
			st := s.Stats()
			if st.Disconnects["forced close"] != 1 || st.Sockets != 0 || st.Connections != 0 || st.Connected != 1 {
				t.Errorf("%+v", st)
			}
		})
	})
	t.Run("while the program handles what came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			j := keep(n)
			n.On("bye", func(s *Socket, e Event) <-chan struct{} {
				_ = e.Ack.Send("bye")
				s.Disconnect()
				return nil
			})
			c, _ := enter(t, s)
			c.say(`27["bye"]`)
			c.want(`37["bye"]`, "1")
			j.want(t, "connect", "disconnect: server namespace disconnect")
			c.end(engineio.TransportClose)
		})
	})
}

// What was the client's fault, or the network's, is for whoever asks for it.
func TestDebugLog(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelInfo: "",
		slog.LevelDebug: `level=DEBUG msg="socketio: a client broke the rules" error="malformed packet: its type is unknown"` + "\n" +
			`level=DEBUG msg="socketio: a connection broke" reason="ping timeout" error="no pong"` + "\n",
	} {
		t.Run(level.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				s := NewServer(Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
					Level: level,
					ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
						if a.Key == slog.TimeKey {
							return slog.Attr{}
						}
						return a
					},
				}))})
				s.Of("/")
				c, _ := enter(t, s)
				c.say("abc")
				c.end(engineio.ForcedClose)
				other, _ := enter(t, s)
				other.handler.Closed(engineio.PingTimeout, errors.New("no pong"))
				if log.String() != want {
					t.Errorf("the log has %s", log.String())
				}
			})
		})
	}
}

// Whoever disconnects a socket, and whenever: OnDisconnect is the last of it, and is
// not called beside a handler.
func TestDisconnectFromElsewhere(t *testing.T) {
	for name, disconnect := range map[string]func(s *Socket){
		"the socket": (*Socket).Disconnect,
		"all":        (*Socket).DisconnectAll,
	} {
		t.Run(name+", while a handler is at work", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(Options{})
				n := s.Of("/")
				j := keep(n)
				goOn := make(chan struct{})
				n.On("work", func(s *Socket, _ Event) <-chan struct{} {
					j.add("work begins")
					<-goOn
					j.add("work ends, may send: %v, rooms %v", s.Emit("done"), s.Rooms())
					return nil
				})
				c, socket := enter(t, s)
				_ = socket.Join("room")
				go c.say(`2["work"]`)
				synctest.Wait()
				disconnect(socket)
				c.want("1")
				j.want(t, "connect", "work begins")
				close(goOn)
				synctest.Wait()
				j.want(t, "work ends, may send: the socket is disconnected, rooms [room]", "disconnect: server namespace disconnect")
				if st := s.Stats(); st.Sockets != 0 || st.Disconnects[ServerDisconnect] != 1 {
					t.Errorf("%+v", st)
				}
				c.say(`2["late"]`, `1`)
				c.end(engineio.ForcedClose)
				j.want(t)
			})
		})
	}
	t.Run("while an event that waited is handled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			j := keep(n)
			n.Use(func(context.Context, *Handshake) error { return nil })
			greet, goOn := make(chan struct{}), make(chan struct{})
			n.OnConnect(func(*Socket) { <-greet })
			n.On("work", func(*Socket, Event) <-chan struct{} {
				<-goOn
				j.add("work ends")
				return nil
			})
			c := connect(t, s)
			c.say("0")
			synctest.Wait()
			socket := n.Socket(c.answered().SID)
			pause := c.say(`2["work"]`)
			close(greet)
			synctest.Wait()
			socket.Disconnect()
			j.want(t)
			close(goOn)
			<-pause
			j.want(t, "work ends", "disconnect: server namespace disconnect")
			c.end(engineio.TransportClose)
			j.want(t)
		})
	})
	t.Run("at any moment", func(t *testing.T) {
		s := NewServer(Options{})
		n := s.Of("/")
		n.OnConnect(func(s *Socket) { s.Data = new(int) })
		n.OnAny(func(s *Socket, _ Event) <-chan struct{} {
			events := s.Data.(*int) //nolint:forcetypeassert // it is OnConnect's
			if *events < 0 {
				t.Error("an event after the end")
			}
			*events++ // it is seen by the race detector, as what follows is
			return nil
		})
		n.OnDisconnect(func(s *Socket, _ Reason) { *s.Data.(*int) = -1 }) //nolint:forcetypeassert // it is OnConnect's
		for range 200 {
			c := connect(t, s)
			c.say("0")
			socket := n.Socket(c.answered().SID)
			var elsewhere sync.WaitGroup
			begun := make(chan struct{})
			elsewhere.Go(func() {
				<-begun
				socket.Disconnect()
			})
			for i := range 20 {
				c.say(`2["a"]`)
				if i == 2 {
					close(begun)
				}
			}
			elsewhere.Wait()
			c.end(engineio.TransportClose)
		}
		if st := s.Stats(); st.Sockets != 0 || st.Disconnects[ServerDisconnect] != 200 {
			t.Errorf("%+v", st)
		}
	})
}

func TestControlPacketsAreNotLost(t *testing.T) {
	t.Run("the answer to CONNECT", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c := connect(t, s)
			c.overflow = true
			c.say("0")
			c.wantAborted()
			c.end(engineio.ForcedClose)
		})
	})
	t.Run("DISCONNECT", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/")
			c, socket := enter(t, s)
			c.overflow = true
			socket.Disconnect()
			c.wantAborted()
			c.end(engineio.ForcedClose)
		})
	})
}

// What is set up wrongly, or too late, is the program's mistake.
func TestSetUp(t *testing.T) {
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	s := NewServer(Options{})
	handle := func(*Socket, Event) <-chan struct{} { return nil }
	for _, name := range []string{"", "chat", "/a,b", "/a\n"} {
		panics("namespace "+name, func() { s.Of(name) })
	}
	n := s.Of("/a")
	if n != s.Of("/a") || n.Name() != "/a" {
		t.Error("it is another one")
	}
	n.On("a", handle)
	panics("twice", func() { n.On("a", handle) })
	panics("reserved", func() { n.On("disconnect", handle) })
	s.open(&session{t: t}, httptestRequest(t)).Closed(engineio.TransportClose, nil)
	panics("Of", func() { s.Of("/late") })
	panics("On", func() { n.On("b", handle) })
	panics("OnAny", func() { n.OnAny(handle) })
	panics("OnConnect", func() { n.OnConnect(func(*Socket) {}) })
	panics("OnDisconnect", func() { n.OnDisconnect(func(*Socket, Reason) {}) })
	panics("Use", func() { n.Use(func(context.Context, *Handshake) error { return nil }) })
	panics("Recover", func() { n.Recover(func(context.Context, *Handshake) (Recovery, error) { return Recovery{}, nil }) })
	if s.Of("/a") != n {
		t.Error("a namespace that is there cannot be got any more")
	}
}
