package migration_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/postgres/local"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// Roles are the server's, not a database's: each test has installations of its
// own, since nothing keeps two databases' migrations from making one at a time.

func TestMain(m *testing.M) { testkit.Main(m) }

var things = fstest.MapFS{"00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (id int PRIMARY KEY);\n")}}

func TestRolesReachOnlyWhatIsTheirs(t *testing.T) {
	t.Parallel()
	db := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentAuth: things, contract.ComponentTasks: things})
	auth := db.Pool(t, contract.ComponentAuth)
	foreign := contract.DatabaseSchema(db.Installation, contract.ComponentTasks)

	tests := map[string]struct {
		statement string
		wantCode  string // SQLSTATE; empty for success
	}{
		"writes its own table":          {`INSERT INTO things VALUES (1)`, ""},
		"reads its own table":           {`SELECT id FROM things`, ""},
		"does not change its shape":     {`ALTER TABLE things ADD COLUMN more int`, "42501"},
		"does not drop it":              {`DROP TABLE things`, "42501"},
		"does not make tables":          {`CREATE TABLE more (id int)`, "42501"},
		"reads the events":              {`SELECT id FROM events`, ""},
		"does not rewrite events":       {`UPDATE events SET type = 'x'`, "42501"},
		"does not delete events":        {`DELETE FROM events`, "42501"},
		"does not see another's schema": {`SELECT id FROM "` + foreign + `".things`, "42501"},
		"does not act as another role":  {`SET ROLE "` + contract.DatabaseRole(db.Installation, contract.ComponentTasks) + `"`, "42501"},
		"does not make public tables":   {`CREATE TABLE public.more (id int)`, "42501"},
		"does not make schemas":         {`CREATE SCHEMA more`, "42501"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := auth.Exec(t.Context(), tt.statement)
			var pg *pgconn.PgError
			code := ""
			if errors.As(err, &pg) {
				code = pg.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tt.wantCode {
				t.Errorf("SQLSTATE = %q (%v), want %q", code, err, tt.wantCode)
			}
		})
	}
}

// A consumer's place belongs to the role that reads under it.
func TestConsumersDoNotMoveEachOther(t *testing.T) {
	t.Parallel()
	db := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentAuth: things, contract.ComponentTasks: things})
	if _, err := db.Pool(t, contract.ComponentTasks).Exec(t.Context(), `INSERT INTO consumers (name) VALUES ('tasks.x')`); err != nil {
		t.Fatal(err)
	}
	tag, err := db.Pool(t, contract.ComponentAuth).Exec(t.Context(), `UPDATE consumers SET position = 99`)
	if err != nil {
		t.Fatal(err)
	}
	if tag.RowsAffected() != 0 {
		t.Error("another role's consumer was moved")
	}
}

// Two installations share a server, and never meet; starting again with new
// passwords, at the same time, is harmless.
func TestApplyAgainAndBeside(t *testing.T) {
	t.Parallel()
	url := testkit.EmptyDatabase(t)
	plan := func(installation, password string) migration.Plan {
		return migration.Plan{
			Installation: installation, Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
			Schemas: []migration.Schema{{Service: contract.ComponentAuth, Password: password, Migrations: things}},
		}
	}
	var wg sync.WaitGroup
	for _, p := range []migration.Plan{plan("0a", "one"), plan("0a", "one"), plan("0b", "two"), plan("0b", "two")} {
		wg.Go(func() {
			if err := migration.Apply(t.Context(), url, p, testkit.Logger(t)); err != nil {
				t.Errorf("apply %s: %v", p.Installation, err)
			}
		})
	}
	wg.Wait()
	if err := migration.Apply(t.Context(), url, plan("0a", "changed"), testkit.Logger(t)); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var schemas int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname ~ '^mp_0[ab]_(auth|events)$'`).Scan(&schemas); err != nil {
		t.Fatal(err)
	}
	if schemas != 4 {
		t.Errorf("%d schemas, want 4", schemas)
	}
}

// To go back to an earlier release is to run its migrations on the schema of the
// later one, which stays: they change nothing, and the earlier release's
// services work on with it.
func TestEarlierReleaseLeavesTheSchemaAlone(t *testing.T) {
	t.Parallel()
	url := testkit.EmptyDatabase(t)
	later := fstest.MapFS{
		"00001_things.sql": things["00001_things.sql"],
		"00002_colour.sql": {Data: []byte("-- +goose Up\nALTER TABLE things ADD COLUMN colour text NOT NULL DEFAULT 'grey';\n-- +goose Down\nALTER TABLE things DROP COLUMN colour;\n")},
		"00003_more.sql":   {Data: []byte("-- +goose Up\nCREATE TABLE more (id int PRIMARY KEY);\n-- +goose Down\nDROP TABLE more;\n")},
	}
	apply := func(migrations fs.FS) {
		t.Helper()
		err := migration.Apply(t.Context(), url, migration.Plan{
			Installation: "0c", Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
			Schemas: []migration.Schema{{Service: contract.ComponentAuth, Password: "one", Migrations: migrations}},
		}, testkit.Logger(t))
		if err != nil {
			t.Fatal(err)
		}
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	schema := contract.DatabaseSchema("0c", contract.ComponentAuth)
	exec := func(statement string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}

	apply(things)
	apply(later)
	exec(`INSERT INTO "` + schema + `".things (id, colour) VALUES (1, 'blue')`)
	for range 2 {
		apply(things)
		exec(`INSERT INTO "` + schema + `".more (id) SELECT count(*) FROM "` + schema + `".more`)
	}
	exec(`INSERT INTO "` + schema + `".things (id) VALUES (2)`) // as the earlier release writes
	apply(later)
	var colours string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(colour, ' ' ORDER BY id) FROM "`+schema+`".things`).Scan(&colours); err != nil {
		t.Fatal(err)
	}
	if colours != "blue grey" {
		t.Errorf("colours = %q", colours)
	}
}

// While one run is at a migration, another of the same installation waits, and
// holds up not even what waits for all statements that began before.
func TestRunsOfOneInstallationWaitForEachOther(t *testing.T) {
	t.Parallel()
	url := testkit.EmptyDatabase(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	holder, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }() // before it is waited for, if the test fails
	if _, err := holder.Exec(t.Context(), "SELECT pg_advisory_xact_lock(42)"); err != nil {
		t.Fatal(err)
	}
	slow := fstest.MapFS{
		"00001_slow.sql":  {Data: []byte("-- +goose Up\nSET LOCAL lock_timeout = 0;\nSELECT pg_advisory_xact_lock(42);\nCREATE TABLE things (id int PRIMARY KEY);\n")},
		"00002_index.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY things_by_id ON things USING brin (id);\n")},
	}
	waits := make(chan struct{}, 2)
	log := slog.New(slog.NewTextHandler(writerFunc(func(line []byte) {
		if bytes.Contains(line, []byte("waiting for another migration")) {
			waits <- struct{}{}
		}
	}), nil))
	results := make(chan error, 2)
	for range cap(results) {
		go func() {
			results <- migration.Apply(t.Context(), url, migration.Plan{
				Installation: "0d", Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
				Schemas: []migration.Schema{{Service: contract.ComponentAuth, Password: "one", Migrations: slow}},
			}, log)
		}()
	}
	select {
	case <-waits:
	case err := <-results:
		t.Fatalf("a run ended before its turn: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("no run waits for the other")
	}
	if err := holder.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

type writerFunc func(line []byte)

func (f writerFunc) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}

// A migration that cannot have a table gives way to those that use it, or they
// would queue behind it, and succeeds once it can.
func TestMigrationGivesWay(t *testing.T) {
	t.Parallel()
	url := testkit.EmptyDatabase(t)
	apply := func(migrations fs.FS) error {
		return migration.Apply(t.Context(), url, migration.Plan{
			Installation: "0e", Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
			Schemas: []migration.Schema{{Service: contract.ComponentAuth, Password: "one", Migrations: migrations}},
		}, testkit.Logger(t))
	}
	if err := apply(things); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	long, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback(context.WithoutCancel(t.Context())) }() // before it is waited for, if the test fails
	table := `"` + contract.DatabaseSchema("0e", contract.ComponentAuth) + `".things`
	if _, err := long.Exec(t.Context(), "SELECT id FROM "+table); err != nil {
		t.Fatal(err)
	}
	later := fstest.MapFS{
		"00001_things.sql": things["00001_things.sql"],
		"00002_colour.sql": {Data: []byte("-- +goose Up\nALTER TABLE things ADD COLUMN colour text;\n")},
	}
	if err := apply(later); err == nil || !strings.Contains(err.Error(), "the migration gave way") {
		t.Errorf("error = %v", err)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO "+table+" (id) VALUES (1)"); err != nil {
		t.Errorf("the release that runs: %v", err)
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := apply(later); err != nil {
		t.Errorf("after the transaction has ended: %v", err)
	}
}

// The documented statements leave nothing of an installation, and all of another.
func TestInstallationIsRemovedAsDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "backup.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, statements, found := strings.Cut(string(document), "```sql\n")
	statements, _, closed := strings.Cut(statements, "```")
	if !found || !closed {
		t.Fatal("docs/backup.md has no SQL any more")
	}
	url := testkit.EmptyDatabase(t)
	for _, installation := range []string{"re-moved", "kept"} {
		plan := migration.Plan{Installation: installation, Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt}
		for _, service := range contract.Services() {
			plan.Schemas = append(plan.Schemas, migration.Schema{Service: service, Password: "one", Migrations: things})
		}
		if err := migration.Apply(t.Context(), url, plan, testkit.Logger(t)); err != nil {
			t.Fatal(err)
		}
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), strings.ReplaceAll(statements, "INSTALLATION", "removed")); err != nil {
		t.Fatal(err)
	}
	var left string
	if err := pool.QueryRow(t.Context(), `
		SELECT string_agg(name, ' ' ORDER BY name) FROM (
			SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname ~ '^mp_(removed|kept)_'
			UNION SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^mp_(removed|kept)_'
		) AS all_of_both (name)`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	const want = "role mp_kept_auth role mp_kept_messaging role mp_kept_tasks schema mp_kept_auth schema mp_kept_events schema mp_kept_messaging schema mp_kept_tasks"
	if left != want {
		t.Errorf("left are %s, want %s", left, want)
	}
}

// A server that logs every statement with its parameters learns no password.
func TestNoPasswordReachesTheServersLog(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "marketplane-test-") //nolint:usetesting // PostgreSQL's own user must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := local.Start(t.Context(), local.Options{Dir: dir, Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	pool, err := pgxpool.New(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for _, statement := range []string{"ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, password := range []string{"hunter2-first", "hunter2-second"} {
		err := migration.Apply(t.Context(), server.URL(), migration.Plan{
			Installation: "0a", Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt,
			Schemas: []migration.Schema{{Service: contract.ComponentAuth, Password: password, Migrations: things}},
		}, testkit.Logger(t))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(contract.DatabaseRole("0a", contract.ComponentAuth), password)
		conn, err := pgx.Connect(t.Context(), u.String())
		if err != nil {
			t.Fatalf("sign in with the password: %v", err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CREATE ROLE", "ALTER ROLE"} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("the server logs no %s: this test sees nothing", want)
		}
	}
	if bytes.Contains(log, []byte("hunter2")) {
		t.Error("the server's log tells a password")
	}
}
