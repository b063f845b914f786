package wsconn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

func TestMessagesOfEverySize(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{MaxMessage: 1 << 20, MaxQueued: 2 << 20}, echo)
	ws, _ := s.dial()
	for _, size := range []int{0, 1, 7, 8, 9, 125, 126, 127, 4000, 4090, 4096, 65535, 65536, 300_000} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			want := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
			if err := ws.Write(t.Context(), kind, want); err != nil {
				t.Fatal(err)
			}
			gotKind, got, err := ws.Read(t.Context())
			if err != nil || gotKind != kind || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes came back as %d of kind %v: %v", size, len(got), gotKind, err)
			}
		}
	}
}

func TestFragmentsAreOneMessageAndControlFramesMayComeBetween(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, _ := s.raw(clientFrame(opText, "")...) // a first fragment, empty and early
	r.write(clientFrame(flagFin|opPing, "are you there?"))
	r.wantFrame(flagFin|opPong, "are you there?")
	r.write(clientFrame(opContinuation, "one "))
	r.write(clientFrame(flagFin|opPong, ""))
	for _, b := range clientFrame(flagFin|opContinuation, "two") { // a byte at a time
		r.write([]byte{b})
	}
	r.wantFrame(flagFin|opText, "one two")
}

func TestManyFramesAtOnceKeepTheirOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, _ := s.raw()
	var all []byte
	for i := range 1000 {
		all = append(all, clientFrame(flagFin|opText, fmt.Sprintf("%04d", i))...)
	}
	go func() { _, _ = r.conn.Write(all) }()
	for i := range 1000 {
		r.wantFrame(flagFin|opText, fmt.Sprintf("%04d", i))
	}
}

func TestViolationsCloseWith1002(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{CloseTimeout: 50 * time.Millisecond}, echo)
	tests := map[string][]byte{
		"not masked":                   {flagFin | opText, 1, 'x'},
		"reserved bit":                 clientFrame(flagFin|0x40|opText, "x"),
		"reserved opcode":              clientFrame(flagFin|0x3, "x"),
		"reserved control opcode":      clientFrame(flagFin|0xB, "x"),
		"fragmented ping":              clientFrame(opPing, "x"),
		"long ping":                    clientFrame(flagFin|opPing, strings.Repeat("x", 126)),
		"negative length":              {flagFin | opText, flagMasked | length64, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"continuation of nothing":      clientFrame(flagFin|opContinuation, "x"),
		"text within a message":        slices.Concat(clientFrame(opText, "x"), clientFrame(flagFin|opText, "y")),
		"close with one byte":          clientFrame(flagFin|opClose, "x"),
		"close with a code for no one": clientFrame(flagFin|opClose, "\x03\xed"),
		"close with a code of nobody":  clientFrame(flagFin|opClose, "\x07\xd0"),
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			r, rec := s.raw(frames...)
			r.wantClose(codeProtocol)
			if c := wait(t, "the end", rec.closed); c.Code != codeProtocol || c.ByPeer || c.Err == nil {
				t.Errorf("closure %+v", c)
			}
		})
	}
}

func TestAPeerThatClosesIsAnswered(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	for _, payload := range []string{"\x03\xe8bye", "\x0f\xa1", ""} {
		r, rec := s.raw()
		r.write(clientFrame(flagFin|opClose, payload))
		r.wantFrame(flagFin|opClose, payload)
		r.wantEnd()
		if c := wait(t, "the end", rec.closed); !c.ByPeer || c.Err != nil {
			t.Errorf("closure %+v", c)
		}
		if err := errors.Join(rec.conn.Send(Text), rec.conn.Room(t.Context())); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed connection takes a message: %v", err)
		}
	}
}

func TestCloseWritesWhatWaitsAndDropsWhatComes(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, func(*Conn, Kind, []byte) <-chan struct{} {
		t.Error("a message was handled")
		return nil
	})
	r, rec := s.raw()
	if err := rec.conn.Send(Text, []byte("last"), []byte(" words")); err != nil {
		t.Fatal(err)
	}
	rec.conn.Close(4200, "resume")
	rec.conn.Close(4001, "too late to change")
	r.wantFrame(flagFin|opText, "last words")
	r.write(clientFrame(flagFin|opText, "crossed the close frame"))
	r.wantFrame(flagFin|opClose, "\x10\x68resume")
	r.write(clientFrame(flagFin|opClose, "\x10\x68"))
	r.wantEnd()
	if c := wait(t, "the end", rec.closed); c.Code != 4200 || c.ByPeer || c.Err != nil {
		t.Errorf("closure %+v", c)
	}
}

func TestAPeerThatDoesNotAnswerACloseIsCutOff(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{CloseTimeout: 50 * time.Millisecond}, echo)
	_, rec := s.raw()
	rec.conn.Close(int(websocket.StatusNormalClosure), strings.Repeat("long ", 50))
	if c := wait(t, "the end", rec.closed); c.Code != int(websocket.StatusNormalClosure) || c.Err == nil {
		t.Errorf("closure %+v", c)
	}
}

func TestWhatIsQueuedWhileAMessageIsHandledGoesOutTogether(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, func(c *Conn, _ Kind, _ []byte) <-chan struct{} {
		_ = errors.Join(c.Join(Now, []byte("one\n")), c.Join(Now, []byte("two"), []byte("\n")), // one message
			c.Send(Text, []byte("alone")),
			c.Join(Now, []byte("three\n")),
			c.Join(Now, bytes.Repeat([]byte("x"), maxJoined)), // is large enough by itself
			c.Join(Now, []byte("four\n")))
		return nil
	})
	r, _ := s.raw()
	r.write(clientFrame(flagFin|opText, "go"))
	for _, want := range []string{"one\ntwo\n", "alone", "three\n", strings.Repeat("x", maxJoined), "four\n"} {
		r.wantFrame(flagFin|opText, want)
	}
}

func TestAHandlerThatWaitsUncorks(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := newServer(t, Options{}, func(c *Conn, _ Kind, _ []byte) <-chan struct{} {
		_ = c.Join(Now, []byte("answer"))
		c.Uncork()
		<-release
		return nil
	})
	r, rec := s.raw()
	r.write(clientFrame(flagFin|opText, "go"))
	r.wantFrame(flagFin|opText, "answer")
	if err := rec.conn.Send(Text, []byte("from elsewhere")); err != nil {
		t.Fatal(err)
	}
	r.wantFrame(flagFin|opText, "from elsewhere")
	close(release)
}

// What follows the wait goes out together, at the end.
func TestAHandlerThatHasWaitedCorksAgain(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, func(c *Conn, _ Kind, _ []byte) <-chan struct{} {
		c.Uncork()
		c.Cork()
		for _, part := range []string{"answer ", "and ", "more"} {
			_ = c.Join(Now, []byte(part))
			c.mu.Lock()
			if c.writing {
				t.Error("it is being written")
			}
			c.mu.Unlock()
		}
		return nil
	})
	r, _ := s.raw()
	r.write(clientFrame(flagFin|opText, "go"))
	r.wantFrame(flagFin|opText, "answer and more")
}

// What comes while a message is being handled is handled next, and so is the end that
// comes with it, of which the poller tells no more.
func TestWhatComesMeanwhileIsHandledNext(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]bool{"a message": false, "and the end": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handling, written := make(chan struct{}, 2), make(chan struct{})
			s := newServer(t, Options{}, func(c *Conn, _ Kind, payload []byte) <-chan struct{} {
				handling <- struct{}{}
				<-written
				for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // until the poller has told
					c.mu.Lock()
					told := c.stirred && c.hungUp.Load() == ends
					c.mu.Unlock()
					if told || string(payload) == "two" {
						break
					}
					if time.Now().After(deadline) {
						t.Error("the poller does not tell")
						break
					}
				}
				_ = c.Send(Text, payload)
				return nil
			})
			r, rec := s.raw()
			r.write(clientFrame(flagFin|opText, "one"))
			<-handling
			r.write(clientFrame(flagFin|opText, "two"))
			if ends {
				if err := r.conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			close(written)
			r.wantFrame(flagFin|opText, "one")
			r.wantFrame(flagFin|opText, "two")
			if ends {
				wait(t, "the end", rec.closed)
			}
		})
	}
}

func TestAHandlerMayPauseTheReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var handled []string
		resume := make(chan struct{})
		r, _ := newPipe(t, Options{}, func(_ *Conn, _ Kind, payload []byte) <-chan struct{} {
			handled = append(handled, string(payload))
			return resume
		})
		r.write(slices.Concat(clientFrame(flagFin|opText, "one"), clientFrame(flagFin|opText, "two")))
		synctest.Wait()
		if !slices.Equal(handled, []string{"one"}) {
			t.Errorf("handled before and in the pause: %q", handled)
		}
		close(resume)
		synctest.Wait()
		if !slices.Equal(handled, []string{"one", "two"}) {
			t.Errorf("handled: %q", handled)
		}
	})
}

func TestWhatIsTooLargeIsNotHandled(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{MaxMessage: 1000}, echo)
	large := strings.Repeat("x", 1001)
	for name, frames := range map[string][]byte{
		"at once": clientFrame(flagFin|opText, large),
		"in fragments": slices.Concat(clientFrame(opText, large[:600]), clientFrame(opContinuation, large[:400]),
			clientFrame(flagFin|opContinuation, large[:1])),
	} {
		t.Run(name, func(t *testing.T) {
			r, rec := s.raw()
			r.write(clientFrame(flagFin|opText, large[:1000]))
			r.wantFrame(flagFin|opText, large[:1000])
			r.write(frames)
			wait(t, "the complaint", rec.tooLarge)
			r.write(clientFrame(flagFin|opText, "not handled, either"))
			r.wantFrame(flagFin|opClose, "\x0f\xa2too large")
			r.write(clientFrame(flagFin|opClose, "\x0f\xa2"))
			r.wantEnd()
			if c := wait(t, "the end", rec.closed); c.Code != 4002 || c.Err != nil || len(rec.tooLarge) > 0 {
				t.Errorf("closure %+v, and %d complaints more", c, len(rec.tooLarge))
			}
		})
	}
}

// Large messages share what they are held in: who finds nothing left comes later. Small
// ones are not concerned.
func TestLargeMessagesShareABudget(t *testing.T) {
	t.Parallel()
	reading := budget.New(20_000)
	s := newServer(t, Options{Reading: reading, MaxMessage: 1 << 20}, echo)
	large := clientFrame(flagFin|opText, strings.Repeat("x", 16_000))
	first, _ := s.raw()
	first.write(large[:15_000])
	await := func(what string, holds func(left int) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !holds(reading.Left()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d are left, want %s", reading.Left(), what)
			}
		}
	}
	await("less", func(left int) bool { return left <= 12_000 })
	second, rec := s.raw()
	second.write(large)
	second.wantClose(1013)
	second.write(clientFrame(flagFin|opClose, "\x03\xf5"))
	second.wantEnd()
	if c := wait(t, "the end", rec.closed); c.Code != 1013 || c.ByPeer || c.Err != nil {
		t.Errorf("closure %+v", c)
	}
	third, _ := s.raw()
	small := strings.Repeat("x", 4000)
	third.write(clientFrame(flagFin|opText, small))
	third.wantFrame(flagFin|opText, small)

	first.write(large[15_000:])
	first.wantFrame(flagFin|opText, strings.Repeat("x", 16_000))
	third.write(large)
	third.wantFrame(flagFin|opText, strings.Repeat("x", 16_000))
	await("all", func(left int) bool { return left == 20_000 }) // soon after the answers
}

// Peers that send half a message hold nobody else up, however many they are, and
// not for ever.
func TestHalfAMessage(t *testing.T) {
	t.Parallel()
	const halves = 200
	s := newServer(t, Options{MessageTimeout: 2 * time.Second}, func(c *Conn, kind Kind, payload []byte) <-chan struct{} {
		if string(payload) != "whole" {
			t.Errorf("%q was handled", payload)
		}
		return echo(c, kind, payload)
	})
	whole := clientFrame(flagFin|opText, "whole")
	ends := make([]<-chan Closure, 0, halves)
	for i := range halves {
		_, rec := s.raw(whole[:1+i%(len(whole)-1)]...)
		ends = append(ends, rec.closed)
	}
	r, rec := s.raw(clientFrame(flagFin|opPing, "")...)
	r.wantFrame(flagFin|opPong, "")
	for _, end := range ends {
		r.write(whole)
		r.wantFrame(flagFin|opText, "whole")
		if c := wait(t, "the end of half a message", end); !errors.Is(c.Err, os.ErrDeadlineExceeded) {
			t.Errorf("closure %+v", c)
		}
	}
	// Silence between messages has no bound.
	r.write(whole)
	r.wantFrame(flagFin|opText, "whole")
	select {
	case c := <-rec.closed:
		t.Errorf("closed: %+v", c)
	default:
	}
}

// The library takes the end of the input for the end of the message as well.
func TestAMessageThatIsCutOffIsNotHandled(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, func(_ *Conn, _ Kind, payload []byte) <-chan struct{} {
		t.Errorf("%q was handled", payload)
		return nil
	})
	whole := slices.Concat(clientFrame(opText, "one"), clientFrame(flagFin|opContinuation, "two"))
	for n := range whole {
		r, rec := s.raw(whole[:n]...)
		_ = r.conn.Close()
		if c := wait(t, "the end", rec.closed); c.Code != 0 || c.ByPeer || c.Err == nil {
			t.Errorf("after %d bytes: closure %+v", n, c)
		}
	}
}

// A peer in the middle of a message hears of the close at once.
func TestCloseWithinAMessage(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, rec := s.raw(clientFrame(flagFin|opText, "first")...)
	r.wantFrame(flagFin|opText, "first")
	r.write(clientFrame(opText, "half"))
	rec.conn.Close(4200, "resume")
	r.wantFrame(flagFin|opClose, "\x10\x68resume")
	r.write(clientFrame(flagFin|opClose, "\x10\x68"))
	r.wantEnd()
	if c := wait(t, "the end", rec.closed); c.Code != 4200 || c.Err != nil {
		t.Errorf("closure %+v", c)
	}
}

// newPipe is a pipe to a group of its own.
func newPipe(t *testing.T, options Options, message func(*Conn, Kind, []byte) <-chan struct{}) (*raw, *recorder) {
	t.Helper()
	g, rec := NewGroup(options), newRecorder(message)
	theirs := pipe(t, g, rec)
	_ = theirs.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		_ = theirs.Close()
		if err := g.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &raw{t: t, conn: theirs, br: bufio.NewReader(theirs)}, rec
}

func TestASlowPeerIsBoundedAndLosesNothingThatWasTaken(t *testing.T) {
	t.Parallel()
	const limit = 256 << 10
	r, rec := newPipe(t, Options{MaxQueued: limit}, echo)
	line := bytes.Repeat([]byte("x"), 991)
	taken := 0
	for ; ; taken++ {
		err := rec.conn.Join(Now, fmt.Appendf(nil, "%08d", taken), line, []byte{'\n'})
		if errors.Is(err, ErrOverflow) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := rec.conn.group.Queued(); n > limit || n < limit-1000 {
		t.Errorf("%d bytes wait", n)
	}
	if rec.conn.HasRoom() {
		t.Error("there is room")
	}
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rec.conn.Room(hurried); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for room: %v", err)
	}
	room := make(chan error, 1)
	go func() { room <- rec.conn.Room(context.Background()) }()
	rec.conn.Ping(patience) // may pass what waits
	pings := 0
	for got := 0; got < taken; {
		first, payload, err := r.frame()
		if err != nil {
			t.Fatal(err)
		}
		if first == flagFin|opPing {
			pings++
			continue
		}
		for each := range bytes.Lines(payload) {
			if string(each[:8]) != fmt.Sprintf("%08d", got) {
				t.Fatalf("line %d begins with %s", got, each[:8])
			}
			got++
		}
	}
	if pings == 0 {
		r.wantFrame(flagFin|opPing, "1")
	} else if pings > 1 {
		t.Errorf("%d pings", pings)
	}
	if err := wait(t, "room", room); err != nil {
		t.Error(err)
	}
}

// What the kernel does not take at once is not lost, either.
func TestAReaderThatComesLateGetsEverything(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, rec := s.raw()
	const messages, size = 200, 50_000 // more than the kernel holds
	start := make(chan struct{})
	go func() {
		for i := range messages {
			if i == messages/2 {
				close(start)
			}
			if err := rec.conn.Room(context.Background()); err != nil {
				t.Errorf("waiting for room: %v", err)
			}
			if err := rec.conn.Send(Binary, fmt.Appendf(nil, "%08d", i), make([]byte, size)); err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}()
	select {
	case <-start:
	case <-time.After(time.Second): // the kernel holds less than half of it
	}
	for i := range messages {
		_, payload, err := r.frame()
		if err != nil || len(payload) != size+8 || string(payload[:8]) != fmt.Sprintf("%08d", i) {
			t.Fatalf("message %d: %d bytes, %v", i, len(payload), err)
		}
	}
}

func TestMessagesThatBelongTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{MaxQueued: 100, WriteTimeout: time.Hour}, echo)
		part := bytes.Repeat([]byte("x"), 20)
		both := func(more ...Message) error {
			return rec.conn.SendAll(append(more, Message{Text, [][]byte{part, part}}, Message{Binary, [][]byte{[]byte("yz")}})...)
		}
		if err := errors.Join(both(), both(), both(Message{Kind: Binary})); !errors.Is(err, ErrOverflow) {
			t.Errorf("85 and 43 of 100 bytes: %v", err)
		}
		if err := rec.conn.Send(Text, part[:16]); err != nil { // nothing is left of what was refused
			t.Errorf("the last 16 bytes: %v", err)
		}
		for range 2 {
			r.wantFrame(flagFin|opText, strings.Repeat("x", 40))
			r.wantFrame(flagFin|opBinary, "yz")
		}
		r.wantFrame(flagFin|opText, string(part[:16]))
		rec.conn.Close(4200, "resume")
		if err := both(); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		r.wantClose(4200)
	})
}

func TestEmptyMessagesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, rec := newPipe(t, Options{MaxQueued: 100, WriteTimeout: time.Hour}, echo) // of which nothing is read
		for i := range 100 {
			if err := rec.conn.Send(Binary); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		if err := rec.conn.Send(Binary); !errors.Is(err, ErrOverflow) {
			t.Errorf("one more: %v", err)
		}
		rec.conn.Abort()
		wait(t, "the end", rec.closed)
	})
}

func TestDiscardKeepsFramesWhole(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{MaxQueued: 64 << 10}, echo)
	r, rec := s.raw()
	message := bytes.Repeat([]byte("x"), 10_000)
	for rec.conn.Send(Text, message) == nil {
	}
	rec.conn.Discard()
	rec.conn.Close(4101, "too slow")
	r.wantClose(4101) // frame after frame, up to it
}

func TestAPeerThatTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{WriteTimeout: 50 * time.Millisecond}, echo)
	_, rec := s.raw()
	message := bytes.Repeat([]byte("x"), 100_000)
	for { // until the kernel holds as much as it can
		if err := rec.conn.Room(t.Context()); err != nil {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("waiting for room: %v", err)
			}
			break
		}
		_ = rec.conn.Send(Text, message) // refused once it is closed
	}
	if c := wait(t, "the end", rec.closed); c.Err == nil || c.Code != 0 {
		t.Errorf("closure %+v", c)
	}
}

func TestABrokenConnectionEnds(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, rec := s.raw(clientFrame(flagFin|opText, "half a frame")[:9]...)
	_ = r.conn.Close()
	if c := wait(t, "the end", rec.closed); c.Code != 0 || c.ByPeer || c.Err == nil {
		t.Errorf("closure %+v", c)
	}
	_, rec = s.raw()
	rec.conn.Abort()
	wait(t, "the end", rec.closed)
}

func TestPing(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	r, rec := s.raw()
	before := rec.conn.LastRead()
	rec.conn.Ping(patience)
	r.wantFrame(flagFin|opPing, "1")
	r.write(slices.Concat(clientFrame(flagFin|opPong, "1"), clientFrame(flagFin|opText, "x")))
	r.wantFrame(flagFin|opText, "x")
	if !rec.conn.LastRead().After(before) {
		t.Error("the pong was no sign of life")
	}
}

// After pings and pongs nobody waits for the peer but the poller: on a worker, they
// would be the begin of a message that is late.
func TestSilenceAfterAPingIsFree(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{MessageTimeout: 10 * time.Millisecond}, echo)
	r, rec := s.raw()
	rests := func() bool {
		rec.conn.mu.Lock()
		defer rec.conn.mu.Unlock()
		return rec.conn.resting
	}
	for range 3 {
		r.write(clientFrame(flagFin|opPing, "x"))
		r.wantFrame(flagFin|opPong, "x")
		r.write(clientFrame(flagFin|opPong, "y"))
		for deadline := time.Now().Add(patience); !rests(); time.Sleep(time.Millisecond) {
			if len(rec.closed) > 0 || time.Now().After(deadline) {
				t.Fatalf("it does not rest: %d", len(rec.closed))
			}
		}
	}
	r.write(clientFrame(flagFin|opText, "still there"))
	r.wantFrame(flagFin|opText, "still there")
}

func TestHandshakesAreChecked(t *testing.T) {
	t.Parallel()
	s := newServer(t, Options{}, echo)
	tests := map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"no upgrade":     {func(r *http.Request) { r.Header.Del("Upgrade") }, http.StatusUpgradeRequired},
		"no connection":  {func(r *http.Request) { r.Header.Set("Connection", "close") }, http.StatusUpgradeRequired},
		"POST":           {func(r *http.Request) { r.Method = http.MethodPost }, http.StatusMethodNotAllowed},
		"old version":    {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, http.StatusBadRequest},
		"no key":         {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, http.StatusBadRequest},
		"short key":      {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "c2hvcnQ=") }, http.StatusBadRequest},
		"key not base64": {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "!") }, http.StatusBadRequest},
		"two keys":       {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }, http.StatusBadRequest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := testkit.Upgrade(t, s.http.URL, "test.v1")
			tt.change(r)
			response, err := s.http.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != tt.want {
				t.Errorf("status %d, want %d", response.StatusCode, tt.want)
			}
			if name == "old version" && response.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Error("it does not say which version it speaks")
			}
		})
	}
}

// What is sent before the start goes out with the answer to the handshake, which goes
// out by itself if there is nothing.
func TestTheAnswerToTheHandshakeTakesAlongWhatComesFirst(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"", "hello"} {
		synctest.Test(t, func(t *testing.T) {
			g := NewGroup(Options{})
			rec := newRecorder(echo)
			ours, theirs := net.Pipe()
			w := httptest.NewRecorder()
			w.Header().Set("X-Told", "by who serves it")
			var err error
			if rec.conn, err = g.Accept(unread{w, ours}, testkit.Upgrade(t, "http://test/", "test.v1"), "test.v1", rec); err != nil {
				t.Fatal(err)
			}
			if first != "" {
				if err := rec.conn.Send(Text, []byte(first)); err != nil {
					t.Fatal(err)
				}
			}
			rec.conn.Start()
			buf := make([]byte, 1024)
			n, err := theirs.Read(buf) // all of one write
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(bytes.NewReader(buf[:n]))
			response, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			got := []string{
				response.Status, response.Header.Get("Sec-Websocket-Accept"), response.Header.Get("Sec-Websocket-Protocol"), response.Header.Get("X-Told"),
			}
			want := []string{"101 Switching Protocols", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "test.v1", "by who serves it"} // RFC 6455, section 1.3
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the answer (-want +got):\n%s", diff)
			}
			rest, _ := io.ReadAll(r)
			if !bytes.HasSuffix(rest, []byte(first)) || (len(rest) > 0) != (first != "") {
				t.Errorf("with the answer came %q, want %q in a frame", rest, first)
			}
			_ = theirs.Close()
			if err := g.Wait(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
