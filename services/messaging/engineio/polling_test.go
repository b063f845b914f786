package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Section "Receiving data": a GET waits until there is something, and is answered
// with all that there is.
func TestAPollWaitsForPackets(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, note, func(h *harness) {
		c := h.poll()
		start := time.Now()
		got := c.getLater()
		time.Sleep(17 * time.Second) // longer than the deadlines of the HTTP server
		if err := c.rec.conn.Send(Text, []byte("hel"), []byte("lo")); err != nil {
			t.Fatal(err)
		}
		a := <-got
		wantOK(t, a, "4hello")
		if took := time.Since(start); took != 17*time.Second {
			t.Errorf("answered after %s", took)
		}
		if ct, cc := a.header.Get("Content-Type"), a.header.Get("Cache-Control"); ct != "text/plain; charset=UTF-8" || cc != "no-store" {
			t.Errorf("content type %q, cache control %q", ct, cc)
		}
		for _, send := range []error{
			c.rec.conn.Send(Text, []byte("a")),
			c.rec.conn.Send(Binary, []byte{1, 2, 3, 4}),
			c.rec.conn.Send(Text),
			c.rec.conn.SendAll(Packet{Text, [][]byte{[]byte("b")}}, Packet{Binary, [][]byte{{0}, {1}}}),
		} {
			if send != nil {
				t.Error(send)
			}
		}
		wantOK(t, c.get(), "4a\x1ebAQIDBA==\x1e4\x1e4b\x1ebAAE=")
		if c.rec.conn.Transport() != Polling || c.rec.conn.ID() != c.sid {
			t.Errorf("transport %s, id %s, want %s", c.rec.conn.Transport(), c.rec.conn.ID(), c.sid)
		}
	})
}

// On HTTP/2, too, requests take longer than a server lets them. A WebSocket needs
// HTTP/1.1.
func TestPollingOnHTTP2(t *testing.T) {
	t.Parallel()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	var pause chan struct{}
	bubbleOf(t, &protocols, Options{}, func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		note(r, kind, payload)
		return pause
	}, func(h *harness) {
		pause = make(chan struct{})
		c := h.poll()
		got := c.getLater()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		c.wantGot("MessageText a")
		time.Sleep(5 * time.Second) // longer than the deadlines
		close(pause)
		wantOK(t, <-done, "ok")
		_ = c.rec.conn.Send(Text, []byte("b"))
		wantOK(t, <-got, "4b")
		wantError(t, h.ask("GET", newWebSocket, false), http.StatusBadRequest, CodeBadRequest)
	})
}

// Section "Sending data".
func TestAPostCarriesPackets(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, note, func(h *harness) {
		c := h.poll()
		before := c.rec.conn.LastRead()
		time.Sleep(time.Second)
		a := c.post("4hello\x1ebAQI=\x1e4\x1e6\x1e3\x1e3probe\x1e4€")
		wantOK(t, a, "ok")
		if got := a.header.Get("Content-Type"); got != "text/html" {
			t.Errorf("content type %q", got)
		}
		c.wantGot("MessageText hello", "MessageBinary \x01\x02", "MessageText ", "MessageText €")
		if after := c.rec.conn.LastRead(); after.Sub(before) < time.Second {
			t.Errorf("heard at %s, and at %s", before, after)
		}
		wantOK(t, c.post("4again"), "ok")
		c.wantGot("MessageText again")
	})
}

// Section "Packet encoding": what is no packet, or not a client's, ends the session;
// what came before it was handled.
func TestMalformedPayloadsEndTheSession(t *testing.T) {
	t.Parallel()
	for name, payload := range map[string]string{
		"nothing":                "",
		"no packet":              "abc",
		"an empty packet":        "4a\x1e\x1e4b",
		"a separator at the end": "4a\x1e",
		"open is the server's":   "0{}",
		"ping is the server's":   "2",
		"upgrade is elsewhere":   "5",
		"not base64":             "bAQIDBA",
		"not UTF-8":              "4\xff",
		"too many":               strings.Repeat("6\x1e", 50) + "4",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{MaxPackets: 50}, note, func(h *harness) {
				c := h.poll()
				waiting := c.getWaiting()
				wantError(t, c.post(payload), http.StatusBadRequest, CodeBadRequest)
				wantOK(t, <-waiting, "1")
				if strings.HasPrefix(payload, "4a") {
					c.wantGot("MessageText a")
				}
				if end := <-c.rec.closed; end.reason != ParseError || end.err == nil {
					t.Errorf("ended with %+v", end)
				}
				wantError(t, c.get(), http.StatusBadRequest, CodeUnknownSession)
				wantError(t, c.post("4late"), http.StatusBadRequest, CodeUnknownSession)
			})
		})
	}
	bubble(t, Options{MaxPackets: 50}, note, func(h *harness) { // as many as there may be
		wantOK(t, h.poll().post(strings.Repeat("6\x1e", 49)+"4"), "ok")
	})
}

// Section "Handshake": maxPayload is the most that a client may send.
func TestPayloadsAreLimited(t *testing.T) {
	t.Parallel()
	sizes := func(r *recorder, _ Kind, payload []byte) <-chan struct{} {
		r.got <- strings.Repeat("x", min(len(payload), 3))
		return nil
	}
	bubble(t, Options{MaxPayload: 100_000}, sizes, func(h *harness) {
		c := h.poll()
		wantOK(t, c.post("4"+strings.Repeat("x", 99_999)), "ok")
		c.wantGot("xxx")

		waiting := c.getWaiting()
		wantError(t, c.post("4"+strings.Repeat("x", 100_000)), http.StatusRequestEntityTooLarge, CodeBadRequest)
		wantOK(t, <-waiting, "1")
		c.wantGone(TransportError)

		// The stock client takes base64 for a quarter of a percent shorter than it is.
		c = h.poll()
		wantOK(t, c.post("b"+strings.Repeat("AAAA", 25_050)), "ok")
		wantOK(t, c.post("4\x1eb"+strings.Repeat("AAAA", 25_050)), "ok")
		wantError(t, c.post("b"+strings.Repeat("AAAA", 25_100)), http.StatusRequestEntityTooLarge, CodeBadRequest)
		c.wantGot("xxx", "", "xxx")
		c.wantGone(TransportError)

		c = h.poll() // and if the length is not told
		a, err := c.do(h.ctx, http.MethodPost, c.query(Polling), io.MultiReader(strings.NewReader("4"), strings.NewReader(strings.Repeat("x", 100_000))), nil)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, a, http.StatusRequestEntityTooLarge, CodeBadRequest)
		c.wantGone(TransportError)
	})
}

// Large POSTs and messages share what they are held in: who finds nothing left is sent
// away for now. Small ones are not concerned.
func TestLargePayloadsShareABudget(t *testing.T) {
	t.Parallel()
	bubble(t, Options{MaxReading: 10_000}, note, func(h *harness) {
		large := "4" + strings.Repeat("x", 12_000)
		slow := h.poll()
		write, posted := slow.postSlowly()
		_, _ = io.WriteString(write, large[:11_000])
		synctest.Wait()

		c := h.poll()
		a := c.post(large)
		wantError(t, a, http.StatusServiceUnavailable, CodeForbidden)
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("header %v", a.header)
		}
		c.wantGone(TransportError)
		onWebSocket, socket := h.connect()
		socket.send(large)
		socket.wantClose(1013)
		if got := wait(t, "the end", onWebSocket.rec.closed); got.reason != TransportError {
			t.Errorf("the session ended with %q", got.reason)
		}
		c = h.poll()
		wantOK(t, c.post("4"+strings.Repeat("x", 4000)), "ok")

		_, _ = io.WriteString(write, large[11_000:])
		_ = write.Close()
		wantOK(t, <-posted, "ok")
		wantOK(t, c.post(large), "ok")
		synctest.Wait()
		if n := h.server.reading.Left(); n != 10_000 {
			t.Errorf("%d are left in the end", n)
		}
	})
}

// Section "Receiving data": a client must not have more than one active GET.
func TestASecondPollEndsTheSession(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, note, func(h *harness) {
		c := h.poll()
		first := c.getWaiting()
		wantError(t, c.get(), http.StatusBadRequest, CodeBadRequest)
		wantOK(t, <-first, "1")
		c.wantGone(TransportError)
	})
}

// Section "Sending data": a client must not have more than one active POST.
func TestASecondPostEndsTheSession(t *testing.T) {
	t.Parallel()
	t.Run("while the first is coming", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			write, first := c.postSlowly()
			_, _ = write.Write([]byte("4a"))
			synctest.Wait()
			wantError(t, c.post("4b"), http.StatusBadRequest, CodeBadRequest)
			_ = write.Close()
			wantError(t, <-first, http.StatusBadRequest, CodeBadRequest)
			if n := len(c.rec.got); n != 0 {
				t.Errorf("%d messages were handled", n)
			}
			c.wantGone(TransportError)
		})
	})
	t.Run("while the first is handled", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		bubble(t, Options{}, func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
			note(r, kind, payload)
			<-release
			return nil
		}, func(h *harness) {
			release = make(chan struct{})
			c := h.poll()
			first := make(chan answer, 1)
			go func() {
				a, _ := c.do(h.ctx, http.MethodPost, c.query(Polling), strings.NewReader("4a\x1e4b"), nil)
				first <- a
			}()
			c.wantGot("MessageText a")
			wantError(t, c.post("4c"), http.StatusBadRequest, CodeBadRequest)
			for range 1000 {
				runtime.Gosched() // the end is not told meanwhile
			}
			close(release)
			wantError(t, <-first, http.StatusBadRequest, CodeBadRequest)
			if n := len(c.rec.got); n != 0 {
				t.Errorf("%d messages were handled after the end", n)
			}
			c.wantGone(TransportError)
		})
	})
}

// A client that gives up a request has lost what it would have told.
func TestCanceledRequestsEndTheSession(t *testing.T) {
	t.Parallel()
	t.Run("GET", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			ctx, cancel := context.WithCancel(h.ctx)
			gone := make(chan error, 1)
			go func() {
				_, err := c.do(ctx, http.MethodGet, c.query(Polling), nil, nil)
				gone <- err
			}()
			c.until("the poll waits", func(conn *Conn) bool { return conn.polling.waiting != nil })
			cancel()
			<-gone
			c.wantGone(TransportError)
		})
	})
	t.Run("POST", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, note, func(h *harness) {
			c := h.poll()
			write, gone := c.postSlowly()
			_, _ = write.Write([]byte("4a"))
			_ = write.CloseWithError(errors.New("changed my mind"))
			<-gone
			c.wantGone(TransportError)
		})
	})
	t.Run("POST that never ends", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{MessageTimeout: 7 * time.Second}, note, func(h *harness) {
			c := h.poll()
			start := time.Now()
			write, gone := c.postSlowly()
			_, _ = write.Write([]byte("4a"))
			<-gone
			if took := time.Since(start); took != 7*time.Second {
				t.Errorf("waited for %s", took)
			}
			c.wantGone(TransportError)
			_ = write.Close()
		})
	})
	t.Run("POST that is paused", func(t *testing.T) {
		t.Parallel()
		bubble(t, Options{}, func(*recorder, Kind, []byte) <-chan struct{} { return make(chan struct{}) }, func(h *harness) {
			c := h.poll()
			ctx, cancel := context.WithCancel(h.ctx)
			gone := make(chan error, 1)
			go func() {
				_, err := c.do(ctx, http.MethodPost, c.query(Polling), strings.NewReader("4a"), nil)
				gone <- err
			}()
			synctest.Wait()
			cancel()
			<-gone
			c.wantGone(TransportError)
		})
	})
}

// Section "Protocol", the packet "close": a client that leaves says so with a POST, and its
// GET ends with a noop.
func TestAClientCloses(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, note, func(h *harness) {
		c := h.poll()
		waiting := c.getWaiting()
		wantOK(t, c.post("4last words\x1e1\x1e4after"), "ok")
		wantOK(t, <-waiting, "6")
		c.wantGot("MessageText last words")
		if n := len(c.rec.got); n != 0 {
			t.Errorf("%d messages after the end", n)
		}
		end := <-c.rec.closed
		if end.reason != TransportClose || end.err != nil {
			t.Errorf("ended with %+v", end)
		}
		wantError(t, c.get(), http.StatusBadRequest, CodeUnknownSession)
	})
	bubble(t, Options{MaxSessions: 1}, note, func(h *harness) { // the POST overtakes the GET
		c := h.poll()
		_ = c.rec.conn.Send(Text, []byte("too late"))
		wantOK(t, c.post("1"), "ok")
		if got := (<-c.rec.closed).reason; got != TransportClose {
			t.Errorf("ended with %s", got)
		}
		wantError(t, c.post("4x"), http.StatusBadRequest, CodeUnknownSession)
		wantError(t, h.ask("GET", c.query(WebSocket), true), http.StatusBadRequest, CodeUnknownSession)
		wantError(t, h.ask("GET", newPolling, false), http.StatusServiceUnavailable, CodeForbidden) // it counts
		wantOK(t, c.get(), "6")
		wantError(t, c.get(), http.StatusBadRequest, CodeUnknownSession)
		if n := h.held(); n != 0 {
			t.Errorf("%d sessions are held", n)
		}

		c = h.poll() // and nobody waits for it for ever
		wantOK(t, c.post("1"), "ok")
		time.Sleep(leaveDelay + late)
		if n := h.held(); n != 0 {
			t.Errorf("%d sessions are held", n)
		}
		wantError(t, c.get(), http.StatusBadRequest, CodeUnknownSession)
	})
}

// Section "Packet": close tells a client; after what waits, with this poll or the
// next, or the client hears nothing.
func TestTheServerCloses(t *testing.T) {
	t.Parallel()
	tests := map[string]func(h *harness, c *client){
		"a poll that waits": func(h *harness, c *client) {
			waiting := c.getWaiting()
			c.rec.conn.Close(closeRestart, "restart")
			wantOK(h.t, <-waiting, "1")
		},
		"a poll that is to come": func(h *harness, c *client) {
			_ = c.rec.conn.Send(Text, []byte("last words"))
			c.rec.conn.Close(closeRestart, "restart")
			wantOK(h.t, c.post("4too late"), "ok")
			wantOK(h.t, c.get(), "4last words\x1e1")
		},
		"no poll": func(h *harness, c *client) {
			start := time.Now()
			c.rec.conn.Close(closeRestart, "restart")
			c.rec.conn.Close(closeNormal, "again")
			end := <-c.rec.closed
			if took := time.Since(start); took < 3*time.Second || took > 3*time.Second+100*time.Millisecond {
				h.t.Errorf("ended after %s", took)
			}
			c.rec.closed <- end
			c.rec.over.Store(true)
		},
		"at once": func(h *harness, c *client) {
			waiting := c.getWaiting()
			_ = c.rec.conn.Send(Text, []byte("first"))
			wantOK(h.t, <-waiting, "4first")
			_ = c.rec.conn.Send(Text, []byte("lost"))
			c.rec.conn.Abort()
		},
		"at once, while it is closing": func(_ *harness, c *client) {
			c.rec.conn.Close(closeNormal, "")
			c.rec.conn.Abort()
			c.rec.conn.Abort()
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{CloseTimeout: 3 * time.Second}, note, func(h *harness) {
				c := h.poll()
				test(h, c)
				if n := len(c.rec.got); n != 0 {
					t.Errorf("%d messages are handled after Close", n)
				}
				c.wantGone(ForcedClose)
			})
		})
	}
}

// A client that polls slowly, or never, is bounded in bytes.
func TestAPollingQueueIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, Options{MaxQueued: 1000}, note, func(h *harness) {
		c := h.poll()
		conn := c.rec.conn
		send := func(n int) error { return conn.Send(Text, bytes.Repeat([]byte("x"), n)) }
		if !conn.HasRoom() || conn.Room(h.ctx) != nil {
			t.Error("there is no room in nothing")
		}
		if err := send(498); err != nil || !conn.HasRoom() {
			t.Errorf("%v; there is room: %v", err, conn.HasRoom())
		}
		if err := send(498); err != nil || conn.HasRoom() {
			t.Errorf("%v; there is room: %v", err, conn.HasRoom())
		}
		for _, err := range []error{send(0), conn.SendAll(Packet{Kind: Binary}), conn.SendAll(Packet{Kind: Text}, Packet{Kind: Text})} {
			if !errors.Is(err, ErrOverflow) {
				t.Errorf("past the bound: %v", err)
			}
		}
		if got := h.server.Stats().Queued; got != 1000 {
			t.Errorf("%d bytes wait", got)
		}
		ctx, cancel := context.WithTimeout(h.ctx, time.Second)
		defer cancel()
		if err := conn.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("room: %v", err)
		}
		room := make(chan error, 1)
		go func() { room <- conn.Room(h.ctx) }()
		synctest.Wait()
		wantOK(t, c.get(), "4"+strings.Repeat("x", 498)+"\x1e4"+strings.Repeat("x", 498))
		if err := <-room; err != nil {
			t.Errorf("room: %v", err)
		}

		if err := send(5000); err != nil { // of any size, if nothing waits
			t.Errorf("the first: %v", err)
		}
		if err := send(1); !errors.Is(err, ErrOverflow) {
			t.Errorf("the second: %v", err)
		}
		go func() { room <- conn.Room(h.ctx) }()
		synctest.Wait()
		conn.Close(closeNormal, "")
		if err := <-room; !errors.Is(err, ErrClosed) {
			t.Errorf("room, when it closes: %v", err)
		}
		if err := conn.SendAll(Packet{Kind: Text}); !errors.Is(err, ErrClosed) {
			t.Errorf("send, when it closes: %v", err)
		}
		if got := c.get(); !strings.HasSuffix(got.body, "x\x1e1") {
			t.Errorf("got %q", got.body)
		}
	})
}

// A client that takes its answer slowly is given up, and what it had not is counted
// as waiting until then.
func TestAnAnswerThatIsNotTakenEndsTheSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{WriteTimeout: 300 * time.Millisecond, MaxQueued: 1000}, note)
	c := h.poll()
	if err := c.rec.conn.Send(Binary, make([]byte, 32<<20)); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(h.ctx, http.MethodGet, h.url+"?"+c.query(Polling), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := h.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() // and nothing is read before
	if err := c.rec.conn.Send(Text, []byte("more")); !errors.Is(err, ErrOverflow) && !errors.Is(err, ErrClosed) {
		t.Errorf("send: %v", err)
	}
	c.wantGone(TransportError)
}

// What a message's handling sends goes out together; and what it waits for holds up
// neither that nor what others send.
func TestAnswersToOnePostGoOutTogether(t *testing.T) {
	t.Parallel()
	slowly := func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		echo(r, kind, payload)
		time.Sleep(time.Second)
		return nil
	}
	bubble(t, Options{}, slowly, func(h *harness) {
		c := h.poll()
		waiting := c.getWaiting()
		wantOK(t, c.post("4a\x1e4b\x1e4c"), "ok")
		wantOK(t, <-waiting, "4a\x1e4b\x1e4c")
	})
	var release chan struct{}
	bubble(t, Options{}, func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		_ = r.conn.Send(kind, payload)
		r.conn.Uncork()
		<-release
		return nil
	}, func(h *harness) {
		release = make(chan struct{})
		c := h.poll()
		waiting := c.getWaiting()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		wantOK(t, <-waiting, "4a")
		if len(done) != 0 {
			t.Error("the POST was answered before it was handled")
		}
		close(release)
		wantOK(t, <-done, "ok")
	})
}

// A handler that pauses keeps the POST, and the client need not answer pings, which
// it could not.
func TestAPauseKeepsThePost(t *testing.T) {
	t.Parallel()
	var pause chan struct{}
	bubble(t, Options{}, func(r *recorder, kind Kind, payload []byte) <-chan struct{} {
		note(r, kind, payload)
		_ = r.conn.Send(kind, payload)
		return pause
	}, func(h *harness) {
		pause = make(chan struct{})
		c := h.poll()
		waiting := c.getWaiting()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a\x1e4b") }()
		wantOK(t, <-waiting, "4a")
		for ended := time.Now().Add(5 * time.Minute); time.Now().Before(ended); {
			start := time.Now()
			wantOK(t, c.get(), "2") // the client has to hear of us
			if took := time.Since(start); took > 25*time.Second+late {
				t.Errorf("a ping after %s", took)
			}
		}
		c.wantGot("MessageText a")
		if len(c.rec.got) != 0 || len(done) != 0 || len(c.rec.closed) != 0 {
			t.Errorf("%d messages, %d answers, %d ends in a pause", len(c.rec.got), len(done), len(c.rec.closed))
		}
		close(pause)
		wantOK(t, <-done, "ok")
		c.wantGot("MessageText b")
		time.Sleep(19 * time.Second) // the client gets its time to answer
		wantOK(t, c.post("3"), "ok")
		wantOK(t, c.get(), "4b")
		wantOK(t, c.get(), "2")
	})
	bubble(t, Options{}, func(*recorder, Kind, []byte) <-chan struct{} { return pause }, func(h *harness) {
		pause = make(chan struct{}) // which ends just before the time for the pong does
		c := h.poll()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		time.Sleep(44 * time.Second)
		close(pause)
		wantOK(t, <-done, "ok")
		time.Sleep(10 * time.Second)
		wantOK(t, c.post("3"), "ok")
		wantOK(t, c.get(), "2")
		wantOK(t, c.get(), "2")
	})
	bubble(t, Options{}, func(*recorder, Kind, []byte) <-chan struct{} { return pause }, func(h *harness) {
		pause = make(chan struct{}) // and the pings that nobody fetches are not many
		c := h.poll()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		time.Sleep(time.Hour)
		close(pause)
		wantOK(t, <-done, "ok")
		wantOK(t, c.get(), "2")
	})
}

// A client whose request's body never comes, or has no business here, waits for no
// longer than a message may take; and with it what serves it.
func TestBodiesThatNeverCome(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"POST without a session": "POST /?EIO=4&transport=polling&sid=nope HTTP/1.1\r\nContent-Length: 100\r\n",
		"POST for a handshake":   "POST /?EIO=4&transport=polling HTTP/1.1\r\nContent-Length: 100\r\n",
		"GET for a handshake":    "GET /?EIO=4&transport=polling HTTP/1.1\r\nContent-Length: 100\r\n",
		"GET in a session":       "GET /?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nContent-Length: 100\r\n",
		"another origin":         "GET /?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nContent-Length: 100\r\nOrigin: http://evil\r\n",
		"POST in a session":      "POST /?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nContent-Length: 100\r\n",
		"POST that is too large": "POST /?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nContent-Length: 200000\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Options{MaxPayload: 100_000}, note, func(h *harness) {
				c := h.poll()
				conn, err := h.network.dial(h.ctx, "", "")
				if err != nil {
					h.t.Fatal(err)
				}
				defer conn.Close()
				start := time.Now()
				go func() {
					_, _ = io.WriteString(conn, strings.Replace(request, "%s", c.sid, 1)+"Host: bubble\r\n\r\nshort")
				}()
				answer, _ := io.ReadAll(conn) // of whom the server expects no more
				if took := time.Since(start); took > 31*time.Second || bytes.Contains(answer, []byte(" 200 OK")) {
					h.t.Errorf("after %s: %s", took, answer)
				}
				if n := h.server.Stats().Opened[Polling]; n != 1 {
					h.t.Errorf("%d sessions began", n)
				}
			})
		})
	}
}

// A panic in a handler that net/http recovers from ends the session, and nothing more.
func TestAPanicEndsTheSession(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(*recorder, Kind, []byte) <-chan struct{} { panic("on purpose") }, func(h *harness) {
		c := h.poll()
		waiting := c.getWaiting()
		if a, err := c.do(h.ctx, http.MethodPost, c.query(Polling), strings.NewReader("4a"), nil); err == nil {
			t.Errorf("answered %+v", a)
		}
		wantOK(t, <-waiting, "1")
		c.wantGone(TransportError)
	})
	bubble(t, Options{}, note, func(h *harness) {
		h.begun = func(*recorder, *http.Request) { panic("on purpose") }
		if a, err := h.do(h.ctx, http.MethodGet, newPolling, nil, nil); err == nil {
			t.Errorf("answered %+v", a)
		}
		if ws, _, err := h.dial(newWebSocket, nil); err == nil {
			if _, text, err := ws.Read(h.ctx); err == nil && text[0] != byte(packetOpen) { // which may be out
				t.Errorf("read %q", text)
			}
			_ = ws.CloseNow()
		}
	})
}

// The end of a session frees a POST that is paused.
func TestTheEndFreesAPausedPost(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(*recorder, Kind, []byte) <-chan struct{} { return make(chan struct{}) }, func(h *harness) {
		c := h.poll()
		done := make(chan answer, 1)
		go func() { done <- c.post("4a") }()
		synctest.Wait()
		c.rec.conn.Abort()
		wantError(t, <-done, http.StatusBadRequest, CodeBadRequest)
		c.wantGone(ForcedClose)
	})
}

// Handlers may end sessions from within.
func TestAHandlerEndsItsSession(t *testing.T) {
	t.Parallel()
	bubble(t, Options{}, func(r *recorder, _ Kind, payload []byte) <-chan struct{} {
		if string(payload) == "abort" {
			r.conn.Abort()
		} else {
			r.conn.Close(closeNormal, "")
		}
		return nil
	}, func(h *harness) {
		c := h.poll()
		wantError(t, c.post("4abort\x1e4x"), http.StatusBadRequest, CodeBadRequest)
		c.wantGone(ForcedClose)
		c = h.poll()
		wantOK(t, c.post("4close\x1e4x"), "ok")
		wantOK(t, c.get(), "1")
		c.wantGone(ForcedClose)
	})
}

// Many senders, and one client that polls: nothing is lost, torn apart or reordered.
func TestManySendersAndOnePoller(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{MaxQueued: 4000}, note)
	c := h.poll()
	const senders, each = 8, 200
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := range each {
				name := []byte{'a' + byte(i), byte(n)}
				for {
					err := c.rec.conn.SendAll(Packet{Binary, [][]byte{name}}, Packet{Binary, [][]byte{name[:1], name[1:]}})
					if err == nil {
						break
					}
					if !errors.Is(err, ErrOverflow) || c.rec.conn.Room(h.ctx) != nil {
						t.Errorf("send: %v", err)
						return
					}
				}
			}
		})
	}
	next := map[byte]byte{}
	for total := 0; total < senders*each; {
		a := c.get()
		if a.status != http.StatusOK {
			t.Fatalf("poll: %+v", a)
		}
		got := slices.DeleteFunc(packets(a.body), func(p string) bool { return p == "2" })
		for pair := range slices.Chunk(got, 2) {
			name, err := appendDecoded(nil, []byte(pair[0][1:]))
			if err != nil || len(pair) != 2 || pair[0] != pair[1] || name[1] != next[name[0]] {
				t.Fatalf("got %q %v, want %v next", pair, name, next)
			}
			next[name[0]]++
			total++
		}
	}
	wg.Wait()
}
