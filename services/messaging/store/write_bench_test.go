package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/postgres/local"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store"
)

// durable is a PostgreSQL that keeps what it acknowledges, unlike the tests'
// own, so that a benchmark pays for it.
type durable struct {
	*local.Server
	postmaster int
}

func startDurable(b *testing.B) durable {
	b.Helper()
	dir, err := os.MkdirTemp("", "marketplane-bench-") //nolint:usetesting // PostgreSQL's own user can't enter b.TempDir
	if err != nil {
		b.Fatal(err)
	}
	server, err := local.Start(b.Context(), local.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			b.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	lock, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		b.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(lock), "\n", 2)[0])
	if err != nil {
		b.Fatal(err)
	}
	return durable{server, pid}
}

// cpu is the processor time of the server's processes, those that ended among
// them. /proc counts it in ticks of 10 ms (proc(5), CONFIG_HZ's USER_HZ).
func (d durable) cpu(b *testing.B) time.Duration {
	b.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	ticks := 0
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, rest, _ := strings.Cut(string(content), " ")
		_, rest, _ = strings.Cut(rest, ") ")
		fields := strings.Fields(rest) // from the third on: state, ppid, …
		own := pid == strconv.Itoa(d.postmaster)
		if !own && fields[1] != strconv.Itoa(d.postmaster) {
			continue
		}
		wanted := fields[11:13] // utime, stime
		if own {
			wanted = fields[11:15] // and those of children that ended
		}
		for _, text := range wanted {
			n, err := strconv.Atoi(text)
			if err != nil {
				b.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// seed makes conversations of the given size, and returns them with their
// members.
func seed(b *testing.B, database *testkit.Database, conversations, members int) (ids []uuid.UUID, users [][]uuid.UUID) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), database.AdminURL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	schema := contract.DatabaseSchema(database.Installation, contract.ComponentMessaging)
	var rows, memberRows [][]any
	for range conversations {
		id := uuid.Must(uuid.NewV7())
		var all []uuid.UUID
		for range members {
			user := uuid.New()
			all = append(all, user)
			memberRows = append(memberRows, []any{id, user, "client"})
		}
		ids, users = append(ids, id), append(users, all)
		rows = append(rows, []any{id, uuid.New(), all[0], "Shelves"})
	}
	if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{schema, "conversations"}, []string{"id", "task_id", "tasker_id", "title"}, pgx.CopyFromRows(rows)); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{schema, "members"}, []string{"conversation_id", "user_id", "role"}, pgx.CopyFromRows(memberRows)); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), "VACUUM ANALYZE"); err != nil {
		b.Fatal(err)
	}
	return ids, users
}

const benchBody = `{"text":"Shall I bring the long ladder for the upper shelves, too?"}`

// BenchmarkWrite writes messages as two batches in flight do, on a PostgreSQL
// that makes every commit durable. An operation is one message; pg-µs/op is
// the processor time that all of PostgreSQL's processes take for it.
func BenchmarkWrite(b *testing.B) {
	server := startDurable(b)
	for _, bb := range []struct{ conversations, members, batch int }{
		{2000, 2, 1}, {2000, 2, 10}, {2000, 2, 40}, {2000, 2, 150}, {10, 200, 5},
	} {
		b.Run(fmt.Sprintf("members=%d/batch=%d", bb.members, bb.batch), func(b *testing.B) {
			database := testkit.NewDatabaseOn(b, server.URL(), map[string]fs.FS{contract.ComponentMessaging: store.Migrations()})
			s := store.New(database.Pool(b, contract.ComponentMessaging), time.Now)
			ids, users := seed(b, database, bb.conversations, bb.members)
			var next atomic.Int64
			write := func(n int) error {
				drafts := make([]messaging.Draft, 0, n)
				for range n {
					i := int(next.Add(1)) * 7919 % len(ids) // spread, and never twice in a batch
					drafts = append(drafts, messaging.Draft{
						ConversationID: ids[i], SenderID: users[i][0], ClientID: uuid.New(),
						Body: []byte(benchBody),
					})
				}
				outcomes, _, err := s.Write(context.Background(), drafts)
				for _, o := range outcomes {
					if err == nil {
						err = o.Err
					}
				}
				return err
			}
			const warm = 100
			for range 1 + 2*bb.conversations/warm { // everyone has a stream, every page is in memory
				if err := write(min(warm, bb.conversations)); err != nil {
					b.Fatal(err)
				}
			}
			before := server.cpu(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					for left.Add(int64(-bb.batch)) > int64(-bb.batch) {
						if err := write(bb.batch); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((server.cpu(b)-before).Microseconds())/float64(b.N), "pg-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkOneRowAMessage is what a simple server does for a message: it
// inserts one row, in a transaction of its own. It is what BenchmarkWrite's
// figures are to be compared with, on the machine and at the time at which they
// are measured.
func BenchmarkOneRowAMessage(b *testing.B) {
	server := startDurable(b)
	pool, err := pgxpool.New(b.Context(), server.URL()+"&pool_max_conns=20")
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(b.Context(), `CREATE TABLE messages (
		id bigserial PRIMARY KEY, conversation_id uuid NOT NULL, sender_id uuid NOT NULL, body jsonb NOT NULL, sent_at timestamptz NOT NULL DEFAULT now())`); err != nil {
		b.Fatal(err)
	}
	conversation, sender := uuid.New(), uuid.New()
	insert := func() error {
		var id int64
		return pool.QueryRow(context.Background(), `INSERT INTO messages (conversation_id, sender_id, body) VALUES ($1, $2, $3) RETURNING id`,
			conversation, sender, benchBody).Scan(&id)
	}
	before := server.cpu(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := insert(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((server.cpu(b)-before).Microseconds())/float64(b.N), "pg-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
