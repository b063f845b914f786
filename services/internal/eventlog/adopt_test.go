package eventlog_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/postgres/local"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// A dump of a database whose transaction ids are far ahead is restored into a
// fresh cluster: the consumer goes on where it was, misses nothing, repeats
// nothing, and sees what happens from then on.
func TestTheLogGoesOnAfterALogicalRestore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	nothing := fstest.MapFS{"00001_nothing.sql": {Data: []byte("-- +goose Up\nSELECT 1;\n")}}
	old := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentTasks: nothing})
	oldPool := old.Pool(t, contract.ComponentTasks)
	for range 3000 { // every statement has a transaction id of its own
		if _, err := oldPool.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			t.Fatal(err)
		}
	}
	// Later positions commit first: the order is not that of positions.
	early, late := begin(t, oldPool), begin(t, oldPool)
	var before, rest []uuid.UUID
	add := func(tx pgx.Tx, to *[]uuid.UUID) {
		id := uuid.New()
		appendEvent(t, tx, id)
		*to = append(*to, id)
	}
	add(early, &before)
	add(late, &rest)
	add(early, &before)
	commit(t, early)
	read := consumeUntil(t, oldPool, len(before))
	if diff := cmp.Diff(before, read); diff != "" {
		t.Fatalf("before the dump (-want +got):\n%s", diff)
	}
	add(late, &rest)
	commit(t, late)

	fresh := startServer(t)
	copyDatabase(t, old.AdminURL, fresh)
	plan := migration.Plan{
		Installation: old.Installation, Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
		Schemas: []migration.Schema{{Service: contract.ComponentTasks, Password: "restored", Migrations: nothing}},
	}
	for range 2 { // the second finds nothing to do
		if err := migration.Apply(ctx, fresh, plan, testkit.Logger(t)); err != nil {
			t.Fatal(err)
		}
	}
	u, err := url.Parse(fresh)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(contract.DatabaseRole(old.Installation, contract.ComponentTasks), "restored")
	pool, err := postgres.Open(ctx, postgres.Options{URL: u.String(), Application: "test", SearchPath: []string{
		contract.DatabaseSchema(old.Installation, contract.ComponentTasks), contract.EventsSchema(old.Installation),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	now := begin(t, pool)
	add(now, &rest)
	commit(t, now)
	if diff := cmp.Diff(rest, consumeUntil(t, pool, len(rest))); diff != "" {
		t.Errorf("after the restore (-want +got):\n%s", diff)
	}
}

func commit(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// consumeUntil runs a consumer until it has handled n events, and returns them.
func consumeUntil(t *testing.T, pool *pgxpool.Pool, n int) []uuid.UUID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var handled []uuid.UUID
	consumer := &eventlog.Consumer{
		Name: "tasks.test", Types: []string{events.TypeSessionEnded}, Pool: pool, Log: testkit.Logger(t),
		Handle: func(_ context.Context, _ pgx.Tx, records []events.Record) error {
			for _, r := range records {
				handled = append(handled, r.Subject)
			}
			return nil
		},
		After: func() {
			if len(handled) >= n {
				cancel()
			}
		},
	}
	if err := consumer.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return handled
}

// startServer starts a PostgreSQL cluster beside that of the other tests, and
// returns the URL of an empty database in it.
func startServer(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "marketplane-restore-") //nolint:usetesting // t.TempDir is closed to PostgreSQL's user
	if err != nil {
		t.Fatal(err)
	}
	server, err := local.Start(context.WithoutCancel(t.Context()), local.Options{Dir: dir, Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return server.URL()
}

// copyDatabase carries a database over as docs/backup.md says.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump")
	if err != nil || len(found) == 0 {
		t.Fatalf("no pg_dump on this machine: %v", err)
	}
	bin := filepath.Dir(found[len(found)-1])
	var dump, words bytes.Buffer
	dumping := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_dump"), "--format=custom", "--no-owner", "--no-privileges", "--dbname="+from)
	dumping.Stdout, dumping.Stderr = &dump, &words
	if err := dumping.Run(); err != nil {
		t.Fatalf("pg_dump: %v: %s", err, words.String())
	}
	restore := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", "--dbname="+to)
	restore.Stdin, restore.Stderr = &dump, &words
	if err := restore.Run(); err != nil {
		t.Fatalf("pg_restore: %v: %s", err, words.String())
	}
}
