package engineio

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func (s *socketClient) sendBinary(b ...byte) {
	s.t.Helper()
	if err := s.ws.Write(s.t.Context(), websocket.MessageBinary, b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socketClient) wantBinary(b ...byte) {
	s.t.Helper()
	if kind, got, err := s.read(); err != nil || kind != websocket.MessageBinary || got != string(b) {
		s.t.Fatalf("read %v %q, %v; want %q", kind, got, err, b)
	}
}

// Section "Packet encoding", WebSocket: text has a type before it, binary messages
// are as they are.
func TestWebSocketMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, echo)
	c, s := h.connect()
	s.send("4hello", "4", "4€", "6", "3")
	s.want("4hello", "4", "4€")
	s.sendBinary(1, 2, 3, 4)
	s.wantBinary(1, 2, 3, 4)
	s.sendBinary()
	s.wantBinary()
	s.send("bAQIDBA==") // as clients do that send no binary messages
	s.wantBinary(1, 2, 3, 4)

	if err := c.rec.conn.Send(Text, []byte("in "), []byte("parts")); err != nil {
		t.Error(err)
	}
	many := bytes.Split([]byte("a b c d e f g h i j k l"), []byte(" "))
	if err := c.rec.conn.Send(Text, many...); err != nil {
		t.Error(err)
	}
	if err := c.rec.conn.Send(Binary, []byte{1}, []byte{2}); err != nil {
		t.Error(err)
	}
	if err := c.rec.conn.SendAll(Packet{Text, [][]byte{[]byte("x"), []byte("y")}}, Packet{Binary, [][]byte{{1}, {2}}}, Packet{Kind: Text}); err != nil {
		t.Error(err)
	}
	s.want("4in parts", "4abcdefghijkl")
	s.wantBinary(1, 2)
	s.want("4xy")
	s.wantBinary(1, 2)
	s.want("4")
	if c.rec.conn.Transport() != WebSocket {
		t.Errorf("transport %s", c.rec.conn.Transport())
	}
	if since := time.Since(c.rec.conn.LastRead()); since < 0 || since > patience {
		t.Errorf("heard %s ago", since)
	}
}

// What may wait is sent with what comes after it, and in order. In polling it does
// not wait.
func TestTextGathers(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, echo, func(h *harness) {
		c, s := h.connect()
		gather := func(u Urgency, text string) {
			t.Helper()
			if err := c.rec.conn.Gather(u, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		at := func(want time.Duration, texts ...string) {
			t.Helper()
			s.want(texts...)
			synctest.Wait() // whoever wrote it would take along what comes now
			if took := time.Since(start); took != want {
				t.Errorf("%q came after %s, want %s", texts, took, want)
			}
		}
		gather(Soon, "1")
		at(0, "41")
		gather(Soon, "2")
		gather(Soon, "3")
		at(25*time.Millisecond, "42", "43")
		gather(Later, "a")
		at(25*time.Millisecond, "4a")
		gather(Later, "b")
		at(225*time.Millisecond, "4b")
		gather(Later, "c")
		if err := c.rec.conn.Send(Text, []byte("d")); err != nil {
			t.Error(err)
		}
		at(225*time.Millisecond, "4c", "4d")

		c = h.poll()
		gather(Later, "e")
		gather(Later, "f")
		wantOK(t, c.get(), "4e\x1e4f")
		start = time.Now()
		gather(Later, "g")
		wantOK(t, c.get(), "4g")
		if took := time.Since(start); took != 0 {
			t.Errorf("it came after %s", took)
		}
	})
}

// The stock client's option forceBase64: nothing binary goes to it.
func TestClientsWithoutBinaryMessages(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, echo)
	c, s := h.connectWith(newWebSocket + "&b64=1")
	s.send("bAQIDBA==")
	s.want("bAQIDBA==")
	s.sendBinary(1, 2, 3, 4)
	s.want("bAQIDBA==")
	if err := c.rec.conn.SendAll(Packet{Text, [][]byte{[]byte("x")}}, Packet{Binary, [][]byte{{1, 2}, {3, 4}}}); err != nil {
		t.Error(err)
	}
	s.want("4x", "bAQIDBA==")

	c = h.poll()
	if err := c.rec.conn.Send(Binary, []byte{1, 2, 3, 4}); err != nil {
		t.Error(err)
	}
	s = h.mustDial(c.query(WebSocket) + "&b64=1")
	s.send("2probe", "5")
	s.want("3probe", "bAQIDBA==")
}

// Section "Packet encoding": what is no packet, or not a client's, ends the session, with
// a code that says how.
func TestMalformedMessagesEndTheSession(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text       string
		wantCode   int
		wantReason Reason
	}{
		"nothing":          {"", closeProtocol, ParseError},
		"no packet":        {"abc", closeProtocol, ParseError},
		"open":             {"0", closeProtocol, ParseError},
		"ping":             {"2", closeProtocol, ParseError},
		"a probe":          {"2probe", closeProtocol, ParseError},
		"upgrade":          {"5", closeProtocol, ParseError},
		"not base64":       {"bAB", closeProtocol, ParseError},
		"not UTF-8":        {"4\xff", closeNotUTF8, ParseError},
		"too large":        {"4" + strings.Repeat("x", 1000), closeTooLarge, TransportError},
		"close, in order":  {"1", closeNormal, TransportClose},
		"close, with data": {"1x", closeNormal, TransportClose},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, Options{MaxPayload: 1000}, note)
			c, s := h.connect()
			s.send(tt.text)
			_ = s.ws.Write(t.Context(), websocket.MessageText, []byte("4after")) // or it is closed already
			s.wantClose(tt.wantCode)
			c.wantGone(tt.wantReason)
			if n := len(c.rec.got); n != 0 {
				t.Errorf("%d messages were handled", n)
			}
		})
	}
	h := newHarness(t, Options{MaxPayload: 1000}, note)
	c, s := h.connect()
	s.send("4" + strings.Repeat("x", 999)) // as large as may be
	c.wantGot("MessageText " + strings.Repeat("x", 999))
}

// How a session on WebSocket ends says why.
func TestHowWebSocketsEnd(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, note)
	t.Run("the client closes", func(t *testing.T) {
		c, s := h.connect()
		if err := s.ws.Close(websocket.StatusGoingAway, ""); err != nil {
			t.Error(err)
		}
		c.wantGone(TransportClose)
	})
	t.Run("the network breaks", func(t *testing.T) {
		c, s := h.connect()
		_ = s.ws.CloseNow()
		if end := wait(t, "the end", c.rec.closed); end.reason != TransportClose && end.reason != TransportError { // by a reset
			t.Errorf("ended with %+v", end)
		}
	})
	t.Run("the server closes", func(t *testing.T) {
		c, s := h.connect()
		_ = c.rec.conn.Send(Text, []byte("last words"))
		c.rec.conn.Close(closeRestart, "restart")
		c.rec.conn.Close(closeNormal, "again")
		if err := c.rec.conn.Send(Text, []byte("late")); !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
		if err := c.rec.conn.Room(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("room: %v", err)
		}
		s.want("4last words")
		s.wantClose(closeRestart)
		c.wantGone(ForcedClose)
	})
	t.Run("the server aborts", func(t *testing.T) {
		c, s := h.connect()
		c.rec.conn.Abort()
		if _, _, err := s.read(); err == nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("read: %v", err)
		}
		c.wantGone(ForcedClose)
	})
	t.Run("the server aborts while it closes", func(*testing.T) {
		c, _ := h.connect()
		c.rec.conn.Close(closeNormal, "") // and the client does not answer
		c.rec.conn.Abort()
		c.wantGone(ForcedClose)
	})
}

// A client that takes nothing is bounded in bytes, and in time.
func TestAWebSocketsQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{MaxQueued: 100_000, WriteTimeout: 500 * time.Millisecond}, note)
	c, _ := h.connect()
	conn := c.rec.conn
	if !conn.HasRoom() || conn.Room(t.Context()) != nil {
		t.Error("there is no room in nothing")
	}
	overflowed := false
	for deadline := time.Now().Add(patience); ; {
		err := conn.SendAll(Packet{Text, [][]byte{make([]byte, 20_000)}}, Packet{Binary, [][]byte{make([]byte, 20_000)}})
		if queued := h.server.Stats().Queued; queued > 101_000 {
			t.Fatalf("%d bytes wait", queued)
		}
		if errors.Is(err, ErrOverflow) {
			overflowed = true
			if conn.HasRoom() {
				continue // the kernel takes a lot
			}
			err = conn.Room(t.Context())
		}
		if errors.Is(err, ErrClosed) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("send: %v", err)
		}
	}
	if !overflowed {
		t.Error("nothing was refused")
	}
	if end := wait(t, "the end", c.rec.closed); end.reason != TransportError {
		t.Errorf("ended with %+v", end)
	}
}

// Messages that belong together have none of others between.
func TestSendAllIsNotTornApart(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, note)
	c, s := h.connect()
	const senders, each = 4, 300
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for range each {
				for {
					err := c.rec.conn.SendAll(Packet{Text, [][]byte{{'a' + byte(i)}}}, Packet{Binary, [][]byte{{byte(i)}}}, Packet{Binary, [][]byte{{byte(i)}}})
					if err == nil {
						break
					}
					if !errors.Is(err, ErrOverflow) || c.rec.conn.Room(t.Context()) != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range senders * each {
		_, text, err := s.read()
		if err != nil {
			t.Fatal(err)
		}
		s.wantBinary(text[1] - 'a')
		s.wantBinary(text[1] - 'a')
	}
	wg.Wait()
}
