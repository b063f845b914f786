package engineio

import (
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// late is by how much a timer may be late.
const late = 120 * time.Millisecond

// within says that a time is the wanted one, but for the tick of the wheel.
func within(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+late {
		t.Errorf("%s after %s, want %s", what, got, want)
	}
}

// Section "Heartbeat": a ping every interval, as long as it is answered.
func TestPings(t *testing.T) {
	t.Parallel()
	t.Run("polling", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			start := c.begun
			for range 10 {
				wantOK(t, c.get(), "2")
				within(t, "a ping", time.Since(start), 25*time.Second)
				time.Sleep(19 * time.Second)
				start = time.Now()
				wantOK(t, c.post("3"), "ok")
			}
		})
	})
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c, s := h.connect()
			start := c.begun
			for range 10 {
				s.want("2")
				within(t, "a ping", time.Since(start), 25*time.Second)
				time.Sleep(19 * time.Second)
				start = time.Now()
				s.send("3")
			}
		})
	})
}

// Section "Heartbeat": who doesn't answer in time is gone.
func TestPingTimeout(t *testing.T) {
	t.Parallel()
	t.Run("polling", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			wantOK(t, c.get(), "2")
			wantOK(t, c.get(), "1")
			within(t, "the end", time.Since(c.begun), 45*time.Second)
			c.wantGone(PingTimeout)
		})
	})
	t.Run("a session that nobody polls", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			end := <-c.rec.closed
			within(t, "the end", time.Since(c.begun), 45*time.Second)
			if end.reason != PingTimeout || end.err == nil {
				t.Errorf("ended with %+v", end)
			}
		})
	})
	t.Run("the timer is late", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			time.Sleep(44 * time.Second)
			if err := h.server.wheel.Stop(h.ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			wantError(t, c.get(), http.StatusBadRequest, CodeUnknownSession)
			c.wantGone(PingTimeout)
		})
	})
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c, s := h.connect()
			s.want("2")
			s.wantClose(closePolicy)
			within(t, "the end", time.Since(c.begun), 45*time.Second)
			c.wantGone(PingTimeout)
		})
	})
	t.Run("a client that is gone without a word", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{WriteTimeout: time.Hour}, note, func(h *harness) {
			c, _ := h.connect()
			end := <-c.rec.closed // nothing is read of the client
			within(t, "the end", time.Since(c.begun), 45*time.Second)
			if end.reason != PingTimeout {
				t.Errorf("ended with %+v", end)
			}
		})
	})
}

// What else a client says gives it time once: the pong may stand behind something
// large. But it has to come.
func TestOtherWordsGiveTimeOnce(t *testing.T) {
	t.Parallel()
	for _, transport := range []Transport{Polling, WebSocket} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{}, note, func(h *harness) {
				c, say := h.talker(transport)
				time.Sleep(10 * time.Second)
				say("3") // which nobody asked for
				for range 5 {
					time.Sleep(10 * time.Second)
					say("4hello")
				}
				within(t, "it is alive", time.Since(c.begun), 60*time.Second)
				end := <-c.rec.closed
				within(t, "the end", time.Since(c.begun), 65*time.Second)
				if end.reason != PingTimeout {
					t.Errorf("ended with %+v", end)
				}
			})
			bubble(t, Options{}, note, func(h *harness) {
				c, say := h.talker(transport)
				time.Sleep(44 * time.Second)
				say("4hello")
				time.Sleep(20 * time.Second)
				say("3")
				start := time.Now()
				end := <-c.rec.closed // all starts anew
				within(t, "the end", time.Since(start), 45*time.Second)
				if end.reason != PingTimeout {
					t.Errorf("ended with %+v", end)
				}
			})
		})
	}
}

// talker is a client that says what the test wants, and listens to nothing.
func (h *harness) talker(transport Transport) (c *client, say func(string)) {
	h.t.Helper()
	if transport == Polling {
		c = h.poll()
		return c, func(text string) { wantOK(h.t, c.post(text), "ok") }
	}
	c, s := h.connect()
	go func() {
		for { // or what comes would hold up what the client sends
			if _, _, err := s.ws.Read(h.ctx); err != nil {
				return
			}
		}
	}()
	return c, func(text string) { s.send(text) }
}

// A handler that pauses reads no pong.
func TestAPauseStopsTheHeartbeat(t *testing.T) {
	t.Parallel()
	var pause chan struct{}
	bubble(t, Options{}, func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		note(r, kind, payload)
		return pause
	}, func(h *harness) {
		pause = make(chan struct{})
		c, s := h.connect()
		s.send("4a")
		start := time.Now()
		sent := make(chan error, 1)
		go func() { sent <- s.ws.Write(h.ctx, websocket.MessageText, []byte("3")) }() // which is not read
		for range 20 {
			last := time.Now()
			s.want("2") // the stock client closes when it has heard no ping for 45 s
			if took := time.Since(last); took > 25*time.Second+late {
				t.Errorf("a ping after %s", took)
			}
		}
		if took := time.Since(start); took < 5*time.Minute || len(c.rec.closed) != 0 {
			t.Fatalf("%d ends, after %s", len(c.rec.closed), took)
		}
		close(pause)
		if err := <-sent; err != nil {
			t.Error(err)
		}
		for range 5 {
			s.want("2")
			s.send("3")
		}
	})
}

// A client whose queue is full when the ping is due gets it afterwards.
func TestAPingWaitsForRoom(t *testing.T) {
	t.Parallel()
	bubble(t, Options{MaxQueued: 1000, WriteTimeout: time.Hour}, note, func(h *harness) {
		c, s := h.connect()
		time.Sleep(24 * time.Second)
		first := make([]byte, 2000)
		if err := c.rec.conn.Send(Text, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if err := c.rec.conn.Send(Text, []byte("x")); err == nil {
			t.Fatal("the queue is not full")
		}
		s.want("4" + string(first))
		s.want("2")
		s.send("3")
		s.want("2")
	})
}
