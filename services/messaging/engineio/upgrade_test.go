package engineio

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// Section "Upgrade", all of it, as the specification draws it.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, echo)
	c := h.poll()
	waiting := c.getWaiting()
	s := c.probe()
	wantOK(t, wait(t, "the noop", waiting), "6")
	if stats := h.server.Stats(); stats.Upgrading != 1 || stats.Sessions[Polling] != 1 || c.rec.conn.Transport() != Polling {
		t.Errorf("%+v, %s", stats, c.rec.conn.Transport())
	}
	s.send("5", "4hello")
	s.want("4hello")
	if stats := h.server.Stats(); stats.Upgrading != 0 || stats.Sessions[Polling] != 0 || stats.Sessions[WebSocket] != 1 || stats.Upgraded != 1 || c.rec.conn.Transport() != WebSocket {
		t.Errorf("%+v, %s", stats, c.rec.conn.Transport())
	}
	// Section "HTTP long-polling": it is over with the other transport.
	wantError(t, c.get(), http.StatusBadRequest, CodeBadRequest)
	wantError(t, c.post("4x"), http.StatusBadRequest, CodeBadRequest)
	// Section "WebSocket": one for a session.
	h.mustDial(c.query(WebSocket)).wantClose(closePolicy)
	s.send("4still here")
	s.want("4still here")
}

// A client that sends everything at once is understood.
func TestAnUpgradeInOneGo(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, echo)
	c := h.poll()
	_ = c.rec.conn.Send(Text, []byte("before"))
	_ = c.rec.conn.Send(Binary, []byte{1, 2})
	s := h.mustDial(c.query(WebSocket))
	s.send("2probe", "5", "4hello")
	s.want("3probe", "4before")
	s.wantBinary(1, 2)
	s.want("4hello")
}

// Section "Upgrade": until "5", packets go out with polls; a poll for which there are none
// ends soon, at once if it began before.
func TestPollsDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		waiting := c.getWaiting()
		start := time.Now()
		s := c.probe()
		wantOK(t, <-waiting, "6")
		if took := time.Since(start); took != 0 {
			t.Errorf("the poll ended after %s", took)
		}
		wantOK(t, c.get(), "6")
		if took := time.Since(start); took != noopDelay {
			t.Errorf("the next ended after %s", took)
		}
		wantOK(t, c.post("4a"), "ok")
		wantOK(t, c.get(), "4a")
		waiting = c.getWaiting()
		_ = c.rec.conn.Send(Text, []byte("b"))
		wantOK(t, <-waiting, "4b")
		_ = c.rec.conn.Send(Text, []byte("c"))
		s.send("2probe") // once more
		s.want("3probe")
		s.send("5")
		s.want("4c")
	})
}

// A poll that waits when the upgrade is complete should not have come after it began;
// but one that began before ends in order, even if nobody had time for it.
func TestAPollThatMeetsTheUpgrade(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		s := c.probe()
		wantOK(t, c.get(), "6")
		waiting := c.getWaiting()
		s.send("5")
		wantError(t, <-waiting, http.StatusBadRequest, CodeBadRequest)
		s.send("4a")
		s.want("4a")
	})
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		g := &poll{wake: make(chan struct{}, 1)} // which nobody serves
		p, _ := c.rec.conn.beginPoll(g)
		c.upgrade()
		if answer, _, _ := c.rec.conn.answer(p, g); string(answer) != "6" || g.refused {
			t.Errorf("answered %q, refused: %v", answer, g.refused)
		}
	})
}

// Section "Upgrade": some clients say "5" while a POST is under way: what it holds is
// handled before what comes on the WebSocket.
func TestAPostThatMeetsTheUpgrade(t *testing.T) {
	t.Parallel()
	var pause chan struct{}
	handle := func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		note(r, kind, payload)
		_ = r.conn.Send(kind, payload)
		return pause
	}
	bubble(t, Options{}, handle, func(h *harness) {
		pause = make(chan struct{})
		c := h.poll()
		s := c.probe()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a\x1e4b") }()
		c.wantGot("MessageText a")
		go s.send("5", "4c")
		time.Sleep(time.Second)
		synctest.Wait()
		if c.rec.conn.Transport() != Polling || len(c.rec.got) != 0 {
			t.Errorf("on %s, with %d messages more", c.rec.conn.Transport(), len(c.rec.got))
		}
		wantOK(t, c.get(), "4a")
		close(pause)
		wantOK(t, <-done, "ok")
		s.want("4b", "4c")
		c.wantGot("MessageText b", "MessageText c")
	})
	bubble(t, Options{}, handle, func(h *harness) { // and if it takes too long, the session stays
		pause = make(chan struct{})
		c := h.poll()
		s := c.probe()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		c.wantGot("MessageText a")
		s.send("5")
		s.wantClose(closePolicy)
		close(pause)
		wantOK(t, <-done, "ok")
		wantOK(t, c.get(), "4a")
	})
}

// Section "Upgrade": one that fails leaves the session as it was, and may be tried again.
func TestUpgradesThatFail(t *testing.T) {
	t.Parallel()
	tests := map[string]func(s *socketClient){
		"5 without a probe":   func(s *socketClient) { s.send("5"); s.wantClose(closeProtocol) },
		"a message":           func(s *socketClient) { s.send("4hello"); s.wantClose(closeProtocol) },
		"a message, probed":   func(s *socketClient) { s.send("2probe", "4hello"); s.want("3probe"); s.wantClose(closeProtocol) },
		"a ping":              func(s *socketClient) { s.send("2"); s.wantClose(closeProtocol) },
		"a binary message":    func(s *socketClient) { s.sendBinary('2', 'p', 'r', 'o', 'b', 'e'); s.wantClose(closeProtocol) },
		"too large a message": func(s *socketClient) { s.send(strings.Repeat("x", 2000)); s.wantClose(closeTooLarge) },
		"silence":             func(s *socketClient) { s.wantClose(closePolicy) },
		"silence, probed":     func(s *socketClient) { s.send("2probe"); s.want("3probe"); s.wantClose(closePolicy) },
		"it closes":           func(s *socketClient) { _ = s.ws.Close(websocket.StatusNormalClosure, "") },
		"it breaks":           func(s *socketClient) { s.send("2probe"); _ = s.ws.CloseNow() },
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{MaxPayload: 1000}, echo, func(h *harness) {
				c := h.poll()
				start := time.Now()
				test(h.mustDial(c.query(WebSocket)))
				c.until("the upgrade is given up", func(conn *Conn) bool { return conn.probe == nil })
				if strings.HasPrefix(name, "silence") {
					within(t, "given up", time.Since(start), 10*time.Second)
				} else if took := time.Since(start); took > 6*time.Second { // a client takes 5 s to close
					t.Errorf("given up after %s", took)
				}
				wantOK(t, c.post("4a"), "ok")
				wantOK(t, c.get(), "4a")
				waiting := c.getWaiting()
				synctest.Wait()
				time.Sleep(time.Second) // nobody ends it any more
				_ = c.rec.conn.Send(Text, []byte("b"))
				wantOK(t, <-waiting, "4b")
				if len(c.rec.closed) != 0 {
					t.Fatal("the session has ended")
				}
				s := c.upgrade()
				s.send("4c")
				s.want("4c")
			})
		})
	}
}

// Section "WebSocket": a second one, while the first is being tried, is closed; the
// first goes on.
func TestASecondWebSocketDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{}, echo)
	c := h.poll()
	s := c.probe()
	second := h.mustDial(c.query(WebSocket))
	_ = second.ws.Write(t.Context(), websocket.MessageText, []byte("2probe")) // or it is closed already
	second.wantClose(closePolicy)
	s.send("5", "4hello")
	s.want("4hello")
}

// What ends the session ends the upgrade.
func TestTheSessionEndsDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		s := c.probe()
		wantOK(t, c.post("1"), "ok")
		s.wantClose(closeNormal)
		wantOK(t, c.get(), "6")
		c.wantGone(TransportClose)
	})
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		s := c.probe()
		_ = c.rec.conn.Send(Text, []byte("last words"))
		c.rec.conn.Close(closeRestart, "restart")
		wantOK(t, c.get(), "4last words\x1e1")
		s.wantClose(closeNormal)
		c.wantGone(ForcedClose)
	})
}

// A client that has ended polling already hears of the end, and what came before it,
// on the WebSocket.
func TestAnUpgradeOfAClosingSession(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, echo, func(h *harness) {
		c := h.poll()
		s := c.probe()
		wantOK(t, c.get(), "6")
		_ = c.rec.conn.Send(Text, []byte("last words"))
		c.rec.conn.Close(closeRestart, "restart")
		time.Sleep(time.Second)
		s.send("5")
		s.want("4last words")
		s.wantClose(closeRestart)
		c.wantGone(ForcedClose)
		wantError(t, h.ask("GET", c.query(WebSocket), true), http.StatusBadRequest, CodeUnknownSession)
	})
}

// A queue that is full goes over to the WebSocket, whole.
func TestAFullQueueIsUpgraded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{MaxQueued: 1000}, echo)
	c := h.poll()
	for i := range 10 {
		if err := c.rec.conn.Send(Text, []byte(strconv.Itoa(i)), make([]byte, 97)); err != nil {
			t.Fatal(err)
		}
	}
	s := h.mustDial(c.query(WebSocket))
	s.send("2probe", "5")
	s.want("3probe")
	for i := range 10 {
		s.want("4" + strconv.Itoa(i) + strings.Repeat("\x00", 97))
	}
	if err := c.rec.conn.Room(t.Context()); err != nil {
		t.Error(err)
	}
}

// Whoever waits for room goes on waiting on the WebSocket.
func TestRoomAcrossAnUpgrade(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{MaxQueued: 1000}, echo)
	c := h.poll()
	_ = c.rec.conn.Send(Text, make([]byte, 800))
	room := make(chan error, 1)
	go func() { room <- c.rec.conn.Room(h.ctx) }()
	c.until("somebody waits for room", func(conn *Conn) bool { return conn.polling.changed != nil })
	c.upgrade()
	if err := wait(t, "room", room); err != nil {
		t.Error(err)
	}
}

// Both sides talk all the time while a session is upgraded, in any order of events
// that comes up: everything arrives once, and in order.
func TestNothingIsLostAcrossUpgrades(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const sessions, messages = 40, 120
	h := newHarness(t, Options{}, note)
	var wg sync.WaitGroup
	for i := range sessions {
		c := h.poll()
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { c.talk(random, messages) })
		if i%8 == 7 {
			wg.Wait()
		}
	}
	wg.Wait()
	if n := h.server.Stats().Upgraded; n != sessions {
		t.Errorf("%d sessions were upgraded, want %d", n, sessions)
	}
}

// talk is what a client and its handler do: they count.
func (c *client) talk(random *rand.Rand, messages int) {
	pause := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	var speaker sync.WaitGroup
	defer speaker.Wait()
	gap := pause(200 * time.Microsecond)
	speaker.Go(func() {
		for i := range messages {
			if err := c.rec.conn.Send(Text, []byte(strconv.Itoa(i))); err != nil {
				c.t.Errorf("send: %v", err)
			}
			time.Sleep(gap)
		}
	})
	heard, said := 0, 0
	hear := func(text string) {
		if text == "6" || text == "2" {
			return
		}
		if want := "4" + strconv.Itoa(heard); text != want {
			c.t.Errorf("heard %q, want %q", text, want)
		}
		heard++
	}
	say := func() string {
		said++
		return fmt.Sprintf("4%d", said-1)
	}
	polled := make(chan struct{})
	var ended sync.Mutex // held until polling has to end
	ended.Lock()
	go func() { // as the stock client does: one poll after the other, until one ends after the probe
		defer close(polled)
		for {
			a, err := c.do(c.ctx, http.MethodGet, c.query(Polling), nil, nil)
			if err != nil || a.status != http.StatusOK {
				c.t.Errorf("poll: %+v, %v", a, err)
				return
			}
			for _, text := range packets(a.body) {
				hear(text)
			}
			if ended.TryLock() {
				return
			}
		}
	}()
	post := func() {
		a, err := c.do(c.ctx, http.MethodPost, c.query(Polling), strings.NewReader(say()+"\x1e"+say()), nil)
		if err != nil || a.status != http.StatusOK {
			c.t.Errorf("post: %+v, %v", a, err)
		}
	}
	for range random.IntN(4) {
		post()
	}
	time.Sleep(pause(10 * time.Millisecond))
	ws, _, err := c.dial(c.query(WebSocket), nil)
	if err != nil {
		c.t.Errorf("dial: %v", err)
		return
	}
	defer ws.CloseNow()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	write := func(text string) error { return ws.Write(ctx, websocket.MessageText, []byte(text)) }
	if err := write("2probe"); err != nil {
		c.t.Error(err)
	}
	if _, text, err := ws.Read(ctx); err != nil || string(text) != "3probe" {
		c.t.Errorf("probe: %q, %v", text, err)
	}
	for range random.IntN(3) {
		post()
	}
	ended.Unlock()
	<-polled
	time.Sleep(pause(3 * time.Millisecond))
	err = write("5")
	for said < messages && err == nil {
		err = write(say())
	}
	if err != nil {
		c.t.Error(err)
	}
	for heard < messages {
		_, text, err := ws.Read(ctx)
		if err != nil {
			c.t.Errorf("read: %v", err)
			return
		}
		hear(string(text))
	}
	for i := range said {
		select {
		case got := <-c.rec.got:
			if want := "MessageText " + strconv.Itoa(i); got != want {
				c.t.Errorf("the handler heard %q, want %q", got, want)
			}
		case <-ctx.Done():
			c.t.Errorf("the handler heard %d messages of %d", i, said)
			return
		}
	}
}

// Upgrades, polls, posts and ends in any order: whatever clients do, every session
// ends once, and nothing is left.
func TestClientsThatKeepNoOrder(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	h := newHarness(t, Options{UpgradeTimeout: 20 * time.Millisecond}, echo)
	var wg sync.WaitGroup
	for i := range 60 {
		c := h.poll()
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		actions := make([]int, 12)
		for n := range actions {
			actions[n] = random.IntN(8)
		}
		for _, action := range actions {
			wg.Go(func() { c.misbehave(action) })
		}
		wg.Go(func() {
			for n := range 20 {
				if err := c.rec.conn.Send(Text, []byte(strconv.Itoa(n))); errors.Is(err, ErrClosed) {
					return
				}
			}
		})
		if i%6 == 5 {
			wg.Wait()
		}
	}
	wg.Wait()
}

func (c *client) misbehave(action int) {
	ctx, cancel := context.WithTimeout(c.ctx, 50*time.Millisecond)
	defer cancel()
	switch action {
	case 0, 1:
		_, _ = c.do(ctx, http.MethodGet, c.query(Polling), nil, nil)
	case 2, 3:
		_, _ = c.do(ctx, http.MethodPost, c.query(Polling), strings.NewReader("4a\x1e4b"), nil)
	case 4, 5, 6:
		ws, _, err := c.dial(c.query(WebSocket), nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		for _, text := range []string{"2probe", "5", "4c"}[:action-3] {
			if ws.Write(ctx, websocket.MessageText, []byte(text)) != nil {
				return
			}
		}
		_, _, _ = ws.Read(ctx)
	default:
		time.Sleep(5 * time.Millisecond)
		c.rec.conn.Close(closeNormal, "")
	}
}
