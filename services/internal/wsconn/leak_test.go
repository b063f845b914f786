package wsconn

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

// What has no file descriptor of its own, as TLS, is served in the plain way.
func TestConnectionsWithoutADescriptor(t *testing.T) {
	t.Parallel()
	r, rec := newPipe(t, Options{}, echo)
	r.write(clientFrame(flagFin|opText, "hello"))
	r.wantFrame(flagFin|opText, "hello")
	r.write(clientFrame(flagFin|opClose, "\x03\xe8"))
	r.wantFrame(flagFin|opClose, "\x03\xe8")
	wait(t, "the end", rec.closed)
}

// Connections come and go, in every way to go, and leave nothing.
func TestConnectionsLeaveNothingBehind(t *testing.T) {
	// Not parallel: it counts goroutines, and weighs the heap.
	s := newServer(t, Options{CloseTimeout: 20 * time.Millisecond}, echo)
	testkit.LeavesNothing(t, 2000, 2<<20, s.http.CloseClientConnections, func(i int) error {
		r, rec, err := s.open(clientFrame(flagFin|opText, "hello")...)
		if err != nil {
			return err
		}
		err = r.expect(flagFin|opText, "hello")
		switch i % 4 {
		case 0:
			_ = r.conn.Close()
		case 1:
			_, _ = r.conn.Write(clientFrame(flagFin|opClose, "\x03\xe8")) // or there is no answer
			err = errors.Join(err, r.expect(flagFin|opClose, "\x03\xe8"))
		case 2:
			rec.conn.Close(4200, "resume") // and no answer
		case 3:
			_, _ = r.conn.Write([]byte{flagFin | opText, 1, 'x'}) // or there is no answer
			err = errors.Join(err, r.expectClose(codeProtocol))
		}
		_ = r.conn.Close()
		_, notClosed := await("the end", rec.closed)
		return errors.Join(err, notClosed)
	})
}

// Peers that speak and never answer pings keep no goroutine for each.
func TestPingsWithoutAnAnswerAreForgotten(t *testing.T) {
	// Not parallel: it counts goroutines.
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{}, echo)
		const pings, timeout = 100, 100 * time.Millisecond
		ping := func(n int) {
			rec.conn.Ping(timeout)
			r.wantFrame(flagFin|opPing, strconv.Itoa(n))
			r.write(clientFrame(flagFin|opText, "I speak"))
			r.wantFrame(flagFin|opText, "I speak")
			time.Sleep(timeout) // of the bubble's time
			synctest.Wait()
		}
		ping(1)
		before := runtime.NumGoroutine()
		for n := range pings {
			ping(n + 2)
		}
		if after := runtime.NumGoroutine(); after >= before+pings/2 {
			t.Errorf("%d goroutines after %d pings, before %d", after, pings, before)
		}
	})
}

// Whatever bytes come, they end in messages within the bounds or in the end of
// the connection.
func FuzzFrames(f *testing.F) {
	f.Add(clientFrame(flagFin|opText, "hello"))
	f.Add(append(clientFrame(opText, "a"), clientFrame(flagFin|opContinuation, "b")...))
	f.Add(clientFrame(flagFin|opBinary, string(make([]byte, 300))))
	f.Add(clientFrame(flagFin|opPing, "x"))
	f.Add(clientFrame(flagFin|opClose, "\x03\xe8"))
	f.Add([]byte{flagFin | opText, flagMasked | length64, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, stream []byte) {
		const maxMessage = 200
		g := NewGroup(Options{MaxMessage: maxMessage, CloseTimeout: 20 * time.Millisecond})
		total := 0
		rec := newRecorder(func(c *Conn, kind Kind, payload []byte) <-chan struct{} {
			if len(payload) > maxMessage || kind != Text && kind != Binary {
				t.Errorf("a message of kind %d and %d bytes", kind, len(payload))
			}
			total += len(payload)
			return echo(c, kind, payload)
		})
		theirs := pipe(t, g, rec)
		go func() { _, _ = theirs.Write(stream); _ = theirs.Close() }()
		buf := make([]byte, 1024)
		for {
			if _, err := theirs.Read(buf); err != nil {
				break
			}
		}
		wait(t, "the end", rec.closed)
		if total > len(stream) {
			t.Errorf("%d bytes of messages in %d bytes", total, len(stream))
		}
		if err := g.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		if g.Queued() != 0 {
			t.Errorf("%d bytes are counted as queued", g.Queued())
		}
	})
}
