package wsapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
)

// slowClient takes a frame each time it is asked to.
type slowClient struct {
	take   chan struct{}
	frames [][]byte
	fail   error
}

func newOutbox(limit int) (*outbox, *slowClient) {
	c := &slowClient{take: make(chan struct{})}
	return &outbox{limit: limit, write: func(frame []byte) error {
		<-c.take
		c.frames = append(c.frames, bytes.Clone(frame))
		return c.fail
	}}, c
}

func TestOutboxBatchesWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, client := newOutbox(1 << 20)
		for i := range 5 {
			if err := o.put(fmt.Appendf(nil, "%d\n", i)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		drained := o.drained()
		client.take <- struct{}{}
		client.take <- struct{}{}
		<-drained
		o.wg.Wait()
		if len(client.frames) != 2 || string(client.frames[1]) != "1\n2\n3\n4\n" {
			t.Errorf("frames %q", client.frames)
		}
	})
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, client := newOutbox(100)
		large := bytes.Repeat([]byte("x"), 300)
		if err := o.put(large); err != nil { // an object above the limit goes out by itself
			t.Fatal(err)
		}
		synctest.Wait()
		if err := errors.Join(o.put(large[:60]), o.put(large[:40])); err != nil {
			t.Fatal(err)
		}
		if err := o.put(large[:1]); !errors.Is(err, errOverflow) {
			t.Errorf("above the limit: %v", err)
		}
		room := make(chan error, 1)
		go func() { room <- o.waitRoom(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-room:
			t.Fatalf("there is room already: %v", err)
		default:
		}
		client.take <- struct{}{}
		if err := <-room; err != nil {
			t.Error(err)
		}
		client.take <- struct{}{}
		o.wg.Wait()
	})
}

func TestOutboxSeals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, client := newOutbox(100)
		for range 3 {
			if err := o.put(bytes.Repeat([]byte("x"), 30)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		room := make(chan error, 1)
		go func() { room <- o.waitRoom(context.Background()) }()
		synctest.Wait()
		o.seal(true)
		if err := <-room; !errors.Is(err, errSealed) {
			t.Errorf("waiting for room: %v", err)
		}
		if err := o.put([]byte("y")); !errors.Is(err, errSealed) {
			t.Errorf("after the seal: %v", err)
		}
		client.take <- struct{}{}
		<-o.drained()
		o.wg.Wait()
		if len(client.frames) != 1 {
			t.Errorf("%d frames, want the one that was being written", len(client.frames))
		}
	})
}

func TestOutboxStopsAtAWriteError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, client := newOutbox(100)
		client.fail = errors.New("broken")
		for range 2 {
			if err := o.put([]byte("x")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		client.take <- struct{}{}
		o.wg.Wait()
		if err := o.put([]byte("y")); !errors.Is(err, errSealed) {
			t.Errorf("after an error: %v", err)
		}
	})
}
