package store_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store"
)

// commitCutter stands between a pool and PostgreSQL. It passes a transaction on,
// waits for PostgreSQL's answer, and breaks the connection instead of passing
// that back: the commit has happened, and nobody was told.
type commitCutter struct {
	listener net.Listener
	server   string

	mu   sync.Mutex
	arms bool
	wg   sync.WaitGroup
}

func newCommitCutter(t *testing.T, server string) *commitCutter {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &commitCutter{listener: listener, server: server}
	c.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(client) })
		}
	})
	return c
}

func (c *commitCutter) arm(armed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arms = armed
}

func (c *commitCutter) armed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arms
}

func (c *commitCutter) serve(client net.Conn) {
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.server)
	if err != nil {
		_ = client.Close()
		return
	}
	cut := make(chan struct{})
	done := make(chan struct{})
	go func() { // answers
		defer close(done)
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			select {
			case <-cut:
				_ = client.Close()
				return
			default:
			}
			if err != nil {
				_ = client.Close()
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			break
		}
		// The commit is no statement of its own. What is prepared already is
		// executed, and committed, by what is sent at once.
		if c.armed() && bytes.Contains(buffer[:n], []byte("stmtcache_")) {
			close(cut)
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, client)
	_ = server.Close()
	<-done
}

func TestAnUnknownOutcomeIsTemporaryAndTheNextTryFindsIt(t *testing.T) {
	t.Parallel()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()})
	direct := database.Pool(t, contract.ComponentMessaging)
	f := fixture{store.New(direct, time.Now), direct, database}
	p := f.open(t)

	u, err := url.Parse(database.URL(t, contract.ComponentMessaging))
	if err != nil {
		t.Fatal(err)
	}
	cutter := newCommitCutter(t, u.Host)
	u.Host = cutter.listener.Addr().String()
	pool, err := postgres.Open(t.Context(), postgres.Options{
		URL: u.String(), Application: "test", SearchPath: []string{contract.DatabaseSchema(database.Installation, contract.ComponentMessaging)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		_ = cutter.listener.Close()
		cutter.wg.Wait()
	})
	behind := store.New(pool, time.Now)

	// The first one prepares the statements.
	if _, _, err := behind.Write(t.Context(), []messaging.Draft{p.draft(p.client, "before")}); err != nil {
		t.Fatal(err)
	}
	draft := []messaging.Draft{p.draft(p.client, "is it there?")}
	cutter.arm(true)
	_, _, err = behind.Write(t.Context(), draft)
	if err == nil || fault.From(err).Kind != fault.Unavailable || fault.From(err).RetryAfter == 0 {
		t.Fatalf("a commit without an answer: %v", err)
	}
	cutter.arm(false)
	outcomes, items, err := behind.Write(t.Context(), draft)
	if err != nil {
		t.Fatal(err)
	}
	if !outcomes[0].Sent.Duplicate || outcomes[0].Sent.Seq != 2 || len(items) != 0 {
		t.Errorf("the next try gets %+v and %d items", outcomes[0], len(items))
	}
	if n := len(f.checkStream(t, p.tasker)); n != 3 { // the offer, two messages
		t.Errorf("%d items in the stream", n)
	}
}
