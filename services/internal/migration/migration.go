// Package migration prepares a database for an installation: one role and one
// schema for each service, the shared events schema, and every migration that
// is not applied yet. It is safe to run again, and at the same time as itself.
package migration

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/marketplane/marketplane/api/contract"
)

// Schema is what one service brings.
type Schema struct {
	// Service is a name from contract.Services.
	Service string
	// Password is what its role logs in with from now on.
	Password string
	// Migrations are goose's .sql files, at the root.
	Migrations fs.FS
}

// Plan is everything that Apply does.
type Plan struct {
	Installation string
	// Events are the migrations of the shared events schema.
	Events fs.FS
	// AdoptEvents makes the log in the events schema go on in this cluster, and
	// returns how many events that moved.
	AdoptEvents func(ctx context.Context, conn *pgx.Conn, schema string) (int64, error)
	Schemas     []Schema
}

// SQLSTATEs (PostgreSQL's manual, appendix A).
const (
	insufficientPrivilege = "42501"
	lockNotAvailable      = "55P03"
)

const (
	// lockWait is how long a statement waits for a lock that another session
	// holds. All that comes after it queues behind it, those of the release that
	// runs among them, so it gives way soon; whoever called tries again.
	lockWait = 5 * time.Second
	// turnWait is how long a run waits for another one, and turnPoll how often it
	// looks.
	turnWait, turnPoll = time.Minute, 250 * time.Millisecond
)

// MinServerVersion is the oldest PostgreSQL that works, as server_version_num.
const MinServerVersion = 150000

// Apply does the plan. url is of a role that may create roles and schemas.
func Apply(ctx context.Context, url string, plan Plan, log *slog.Logger) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("database URL: not a valid postgres:// URL")
	}
	config.RuntimeParams["application_name"] = "marketplane-migrate"
	config.ConnectTimeout = 10 * time.Second
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	if err := checkVersion(ctx, conn); err != nil {
		return err
	}
	if err := takeTurn(ctx, conn, plan.Installation, log); err != nil {
		return err
	}
	events := contract.EventsSchema(plan.Installation)
	if err := ensureSchema(ctx, conn, events); err != nil {
		return err
	}
	if err := up(ctx, config, events, plan.Events, log); err != nil {
		return err
	}
	moved, err := plan.AdoptEvents(ctx, conn, events)
	if err != nil {
		return err
	}
	if moved > 0 {
		log.Info("the event log came from another cluster, and goes on in this one", "events", moved)
	}
	for _, s := range plan.Schemas {
		role := contract.DatabaseRole(plan.Installation, s.Service)
		schema := contract.DatabaseSchema(plan.Installation, s.Service)
		if err := ensureRole(ctx, conn, role, s.Password); err != nil {
			return err
		}
		if err := ensureSchema(ctx, conn, schema); err != nil {
			return err
		}
		if err := up(ctx, config, schema, s.Migrations, log); err != nil {
			return err
		}
		if err := grant(ctx, conn, role, schema, events); err != nil {
			return err
		}
	}
	return nil
}

// takeTurn waits for other runs. The lock is held by the connection. It asks
// again and again, since a statement that waits is what CREATE INDEX
// CONCURRENTLY, in the run that is waited for, would wait for.
func takeTurn(ctx context.Context, conn *pgx.Conn, installation string, log *slog.Logger) error {
	if err := boundLocks(ctx, conn, lockWait); err != nil {
		return err
	}
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	deadline := time.After(turnWait)
	for told := false; ; {
		var taken bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", lockID(installation)).Scan(&taken); err != nil {
			return fmt.Errorf("take the migration lock: %w", err)
		}
		if taken {
			return nil
		}
		if !told {
			log.Info("waiting for another migration of this installation")
			told = true
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("another migration of this installation has run for more than %s", turnWait)
		case <-ctx.Done():
			return fmt.Errorf("take the migration lock: %w", ctx.Err())
		}
	}
}

// boundLocks says how long statements on a connection may wait for locks. It is
// no parameter of the connection's start, which poolers refuse.
func boundLocks(ctx context.Context, conn *pgx.Conn, wait time.Duration) error {
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", wait.Milliseconds())); err != nil {
		return fmt.Errorf("bound the wait for locks: %w", err)
	}
	return nil
}

func isCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}

func checkVersion(ctx context.Context, conn *pgx.Conn) error {
	var number int
	var name string
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('server_version')").Scan(&number, &name); err != nil {
		return fmt.Errorf("ask for the server's version: %w", err)
	}
	if number < MinServerVersion {
		return fmt.Errorf("PostgreSQL %s is too old: %d or newer is needed", name, MinServerVersion/10000)
	}
	return nil
}

func ensureRole(ctx context.Context, conn *pgx.Conn, role, password string) error {
	// Roles can't be made "if not exists"; the migration lock keeps this safe.
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", role, err)
	}
	verb := "CREATE"
	if exists {
		verb = "ALTER"
	}
	verifier, err := scramVerifier(password)
	if err != nil {
		return fmt.Errorf("role %s: %w", role, err)
	}
	// Role statements take no parameters; a verifier needs no quoting.
	statement := fmt.Sprintf("%s ROLE %s LOGIN NOINHERIT PASSWORD '%s'", verb, quote(role), verifier)
	_, err = conn.Exec(ctx, statement)
	if exists && isCode(err, insufficientPrivilege) {
		return fmt.Errorf("ALTER role %s: %w: another administrator made it: use that one, or let it GRANT the role to this one WITH ADMIN OPTION", role, err)
	}
	if err != nil {
		return fmt.Errorf("%s role %s: %w", verb, role, err)
	}
	return nil
}

func ensureSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quote(schema)); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	return nil
}

// grant lets a role use its own schema's tables and functions, not change their
// shape, and write and read the shared events. It comes after the migrations and
// names all tables, so that it holds for those that a dump brought, too.
func grant(ctx context.Context, conn *pgx.Conn, role, schema, events string) error {
	r, s, e := quote(role), quote(schema), quote(events)
	for _, statement := range []string{
		"GRANT USAGE ON SCHEMA " + s + ", " + e + " TO " + r,
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + s + " TO " + r,
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA " + s + " TO " + r,
		"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA " + s + " FROM PUBLIC",
		"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA " + s + " TO " + r,
		// What has been migrated is not the service's business.
		"REVOKE ALL ON " + s + "." + goose.DefaultTablename + " FROM " + r,
		"GRANT SELECT, INSERT ON " + e + ".events TO " + r,
		"GRANT SELECT, INSERT, UPDATE ON " + e + ".consumers TO " + r,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("grant to role %s: %w", role, err)
		}
	}
	return nil
}

func up(ctx context.Context, config *pgx.ConnConfig, schema string, migrations fs.FS, log *slog.Logger) error {
	config = config.Copy()
	config.RuntimeParams["search_path"] = quote(schema)
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		return boundLocks(ctx, conn, lockWait)
	}))
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations)
	if err != nil {
		return fmt.Errorf("read the migrations of %s: %w", schema, err)
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		log.Info("migration applied", "schema", schema, "file", r.Source.Path, "duration_ms", r.Duration.Milliseconds())
	}
	if isCode(err, lockNotAvailable) {
		return fmt.Errorf("migrate %s: %w: a session held a table for %s, which pg_stat_activity tells; the migration gave way, and can be tried again", schema, err, lockWait)
	}
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func lockID(installation string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("marketplane-migrate/" + installation)) // a hash never fails
	return int64(h.Sum64())                                       //nolint:gosec // G115: any 64 bits do
}
