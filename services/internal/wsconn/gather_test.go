package wsconn

import (
	"testing"
	"testing/synctest"
	"time"
)

// What comes first is written at once; what follows waits until the time of its
// urgency is over, or until anything else is written.
func TestTextGathers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{Soon: 20 * time.Millisecond, Later: 100 * time.Millisecond}, echo)
		join := func(u Urgency, text string) {
			t.Helper()
			if err := rec.conn.Join(u, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		want := func(after time.Duration, text string) {
			t.Helper()
			r.wantFrame(flagFin|opText, text)
			synctest.Wait() // whoever wrote it would take along what comes now
			if at := time.Since(start); at != after {
				t.Errorf("%q came after %s, want %s", text, at, after)
			}
		}
		join(Soon, "1")
		want(0, "1")
		join(Soon, "2")
		join(Soon, "3")
		want(20*time.Millisecond, "23")
		join(Soon, "4")
		want(40*time.Millisecond, "4") // whoever had to wait is in the next round
		time.Sleep(20 * time.Millisecond)
		join(Soon, "5")
		want(60*time.Millisecond, "5") // nothing was written for a while
		time.Sleep(40 * time.Millisecond)

		start = time.Now()
		join(Later, "a")
		want(0, "a")
		join(Later, "b")
		join(Soon, "c")
		want(0, "bc") // what goes out takes along what waits
		join(Later, "d")
		join(Soon, "e")
		want(20*time.Millisecond, "de")
		join(Later, "f")
		want(100*time.Millisecond, "f") // the round of soon does not let it go
		join(Later, "g")
		join(Now, "h")
		want(100*time.Millisecond, "gh")
		join(Later, "i")
		if err := rec.conn.Room(t.Context()); err != nil {
			t.Error(err)
		}
		want(100*time.Millisecond, "i") // whoever waits for room has more
	})
}

// Messages that stay what they are wait in the same way, and keep their order.
func TestMessagesGather(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{Soon: 20 * time.Millisecond, Later: 100 * time.Millisecond}, echo)
		gather := func(u Urgency, text string) {
			t.Helper()
			if err := rec.conn.Gather(u, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		want := func(after time.Duration, texts ...string) {
			t.Helper()
			for _, text := range texts {
				r.wantFrame(flagFin|opText, text)
			}
			synctest.Wait()
			if at := time.Since(start); at != after {
				t.Errorf("%q came after %s, want %s", texts, at, after)
			}
		}
		gather(Soon, "1")
		want(0, "1")
		gather(Soon, "2")
		gather(Soon, "3")
		want(20*time.Millisecond, "2", "3")
		gather(Later, "a")
		want(20*time.Millisecond, "a")
		gather(Later, "b")
		gather(Now, "c")
		want(20*time.Millisecond, "b", "c")
	})
}

func TestWhatGathersIsWrittenBeforeTheClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{Soon: 20 * time.Millisecond, Later: 100 * time.Millisecond}, echo)
		for _, text := range []string{"1", "2"} {
			if err := rec.conn.Join(Later, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if text == "1" {
				r.wantFrame(flagFin|opText, "1")
				synctest.Wait()
			}
		}
		rec.conn.Close(4000, "")
		r.wantFrame(flagFin|opText, "2")
		r.wantFrame(flagFin|opClose, "\x0f\xa0")
	})
}

// What never is written is counted no longer when its connection is gone.
func TestWhatGathersGoesWithItsConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, rec := newPipe(t, Options{Soon: 20 * time.Millisecond, Later: 100 * time.Millisecond}, echo)
		if err := rec.conn.Join(Later, []byte("first")); err != nil {
			t.Fatal(err)
		}
		r.wantFrame(flagFin|opText, "first")
		synctest.Wait()
		for _, end := range []func(){rec.conn.Discard, rec.conn.Abort} {
			if err := rec.conn.Join(Later, []byte("text")); err != nil {
				t.Fatal(err)
			}
			end()
		}
		wait(t, "the end", rec.closed)
		synctest.Wait()
		if n := rec.conn.group.Queued(); n != 0 {
			t.Errorf("%d bytes are counted as queued", n)
		}
	})
}
