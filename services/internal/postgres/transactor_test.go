package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestTransactorJoins(t *testing.T) {
	t.Parallel()
	errOuter, errInner := errors.New("outer"), errors.New("inner")
	insert := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO rows VALUES (1)")
		return err
	}
	tests := map[string]struct {
		work          func(ctx context.Context, t *postgres.Transactor) error
		wantErr       error
		wantRows      int
		wantCommitted int
	}{
		"alone": {
			work:     func(ctx context.Context, t *postgres.Transactor) error { return t.InTx(ctx, insert) },
			wantRows: 1, wantCommitted: 1,
		},
		"two under one commit": {
			work: func(ctx context.Context, t *postgres.Transactor) error {
				return t.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
					return errors.Join(t.InTx(ctx, insert), t.InTx(ctx, insert))
				})
			},
			wantRows: 2, wantCommitted: 1,
		},
		"the outer one fails": {
			work: func(ctx context.Context, t *postgres.Transactor) error {
				return t.InTx(ctx, func(ctx context.Context, _ pgx.Tx) error {
					return errors.Join(t.InTx(ctx, insert), errOuter)
				})
			},
			wantErr: errOuter,
		},
		"an inner failure is dropped": {
			work: func(ctx context.Context, t *postgres.Transactor) error {
				return t.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
					_ = t.InTx(ctx, func(context.Context, pgx.Tx) error { return errInner })
					return insert(ctx, tx)
				})
			},
			wantErr: errInner,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, err := postgres.Open(t.Context(), postgres.Options{URL: testkit.EmptyDatabase(t), Application: "test"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			if _, err := pool.Exec(t.Context(), "CREATE TABLE rows (n int)"); err != nil {
				t.Fatal(err)
			}
			committed := 0
			transactor := &postgres.Transactor{Pool: pool, Committed: func() { committed++ }}
			if err := test.work(t.Context(), transactor); !errors.Is(err, test.wantErr) {
				t.Fatalf("error = %v, want %v", err, test.wantErr)
			}
			var rows int
			if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM rows").Scan(&rows); err != nil {
				t.Fatal(err)
			}
			if rows != test.wantRows || committed != test.wantCommitted {
				t.Errorf("%d rows and %d commits told, want %d and %d", rows, committed, test.wantRows, test.wantCommitted)
			}
		})
	}
}
