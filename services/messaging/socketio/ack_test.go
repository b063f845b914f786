package socketio

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// Section "Acknowledgement": the client's events.
func TestAcknowledge(t *testing.T) {
	t.Run("now, later, never, twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			var kept []*Ack
			s.Of("/").On("now", func(_ *Socket, e Event) <-chan struct{} {
				if err := e.Ack.Send(e.Args); err != nil {
					t.Error(err)
				}
				return nil
			})
			s.Of("/").On("later", func(_ *Socket, e Event) <-chan struct{} {
				kept = append(kept, e.Ack)
				return nil
			})
			c, _ := enter(t, s)
			c.say(`2456["now",1,"2",{"3":[false]}]`)
			c.want(`3456[1,"2",{"3":[false]}]`)
			c.say(`20["now"]`)
			c.want(`30[]`)
			c.say(`52-789["now",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "bin:x", "bin:y")
			c.want(`62-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, "bin:x", "bin:y")
			c.say(`2["now",1]`) // asks for none
			c.want()

			c.say(`21["later"]`, `22["later"]`, `23["later"]`, `2["later"]`)
			c.want()
			var all sync.WaitGroup
			all.Go(func() {
				if err := kept[1].Send("two"); err != nil {
					t.Error(err)
				}
			})
			all.Wait()
			c.want(`32["two"]`)
			if err := kept[0].SendRaw([]byte(`{"one":`), []byte(`1}`)); err != nil {
				t.Error(err)
			}
			c.want(`31[{"one":1}]`)
			for _, err := range []error{kept[0].Send(), kept[1].SendRaw()} {
				if !errors.Is(err, ErrAcknowledged) {
					t.Error(err)
				}
			}
			if kept[3] != nil || kept[3].Send(1) != nil || kept[3].SendRaw() != nil {
				t.Error("an event that asked for nothing has an acknowledgement")
			}
			if err := kept[2].Send(func() {}); err == nil || errors.Is(err, ErrAcknowledged) {
				t.Error(err)
			}
			c.end(engineio.TransportClose)
			if err := kept[2].Send(); !errors.Is(err, ErrDisconnected) {
				t.Error(err)
			}
			c.want()
		})
	})
	t.Run("again, when too much waited", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			var kept []*Ack
			s.Of("/").OnAny(func(_ *Socket, e Event) <-chan struct{} {
				kept = append(kept, e.Ack)
				return nil
			})
			c, _ := enter(t, s)
			c.say(`21["a"]`, `22["a"]`)
			c.overflow = true
			for _, err := range []error{kept[0].Send(1), kept[1].SendRaw([]byte("2"))} {
				if !errors.Is(err, ErrOverflow) {
					t.Error(err)
				}
			}
			c.overflow = false
			for _, err := range []error{kept[0].SendRaw([]byte("1")), kept[1].Send(2)} {
				if err != nil {
					t.Error(err)
				}
			}
			c.want(`31[1]`, `32[2]`)
			for _, err := range []error{kept[0].Send(1), kept[1].SendRaw([]byte("2"))} {
				if !errors.Is(err, ErrAcknowledged) {
					t.Error(err)
				}
			}
			c.end(engineio.TransportClose)
		})
	})
	t.Run("in a namespace", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			s.Of("/b").OnAny(func(_ *Socket, e Event) <-chan struct{} {
				_ = e.Ack.Send(1)
				return nil
			})
			c := connect(t, s)
			c.say("0/b,", `2/b,7["a"]`, `2/b,8["a"]`)
			c.want(`0/b,{"sid":"*"}`, `3/b,7[1]`, `3/b,8[1]`)
			c.end(engineio.TransportClose)
		})
	})
}

// Section "Acknowledgement": the server's events.
func TestEmitAck(t *testing.T) {
	begin := func(t *testing.T, o Options) (*session, *Socket, *journal, func(args Args, err error)) {
		t.Helper()
		s := NewServer(o)
		s.Of("/")
		c, socket := enter(t, s)
		j := new(journal)
		return c, socket, j, func(args Args, err error) { j.add("%s, %v", args.list, err) }
	}
	t.Run("it comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, socket, j, done := begin(t, Options{})
			for range 2 {
				if err := socket.EmitAck(time.Second, done, "a", 1); err != nil {
					t.Error(err)
				}
			}
			if err := socket.EmitAck(time.Second, done, "b", []byte("x")); err != nil {
				t.Error(err)
			}
			c.want(`20["a",1]`, `21["a",1]`, `51-2["b",{"_placeholder":true,"num":0}]`, "bin:x")
			c.say(`31["one",1]`, `30[]`)
			j.want(t, `"one",1, <nil>`, `, <nil>`)
			c.say(`61-2[{"_placeholder":true,"num":0}]`, "bin:y")
			j.want(t, `{"_placeholder":true,"num":0}, <nil>`)
			c.say(`31["again"]`, `399["of nothing"]`)
			time.Sleep(time.Hour)
			j.want(t)
			c.wantOpen()
			c.end(engineio.TransportClose)
			j.want(t)
		})
	})
	t.Run("it comes too late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, socket, j, done := begin(t, Options{})
			if err := socket.EmitAck(time.Second, done, "a"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			j.want(t, fmt.Sprintf(", %v", ErrTimeout))
			c.say(`30["late"]`)
			c.wantOpen()
			j.want(t)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("the socket ends before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, socket, j, done := begin(t, Options{})
			if err := socket.EmitAck(time.Second, done, "a"); err != nil {
				t.Error(err)
			}
			c.say("1")
			j.want(t, fmt.Sprintf(", %v", ErrDisconnected))
			if err := socket.EmitAck(time.Second, done, "a"); !errors.Is(err, ErrDisconnected) {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			j.want(t)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("what cannot be sent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, socket, j, done := begin(t, Options{MaxAcks: 1})
			c.heard()
			c.overflow = true
			if err := socket.EmitAck(time.Second, done, "a"); !errors.Is(err, ErrOverflow) {
				t.Error(err)
			}
			c.overflow = false
			if err := socket.EmitAck(time.Second, done, "a", Offset("x")); err == nil {
				t.Error("with an offset the client would take no notice of it")
			}
			if err := socket.EmitAck(time.Second, done, "connect"); !errors.Is(err, ErrReserved) {
				t.Error(err)
			}
			if err := socket.EmitAck(time.Second, done, "a"); err != nil {
				t.Error(err)
			}
			if err := socket.EmitAck(time.Second, done, "a"); !errors.Is(err, ErrTooManyAcks) {
				t.Error(err)
			}
			c.say(`30[]`)
			j.want(t, `, <nil>`)
			if err := socket.EmitAck(time.Second, done, "a"); err != nil {
				t.Error(err)
			}
			c.want(`20["a"]`, `21["a"]`)
			c.end(engineio.TransportClose)
		})
	})
}
