// Package testkit gives tests real parts: a PostgreSQL database of their own, a
// NATS server, signed tokens, and clients that open sockets.
package testkit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/postgres/local"
)

var server struct {
	sync.Mutex
	running *local.Server
	dir     string
}

// Main runs a package's tests and stops what they shared: call it from
// TestMain. The PostgreSQL server starts when the first test asks for it.
func Main(m *testing.M) {
	code := m.Run()
	server.Lock()
	defer server.Unlock()
	if server.running != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.running.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
			code = max(code, 1)
		}
		_ = os.RemoveAll(server.dir)
	}
	os.Exit(code) //nolint:gocritic // exitAfterDefer: the defers only matter to a process that goes on
}

// ServerURL is the superuser's URL of a PostgreSQL server that the package's
// tests share.
func ServerURL(t testing.TB) string {
	t.Helper()
	server.Lock()
	defer server.Unlock()
	if server.running == nil {
		dir, err := os.MkdirTemp("", "marketplane-test-")
		if err != nil {
			t.Fatal(err)
		}
		server.dir = dir
		server.running, err = local.Start(context.WithoutCancel(t.Context()), local.Options{Dir: dir, Ephemeral: true})
		if err != nil {
			t.Fatalf("start PostgreSQL: %v", err)
		}
	}
	return server.running.URL()
}

// EmptyDatabase makes a database for one test, and returns the superuser's URL
// of it.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	return emptyDatabase(t, ServerURL(t))
}

// emptyDatabase makes one on the server of a superuser's URL.
func emptyDatabase(t testing.TB, raw string) string {
	t.Helper()
	name := "test_" + hex.EncodeToString(randomBytes(8))
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Database is a migrated database of one test.
type Database struct {
	// AdminURL is the superuser's.
	AdminURL     string
	Installation string

	passwords map[string]string
}

// NewDatabase migrates a database with the events schema and the given
// services' migrations.
func NewDatabase(t testing.TB, services map[string]fs.FS) *Database {
	t.Helper()
	return NewDatabaseOn(t, ServerURL(t), services)
}

// NewDatabaseOn is NewDatabase on another server than the one that tests share,
// whose superuser's URL it takes.
func NewDatabaseOn(t testing.TB, serverURL string, services map[string]fs.FS) *Database {
	t.Helper()
	db := &Database{AdminURL: emptyDatabase(t, serverURL), Installation: uuid.NewString(), passwords: map[string]string{}}
	plan := migration.Plan{Installation: db.Installation, Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt}
	for service, migrations := range services {
		db.passwords[service] = rand.Text()
		plan.Schemas = append(plan.Schemas, migration.Schema{
			Service: service, Password: db.passwords[service], Migrations: migrations,
		})
	}
	if err := migration.Apply(t.Context(), db.AdminURL, plan, Logger(t)); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return db
}

// URL is a service's own.
func (db *Database) URL(t testing.TB, service string) string {
	t.Helper()
	u, err := url.Parse(db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(contract.DatabaseRole(db.Installation, service), db.passwords[service])
	return u.String()
}

// Pool connects as the service, as the service does.
func (db *Database) Pool(t testing.TB, service string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Options{
		URL: db.URL(t, service), Application: "test",
		SearchPath: []string{contract.DatabaseSchema(db.Installation, service), contract.EventsSchema(db.Installation)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Logger writes to the test's log, and nothing once the test has ended.
func Logger(t testing.TB) *slog.Logger {
	t.Helper()
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(string(bytes.TrimRight(line, "\n")))
	}
	return len(line), nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return b
}
