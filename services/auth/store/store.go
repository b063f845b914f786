// Package store keeps the auth service's accounts and sessions in PostgreSQL.
// It has no rules of its own beyond the tables' constraints.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/auth"
	"github.com/marketplane/marketplane/services/auth/store/internal/db"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/postgres"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the auth schema's.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Store implements auth.Store.
type Store struct {
	pool    *pgxpool.Pool
	queries *db.Queries
}

var _ auth.Store = (*Store)(nil)

// New uses a pool whose search path has the auth and the events schema.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool, queries: db.New(pool)} }

// CreateAccount implements auth.Store.
func (s *Store) CreateAccount(ctx context.Context, user auth.User, passwordHash string, session auth.Session, event events.Event) error {
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		q := s.queries.WithTx(tx)
		err := q.InsertUser(ctx, db.InsertUserParams{
			ID: user.ID, Email: user.Email, DisplayName: user.DisplayName,
			PasswordHash: passwordHash, CreatedAt: user.CreatedAt,
		})
		if err != nil {
			return fmt.Errorf("insert user: %w", err)
		}
		if err := insertSession(ctx, q, session); err != nil {
			return err
		}
		return eventlog.Append(ctx, tx, event)
	})
	if postgres.IsUniqueViolation(err, "users_email") {
		return auth.ErrEmailTaken
	}
	return err
}

// Credentials implements auth.Store.
func (s *Store) Credentials(ctx context.Context, email string) (auth.Credentials, error) {
	row, err := s.queries.SelectCredentials(ctx, email)
	if err != nil {
		return auth.Credentials{}, classify(err)
	}
	return auth.Credentials{UserID: row.ID, PasswordHash: row.PasswordHash}, nil
}

// User implements auth.Store.
func (s *Store) User(ctx context.Context, id uuid.UUID) (auth.User, error) {
	row, err := s.queries.SelectUser(ctx, id)
	if err != nil {
		return auth.User{}, classify(err)
	}
	return auth.User{ID: row.ID, Email: row.Email, DisplayName: row.DisplayName, CreatedAt: row.CreatedAt.UTC()}, nil
}

// CreateSession implements auth.Store.
func (s *Store) CreateSession(ctx context.Context, session auth.Session) error {
	return classify(insertSession(ctx, s.queries, session))
}

func insertSession(ctx context.Context, q *db.Queries, session auth.Session) error {
	err := q.InsertSession(ctx, db.InsertSessionParams{
		ID: session.ID, UserID: session.UserID, Counter: session.Counter, Secret: session.Secret[:],
		CreatedAt: session.CreatedAt, RotatedAt: session.RotatedAt, ExpiresAt: session.ExpiresAt,
	})
	if err != nil {
		return fmt.Errorf("insert session: %w", err)
	}
	return nil
}

// ChangeSession implements auth.Store.
func (s *Store) ChangeSession(ctx context.Context, id uuid.UUID, decide func(*auth.Session) []events.Event) error {
	return classify(postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		row, err := s.queries.WithTx(tx).LockSession(ctx, id)
		if err != nil {
			return fmt.Errorf("lock session: %w", err)
		}
		return s.change(ctx, tx, row, decide)
	}))
}

// ChangeExpired implements auth.Store.
func (s *Store) ChangeExpired(ctx context.Context, now time.Time, limit int, decide func(*auth.Session) []events.Event) (int, error) {
	n := 0
	err := postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := s.queries.WithTx(tx).LockExpiredSessions(ctx, db.LockExpiredSessionsParams{Now: now, Batch: int32(limit)}) //nolint:gosec // G115: a constant of the domain
		if err != nil {
			return fmt.Errorf("lock expired sessions: %w", err)
		}
		n = len(rows)
		for _, row := range rows {
			if err := s.change(ctx, tx, row, decide); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// DeleteEnded implements auth.Store.
func (s *Store) DeleteEnded(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := s.queries.DeleteEndedSessions(ctx, db.DeleteEndedSessionsParams{Before: before, Batch: int32(limit)}) //nolint:gosec // G115: a constant of the domain
	if err != nil {
		return 0, classify(err)
	}
	return int(n), nil
}

// change applies decide to a session that tx has locked.
func (s *Store) change(ctx context.Context, tx pgx.Tx, row db.Session, decide func(*auth.Session) []events.Event) error {
	session := sessionOf(row)
	before := session
	told := decide(&session)
	if session != before {
		err := s.queries.WithTx(tx).UpdateSession(ctx, db.UpdateSessionParams{
			ID: session.ID, Counter: session.Counter, RotatedAt: session.RotatedAt,
			RepeatedAt:  nullable(session.RepeatedAt),
			LateRepeats: int32(session.LateRepeats), //nolint:gosec // G115: bounded by the domain
			ExpiresAt:   session.ExpiresAt,
			EndedAt:     nullable(session.EndedAt), EndReason: nullable(session.EndReason),
		})
		if err != nil {
			return fmt.Errorf("update session: %w", err)
		}
	}
	for _, event := range told {
		if err := eventlog.Append(ctx, tx, event); err != nil {
			return err
		}
	}
	return nil
}

func sessionOf(row db.Session) auth.Session {
	session := auth.Session{
		ID: row.ID, UserID: row.UserID, Counter: row.Counter,
		CreatedAt: row.CreatedAt.UTC(), RotatedAt: row.RotatedAt.UTC(),
		LateRepeats: int(row.LateRepeats), ExpiresAt: row.ExpiresAt.UTC(),
	}
	copy(session.Secret[:], row.Secret)
	if row.RepeatedAt != nil {
		session.RepeatedAt = row.RepeatedAt.UTC()
	}
	if row.EndedAt != nil {
		session.EndedAt = row.EndedAt.UTC()
	}
	if row.EndReason != nil {
		session.EndReason = *row.EndReason
	}
	return session
}

// nullable writes zero values as NULL.
func nullable[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// classify names what the domain asks about.
func classify(err error) error {
	var pg *pgconn.PgError
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &pg) && pg.ConstraintName == "sessions_user_id_fkey" {
		return auth.ErrNotFound
	}
	return postgres.Classify(err)
}
