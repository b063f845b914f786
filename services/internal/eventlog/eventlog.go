// Package eventlog carries events between services through PostgreSQL:
// appended in the transaction of the change, read in commit order, each
// consumer keeping its place in the transaction of its effect, so that every
// event is once in effect. The bus only wakes readers early; without it they
// poll.
package eventlog

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/events"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the events schema's.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// PollInterval is how late an event may be noticed without the bus.
const PollInterval = time.Second

const (
	batchSize = 100
	// settleDelay is how soon to look again when a newer event stands behind a
	// transaction that has not ended. It doubles up to PollInterval: such a
	// transaction may be anybody's on the server, and last.
	settleDelay = 10 * time.Millisecond
	// failureDelay is how long a consumer waits after an error.
	failureDelay = time.Second
	// stepTimeout bounds one look, its effect included.
	stepTimeout = 30 * time.Second
)

// Append writes an event in tx. The caller wakes readers after the commit.
func Append(ctx context.Context, tx pgx.Tx, event events.Event) error {
	data, err := json.Marshal(event.Data)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", event.Type(), err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an event id: %w", err)
	}
	_, err = tx.Exec(ctx, "INSERT INTO events (id, type, subject, data) VALUES ($1, $2, $3, $4)",
		id, event.Type(), event.Subject, data)
	if err != nil {
		return fmt.Errorf("append event %s: %w", event.Type(), err)
	}
	return nil
}

// place is a position in commit order.
type place struct {
	xid      string // xid8 travels as text
	position int64
}

// batch is what one read found.
type batch struct {
	records []events.Record
	// last is where the next read begins.
	last place
	// heldBack says that newer events stand behind transactions that have not
	// ended.
	heldBack bool
}

// read returns what follows from, in commit order. Each type walks its own part
// of the index from there: however many events of other types follow, they
// cost nothing. (ORDER BY must name the table's xid: the selected one is text,
// which sorts otherwise.)
func read(ctx context.Context, q querier, from place, types []string) (batch, error) {
	rows, err := q.Query(ctx, `
		SELECT e.xid::text, e.position, e.id, e.type, e.subject, e.occurred_at, e.data,
		       e.xid < pg_snapshot_xmin(pg_current_snapshot()) AS settled
		FROM unnest($3::text[]) AS wanted (type)
		CROSS JOIN LATERAL (
			SELECT xid, position, id, type, subject, occurred_at, data FROM events
			WHERE type = wanted.type AND (xid, position) > ($1::text::xid8, $2::bigint)
			ORDER BY xid, position
			LIMIT $4
		) AS e
		ORDER BY e.xid, e.position
		LIMIT $4`, from.xid, from.position, types, batchSize)
	if err != nil {
		return batch{}, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	found := batch{last: from}
	for rows.Next() {
		var (
			r       events.Record
			at      place
			settled bool
		)
		if err := rows.Scan(&at.xid, &at.position, &r.ID, &r.Type, &r.Subject, &r.OccurredAt, &r.Data, &settled); err != nil {
			return batch{}, fmt.Errorf("read events: %w", err)
		}
		if !settled {
			found.heldBack = true
			break
		}
		found.last = at
		found.records = append(found.records, r)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return batch{}, fmt.Errorf("read events: %w", err)
	}
	return found, nil
}

// begin returns the place before everything that happened since a time. Commit
// order and clock order differ by as long as a transaction lasts; the margin is
// far above the statement timeout.
func begin(ctx context.Context, q querier, since time.Time) (place, error) {
	const margin = time.Minute
	at := place{xid: "0"}
	rows, err := q.Query(ctx, `
		SELECT xid::text, position FROM events WHERE occurred_at < $1
		ORDER BY events.xid DESC, events.position DESC LIMIT 1`, since.Add(-margin))
	if err != nil {
		return at, fmt.Errorf("find where to begin: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&at.xid, &at.position); err != nil {
			return at, fmt.Errorf("find where to begin: %w", err)
		}
	}
	return at, rows.Err()
}

// state is what a look left behind.
type state int

const (
	// caughtUp: nothing more was there.
	caughtUp state = iota
	// more: the batch was full.
	more
	// heldBack: newer events stand behind transactions that have not ended.
	heldBack
)

func (b batch) state() state {
	switch {
	case len(b.records) == batchSize:
		return more
	case b.heldBack:
		return heldBack
	}
	return caughtUp
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Consumer handles each event of some types once in effect, whichever process
// does it: while one works, the others wait.
type Consumer struct {
	// Name is unique in the installation, as in "messaging.conversations".
	Name  string
	Types []string
	Pool  *pgxpool.Pool
	// Handle gives the events their effect, in tx. It must not have effects
	// elsewhere; those belong in After.
	Handle func(ctx context.Context, tx pgx.Tx, records []events.Record) error
	// After, if set, is called when a batch is committed.
	After func()
	// Wake tells of new events; it may be nil.
	Wake <-chan struct{}
	Log  *slog.Logger

	// handledUntil is in Unix nanoseconds; 0 before it is known.
	handledUntil atomic.Int64
}

// HandledUntil is the time of which this process knows that every event of
// before had its effect; the zero time while it knows of none. Where another
// process does the work, it stands until nothing waits.
func (c *Consumer) HandledUntil() time.Time {
	if at := c.handledUntil.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// Run works until ctx ends. Errors are logged and tried again.
func (c *Consumer) Run(ctx context.Context) error {
	return follow(ctx, c.Wake, c.Log.With("consumer", c.Name), c.step)
}

// step handles one batch. It locks only when there is something: a lock is a
// write, and most looks find nothing.
func (c *Consumer) step(ctx context.Context) (state, error) {
	looked := time.Now()
	waiting, err := c.waiting(ctx)
	if err != nil {
		return caughtUp, err
	}
	if !waiting {
		c.handledUntil.Store(looked.UnixNano())
		return caughtUp, nil
	}
	result := caughtUp
	handled := time.Time{}
	err = pgx.BeginFunc(ctx, c.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO consumers (name) VALUES ($1) ON CONFLICT DO NOTHING", c.Name); err != nil {
			return fmt.Errorf("register consumer: %w", err)
		}
		var from place
		err := tx.QueryRow(ctx, "SELECT xid::text, position FROM consumers WHERE name = $1 FOR UPDATE SKIP LOCKED", c.Name).
			Scan(&from.xid, &from.position)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // another process is at it
		}
		if err != nil {
			return fmt.Errorf("find the consumer's place: %w", err)
		}
		found, err := read(ctx, tx, from, c.Types)
		if err != nil {
			return err
		}
		result = found.state()
		if len(found.records) == 0 {
			return nil
		}
		if err := c.Handle(ctx, tx, found.records); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE consumers SET xid = $2::text::xid8, position = $3 WHERE name = $1", c.Name, found.last.xid, found.last.position)
		if err != nil {
			return fmt.Errorf("move the consumer's place: %w", err)
		}
		handled = found.records[len(found.records)-1].OccurredAt
		return nil
	})
	if err == nil && !handled.IsZero() {
		c.handledUntil.Store(handled.UnixNano())
		if c.After != nil {
			c.After()
		}
	}
	return result, err
}

// waiting says whether any event stands beyond the consumer's place.
func (c *Consumer) waiting(ctx context.Context) (bool, error) {
	var found bool
	err := c.Pool.QueryRow(ctx, `
		SELECT EXISTS (
			SELECT FROM unnest($2::text[]) AS wanted (type)
			CROSS JOIN LATERAL (
				SELECT FROM events
				WHERE type = wanted.type AND (xid, position) > (
					coalesce((SELECT xid FROM consumers WHERE name = $1), '0'),
					coalesce((SELECT position FROM consumers WHERE name = $1), 0))
				LIMIT 1
			) AS e
		)`, c.Name, c.Types).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("look for events: %w", err)
	}
	return found, nil
}

// Follower shows every event of some types to this process, from a time in the
// past on. It keeps no place: another start begins there again.
type Follower struct {
	Types []string
	Pool  *pgxpool.Pool
	// Since is how far back the first read goes; it may go somewhat further.
	Since time.Time
	// Handle must be quick; it gets the events in commit order.
	Handle func(records []events.Record)
	Wake   <-chan struct{}
	Log    *slog.Logger

	at place
	// caughtUpAt is in Unix nanoseconds; 0 before the first time.
	caughtUpAt atomic.Int64
}

// Run works until ctx ends. Errors are logged and tried again.
func (f *Follower) Run(ctx context.Context) error {
	return follow(ctx, f.Wake, f.Log, f.step)
}

// CatchUp shows what has happened until now; before Run. On an error Run goes on
// where it stopped.
func (f *Follower) CatchUp(ctx context.Context) error {
	for {
		if result, err := f.step(ctx); err != nil || result != more {
			return err
		}
	}
}

// CaughtUpAt is when the follower last knew all that had happened; the zero
// time before it first did.
func (f *Follower) CaughtUpAt() time.Time {
	if at := f.caughtUpAt.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

func (f *Follower) step(ctx context.Context) (state, error) {
	if f.at.xid == "" {
		at, err := begin(ctx, f.Pool, f.Since)
		if err != nil {
			return caughtUp, err
		}
		f.at = at
	}
	looked := time.Now()
	found, err := read(ctx, f.Pool, f.at, f.Types)
	if err != nil {
		return caughtUp, err
	}
	f.at = found.last
	if len(found.records) > 0 {
		f.Handle(found.records)
	}
	if found.state() == caughtUp {
		f.caughtUpAt.Store(looked.UnixNano())
	}
	return found.state(), nil
}

func follow(ctx context.Context, wake <-chan struct{}, log *slog.Logger, step func(context.Context) (state, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	settle := settleDelay
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-timer.C:
		}
		bounded, cancel := context.WithTimeout(ctx, stepTimeout)
		result, err := step(bounded)
		cancel()
		if result != heldBack {
			settle = settleDelay
		}
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return nil
			}
			if !failing { // once per outage, not once per second
				log.Warn("events not read; trying on", "error", err)
			}
			timer.Reset(failureDelay)
		case result == more:
			timer.Reset(0)
		case result == heldBack:
			timer.Reset(settle)
			settle = min(2*settle, PollInterval)
		default:
			timer.Reset(PollInterval)
		}
		if err == nil && failing {
			log.Info("events are read again")
		}
		failing = err != nil
	}
}
