package socketio

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// crowd connects many.
func crowd(t *testing.T, s *Server, n int) (sessions []*session, sockets []*Socket) {
	t.Helper()
	s.Of("/")
	for range n {
		c, socket := enter(t, s)
		sessions, sockets = append(sessions, c), append(sockets, socket)
	}
	return sessions, sockets
}

func TestRooms(t *testing.T) {
	t.Run("who gets what", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			c, k := crowd(t, s, 4)
			_ = k[0].Join("a", "b")
			_ = k[1].Join("a", "a")
			_ = k[2].Join("b")
			_ = k[2].Join("c")
			for name, test := range map[string]struct {
				to   Broadcast
				want []int
			}{
				"all":                  {n.All(), []int{0, 1, 2, 3}},
				"a room":               {n.To("a"), []int{0, 1}},
				"two rooms":            {n.To("a", "b"), []int{0, 1, 2}},
				"a room, except":       {n.To("a", "b").Except("c").Except("x"), []int{0, 1}},
				"all, except":          {n.All().Except("a", k[3].ID()), []int{2}},
				"all but the sender":   {k[1].All(), []int{0, 2, 3}},
				"a room, as a sender":  {k[1].To("a"), []int{0}},
				"from outside":         {k[3].To("a"), []int{0, 1}},
				"an id":                {n.To(k[3].ID()), []int{3}},
				"an id and its rooms":  {n.To(k[0].ID(), "a"), []int{0, 1}},
				"no such room":         {n.To("x"), nil},
				"volatile, all can":    {n.To("a").Volatile(), []int{0, 1}},
				"the same room, twice": {n.To("a", "a"), []int{0, 1}},
			} {
				if err := test.to.Emit("e", name, []byte("x")); err != nil {
					t.Error(err)
				}
				test.to.EmitRaw([]byte(`"raw",`), []byte(`1`))
				sockets := test.to.Sockets()
				for i := range c {
					if !slices.Contains(test.want, i) {
						c[i].want()
						continue
					}
					c[i].want(fmt.Sprintf(`51-["e","%s",{"_placeholder":true,"num":0}]`, name), "bin:x", `2["raw",1]`)
					if !slices.Contains(sockets, k[i]) {
						t.Errorf("%s: %d is not there", name, i)
					}
				}
				if len(sockets) != len(test.want) {
					t.Errorf("%s: %d sockets", name, len(sockets))
				}
			}
			if err := n.To("a").Emit("disconnect"); err == nil {
				t.Error("an event with a reserved name was sent")
			}
			for _, c := range c {
				c.end(engineio.TransportClose)
			}
		})
	})
	t.Run("left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			n := s.Of("/")
			rooms := make(map[string][]string)
			n.OnDisconnect(func(s *Socket, _ Reason) { rooms[s.ID()] = s.Rooms() })
			c, k := crowd(t, s, 3)
			for _, s := range k {
				_ = s.Join("a", "b", "c")
			}
			k[0].Leave("b", "x", "b")
			if diff := cmp.Diff([]string{"a", "c"}, k[0].Rooms()); diff != "" {
				t.Error(diff)
			}
			c[1].say("1")
			if diff := cmp.Diff([]string{"a", "b", "c"}, rooms[k[1].ID()]); diff != "" {
				t.Error(diff)
			}
			if err := k[1].Join("a"); err != ErrDisconnected { //nolint:errorlint // it is documented to be this
				t.Error(err)
			}
			_ = n.To("a").Emit("x")
			_ = n.To("b").Emit("y")
			c[0].want(`2["x"]`)
			c[1].want()
			c[2].want(`2["x"]`, `2["y"]`)
			for _, c := range c {
				c.end(engineio.TransportClose)
			}
			if len(n.rooms) != 0 || len(n.sockets) != 0 {
				t.Errorf("%d rooms and %d sockets are left", len(n.rooms), len(n.sockets))
			}
		})
	})
	t.Run("too many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{MaxRooms: 3})
			n := s.Of("/")
			c, k := crowd(t, s, 2)
			_ = k[1].Join("b")
			for _, test := range []struct {
				join []string
				want error
				in   []string
			}{
				{[]string{"a", "b", "a", "c", "b"}, nil, []string{"a", "b", "c"}},
				{[]string{"c", "d"}, ErrTooManyRooms, []string{"a", "b", "c"}},
				{[]string{"c", "a"}, nil, []string{"a", "b", "c"}},
			} {
				if err := k[0].Join(test.join...); err != test.want { //nolint:errorlint // it is documented to be this
					t.Errorf("%q: %v", test.join, err)
				}
				if diff := cmp.Diff(test.in, k[0].Rooms()); diff != "" {
					t.Error(diff)
				}
			}
			k[0].Leave("a", "b")
			if err := k[0].Join("b", "d", "e"); err != ErrTooManyRooms { //nolint:errorlint // it is documented to be this
				t.Error(err)
			}
			if diff := cmp.Diff([]string{"c"}, k[0].Rooms()); diff != "" {
				t.Error(diff)
			}
			if len(n.rooms) != 2 || !slices.Equal(n.To("b").Sockets(), k[1:]) {
				t.Errorf("there are %d rooms", len(n.rooms))
			}
			for _, c := range c {
				c.end(engineio.TransportClose)
			}
		})
	})
	t.Run("in namespaces of their own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			for _, name := range []string{"/", "/b"} {
				s.Of(name).OnConnect(func(s *Socket) { _ = s.Join("a") })
			}
			c := connect(t, s)
			c.say("0", "0/b,")
			c.heard()
			_ = s.Of("/b").To("a").Emit("x")
			c.want(`2/b,["x"]`)
			c.end(engineio.TransportClose)
		})
	})
	t.Run("each with an offset", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			c, k := crowd(t, s, 3)
			offsets := map[*Socket]Offset{k[0]: "zero", k[1]: `on"e`}
			to := s.Of("/").All().Offset(func(s *Socket) Offset { return offsets[s] })
			_ = to.Emit("x", 1)
			_ = to.Emit("y", []byte("z"))
			c[0].want(`2["x",1,"zero"]`, `51-["y",{"_placeholder":true,"num":0},"zero"]`, "bin:z")
			c[1].want(`2["x",1,"on\"e"]`, `51-["y",{"_placeholder":true,"num":0},"on\"e"]`, "bin:z")
			c[2].want(`2["x",1]`, `51-["y",{"_placeholder":true,"num":0}]`, "bin:z")
			for _, c := range c {
				c.end(engineio.TransportClose)
			}
		})
	})
	t.Run("of which some are slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := NewServer(Options{})
			c, _ := crowd(t, s, 3)
			c[0].full = true
			c[1].overflow, c[1].full = true, true
			_ = s.Of("/").All().Volatile().Emit("x")
			c[0].want()
			c[1].wantOpen()
			c[2].want(`2["x"]`)
			_ = s.Of("/").All().Emit("y")
			c[0].want(`2["y"]`)
			c[1].wantAborted()
			c[2].want(`2["y"]`)
			for _, c := range c {
				c.end(engineio.TransportClose)
			}
			if n := s.Stats().EventsOut; n != 3 {
				t.Errorf("%d events", n)
			}
		})
	})
}

// The members of a room agree on the order of its events, whoever sends them.
func TestRoomOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Options{})
		c, k := crowd(t, s, 5)
		for _, s := range k {
			_ = s.Join("a", "b")
		}
		var senders sync.WaitGroup
		for i := range 4 {
			senders.Go(func() {
				to := s.Of("/").To([][]string{{"a"}, {"a", "b"}, {"b", "a"}, {"x", "a"}}[i]...)
				for n := range 100 {
					_ = to.Emit("e", i, n)
				}
			})
		}
		senders.Wait()
		first := c[0].heard()
		if len(first) != 400 {
			t.Errorf("%d events", len(first))
		}
		for _, other := range c[1:] {
			if !slices.Equal(first, other.heard()) {
				t.Error("the orders differ")
			}
		}
		for _, c := range c {
			c.end(engineio.TransportClose)
		}
	})
}

// The members of a room agree on the order, though all of them leave and come again
// in the middle of an event.
func TestRoomOrderGoesOn(t *testing.T) {
	s := NewServer(Options{})
	n := s.Of("/")
	var c []*session
	var k []*Socket
	for range 2 {
		session := connect(t, s)
		session.say("0")
		socket := n.Socket(session.answered().SID)
		_ = socket.Join("a")
		c, k = append(c, session), append(k, socket)
	}
	second := make(chan struct{})
	var once sync.Once
	anew := func(*Socket) Offset {
		once.Do(func() {
			for _, s := range k {
				s.Leave("a")
			}
			for _, s := range k {
				_ = s.Join("a")
			}
			go func() {
				defer close(second)
				_ = n.To("a").Emit("second")
			}()
			select {
			case <-second:
				t.Error("the second came before the first")
			case <-time.After(50 * time.Millisecond): // in which it does, where nothing holds it
			}
		})
		return ""
	}
	_ = n.To("a").Offset(anew).Emit("first")
	<-second
	for _, c := range c {
		c.want(`2["first"]`, `2["second"]`)
		c.end(engineio.TransportClose)
	}
}

// Many join, leave, send and end at once; then the rooms agree with the sockets.
func TestRoomsUnderLoad(t *testing.T) {
	s := NewServer(Options{})
	n := s.Of("/")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				c := connect(t, s)
				c.say("0")
				socket := n.Socket(c.answered().SID)
				for range 20 {
					room := strconv.Itoa(rand.IntN(5))
					switch rand.IntN(4) {
					case 0:
						socket.Leave(room)
					case 1:
						_ = n.To(room, "0").Emit("x")
					default:
						_ = socket.Join(room)
					}
				}
				for _, room := range socket.Rooms() {
					if !slices.Contains(n.To(room).Sockets(), socket) {
						t.Errorf("%s has not its member", room)
					}
				}
				c.end(engineio.TransportClose)
				_ = socket.Join("late")
			}
		})
	}
	all.Wait()
	if len(n.rooms) != 0 || len(n.sockets) != 0 {
		t.Errorf("%d rooms and %d sockets are left", len(n.rooms), len(n.sockets))
	}
}
