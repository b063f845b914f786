// Package postgres opens connection pools the way the services want them, and
// tells which database errors mean "try again" or "exists already".
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// Options are what a pool needs.
type Options struct {
	// URL is a postgres:// URL of the service's own role.
	URL string
	// SearchPath is the schemas that names without one are looked up in.
	SearchPath []string
	// MaxConns bounds the pool; 0 means 10.
	MaxConns int32
	// Application names the process in pg_stat_activity.
	Application string
}

// StatementTimeout bounds every statement of a service, in PostgreSQL itself,
// so that it holds when the client is gone too.
const StatementTimeout = 10 * time.Second

// Open makes a pool. It connects lazily: a database that is down delays the
// first query, not the start. An unreadable URL is an error that does not
// quote it.
func Open(ctx context.Context, options Options) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(options.URL)
	if err != nil {
		return nil, errors.New("database URL: not a valid postgres:// URL")
	}
	config.MaxConns = 10
	if options.MaxConns > 0 {
		config.MaxConns = options.MaxConns
	}
	config.MaxConnIdleTime = 5 * time.Minute
	config.MaxConnLifetime = time.Hour
	config.MaxConnLifetimeJitter = 10 * time.Minute
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = options.Application
	params["statement_timeout"] = milliseconds(StatementTimeout)
	params["idle_in_transaction_session_timeout"] = milliseconds(StatementTimeout)
	params["timezone"] = "UTC"
	// What services read, they read by an index. A plan that was made while a table
	// was empty would read all of it, for as long as its connection lives.
	params["enable_seqscan"] = "off"
	// Where there is no index, the plan counts as so dear that it would be compiled.
	params["jit"] = "off"
	if len(options.SearchPath) > 0 {
		path := ""
		for i, schema := range options.SearchPath {
			if i > 0 {
				path += ","
			}
			path += pgx.Identifier{schema}.Sanitize()
		}
		params["search_path"] = path
	}
	// Otherwise pgx writes ids out as text, and parses them again.
	config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return pool, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// InTx runs f in one read-committed transaction and commits it if f returns
// nil. Errors come back through Classify.
func InTx(ctx context.Context, pool *pgxpool.Pool, f func(tx pgx.Tx) error) error {
	return Classify(pgx.BeginFunc(ctx, pool, f))
}

// Classify turns an error that a later try may cure (the database is away,
// full, restarting, or broke a deadlock) into a fault of kind Unavailable, and
// leaves every other as it is.
func Classify(err error) error {
	if err == nil || isFault(err) || !isTemporary(err) {
		return err
	}
	return fault.New(fault.Unavailable, "database_unavailable",
		"The service can't reach its data right now. Try again in a moment.").After(time.Second).Because(err)
}

func isFault(err error) bool {
	var f *fault.Error
	return errors.As(err, &f)
}

// isTemporary follows PostgreSQL's error classes (appendix A of its manual).
func isTemporary(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code[:2] {
		case "08", // connection exception
			"53", // insufficient resources
			"28", // authorization: a password that is being changed is no fault of the user's
			"57", // operator intervention, statement timeout among it
			"40": // transaction rollback
			return true
		}
		return pg.Code == "55P03" || // lock not available
			pg.Code == "25006" // read-only: the server is a standby, since a failover
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) // the connection broke half-way
}

// IsUniqueViolation says whether err is a duplicate of the named constraint or
// index.
func IsUniqueViolation(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.ConstraintName == constraint
}
