package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Transactor runs units of work, each in one transaction. A unit that is begun
// within another one joins it, so that an adapter can put several steps of a
// domain, which knows no transactions, under one commit.
type Transactor struct {
	Pool *pgxpool.Pool
	// Committed, if set, is called after each commit; never for a unit that
	// joined another one, since its work stands only when the outer one does.
	Committed func()
}

// unit is a transaction under way. It belongs to one goroutine.
type unit struct {
	tx pgx.Tx
	// failed is the first error of a unit that joined.
	failed error
}

// unitKey is of one pool: units of different databases never join.
type unitKey struct{ pool *pgxpool.Pool }

// errUnitFailed refuses a commit that would keep half of the work.
var errUnitFailed = errors.New("a joined unit of work failed, and its error was dropped")

// InTx runs f in a read-committed transaction and commits it if f returns nil.
// Within f, calls with f's context join. Errors come back through Classify.
func (t *Transactor) InTx(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	key := unitKey{t.Pool}
	if u, ok := ctx.Value(key).(*unit); ok {
		err := f(ctx, u.tx)
		if err != nil && u.failed == nil {
			u.failed = err
		}
		return err
	}
	err := InTx(ctx, t.Pool, func(tx pgx.Tx) error {
		u := &unit{tx: tx}
		if err := f(context.WithValue(ctx, key, u), tx); err != nil {
			return err
		}
		if u.failed != nil {
			return fmt.Errorf("%w: %w", errUnitFailed, u.failed)
		}
		return nil
	})
	if err == nil && t.Committed != nil {
		t.Committed()
	}
	return err
}
