package eventlog_test

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// newPool is of a service with a table for the effects of events.
func newPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	effects := fstest.MapFS{"00001_effects.sql": {Data: []byte(
		"-- +goose Up\nCREATE TABLE effects (n bigint GENERATED ALWAYS AS IDENTITY, subject uuid NOT NULL);\n")}}
	return testkit.NewDatabase(t, map[string]fs.FS{"tasks": effects}).Pool(t, "tasks")
}

func ended(subject uuid.UUID) events.Event {
	return events.Event{Subject: subject, Data: events.SessionEnded{SessionID: subject, Reason: "logged_out"}}
}

func appendEvent(t *testing.T, tx pgx.Tx, subject uuid.UUID) {
	t.Helper()
	if err := eventlog.Append(t.Context(), tx, ended(subject)); err != nil {
		t.Fatal(err)
	}
}

// begin leaves no transaction open when the test fails: closing the pool waits
// for it.
func begin(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) })
	return tx
}

// run starts f, and ends it with the test.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

func receive(t *testing.T, from <-chan uuid.UUID) uuid.UUID {
	t.Helper()
	select {
	case id := <-from:
		return id
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return uuid.Nil
	}
}

// A transaction that began first and commits last holds back what others
// committed meanwhile; a reader that went by the growing number would pass it.
func TestFollowerReadsInCommitOrder(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	slow := begin(t, pool)
	first, second := uuid.New(), uuid.New()
	appendEvent(t, slow, first)
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		appendEvent(t, tx, second)
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	got := make(chan uuid.UUID, 10)
	wake := make(chan struct{})
	follower := &eventlog.Follower{
		Types: []string{events.TypeSessionEnded}, Pool: pool, Since: time.Now().Add(-time.Hour), Wake: wake, Log: testkit.Logger(t),
		Handle: func(records []events.Record) {
			for _, r := range records {
				got <- r.Subject
			}
		},
	}
	run(t, follower.Run)
	// Two looks are over once the third one is taken: both found nothing settled.
	for range 3 {
		wake <- struct{}{}
	}
	if len(got) != 0 {
		t.Fatal("an event was read before one with an earlier place had ended")
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uuid.UUID{first, second}, []uuid.UUID{receive(t, got), receive(t, got)}); diff != "" {
		t.Error(diff)
	}
}

// Several processes run the same consumer; one fails now and then after its
// effect. Every event has its effect once, in order.
func TestConsumerIsOnceInEffect(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	const total = 250
	var (
		mu       sync.Mutex
		attempts int
	)
	settled := make(chan struct{}, total)
	for range 3 {
		consumer := &eventlog.Consumer{
			Name: "tasks.test", Types: []string{events.TypeSessionEnded}, Pool: pool, Log: testkit.Logger(t),
			Handle: func(ctx context.Context, tx pgx.Tx, records []events.Record) error {
				for _, r := range records {
					if _, err := tx.Exec(ctx, "INSERT INTO effects (subject) VALUES ($1)", r.Subject); err != nil {
						return err
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if attempts++; attempts == 1 {
					return errors.New("a failure after the effect")
				}
				return nil
			},
			After: func() { settled <- struct{}{} },
		}
		run(t, consumer.Run)
	}
	var want []uuid.UUID
	for range total {
		id := uuid.New()
		want = append(want, id)
		if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			appendEvent(t, tx, id)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	effects := func() []uuid.UUID {
		rows, err := pool.Query(t.Context(), "SELECT subject FROM effects ORDER BY n")
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for len(effects()) < total {
		select {
		case <-settled:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d events had an effect", len(effects()), total)
		}
	}
	if diff := cmp.Diff(want, effects()); diff != "" {
		t.Error(diff)
	}
}

// A process that starts hears of the past that still matters, not of all of it.
func TestFollowerBeginsInThePast(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	old, recent := uuid.New(), uuid.New()
	for _, e := range []struct {
		subject uuid.UUID
		age     string
	}{{old, "2 hours"}, {recent, "1 minute"}} {
		if _, err := pool.Exec(t.Context(),
			"INSERT INTO events (id, type, subject, data, occurred_at) VALUES ($1, $2, $3, '{}', now() - $4::text::interval)",
			uuid.New(), events.TypeSessionEnded, e.subject, e.age); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan uuid.UUID, 10)
	run(t, (&eventlog.Follower{
		Types: []string{events.TypeSessionEnded}, Pool: pool, Since: time.Now().Add(-5 * time.Minute), Log: testkit.Logger(t),
		Handle: func(records []events.Record) {
			for _, r := range records {
				got <- r.Subject
			}
		},
	}).Run)
	if id := receive(t, got); id != recent {
		t.Errorf("first event read = %s, want the recent one %s", id, recent)
	}
}

// A lock is a write that PostgreSQL makes durable: looks that find nothing, one
// a second in every process, must do without.
func TestConsumerThatFindsNothingWritesNothing(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	wake, handled := make(chan struct{}), make(chan struct{}, 1)
	consumer := &eventlog.Consumer{
		Name: "tasks.test", Types: []string{events.TypeSessionEnded}, Pool: pool, Wake: wake, Log: testkit.Logger(t),
		Handle: func(context.Context, pgx.Tx, []events.Record) error { return nil },
		After:  func() { handled <- struct{}{} },
	}
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		appendEvent(t, tx, uuid.New())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	run(t, consumer.Run)
	select {
	case <-handled:
	case <-time.After(20 * time.Second):
		t.Fatal("the event had no effect")
	}
	for range 3 { // the third is taken when two looks are over
		wake <- struct{}{}
	}
	var locked bool
	if err := pool.QueryRow(t.Context(), "SELECT xmax::text NOT IN ('0', xmin::text) FROM consumers").Scan(&locked); err != nil {
		t.Fatal(err)
	}
	if locked {
		t.Error("a look that found nothing locked the consumer's place")
	}
}

func TestFollowerCatchesUp(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	const total = 250 // more than a batch
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		for range total {
			appendEvent(t, tx, uuid.New())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := 0
	follower := &eventlog.Follower{
		Types: []string{events.TypeSessionEnded}, Pool: pool, Since: time.Now().Add(-time.Minute), Log: testkit.Logger(t),
		Handle: func(records []events.Record) { got += len(records) },
	}
	if at := follower.CaughtUpAt(); !at.IsZero() {
		t.Errorf("caught up at %s before the first look", at)
	}
	// Events are held back for as long as any transaction on the server is
	// older, those of other tests included.
	for follower.CaughtUpAt().IsZero() {
		if err := follower.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := follower.CaughtUpAt()
	if got != total {
		t.Errorf("%d of %d events shown, and caught up at %s", got, total, before)
	}

	slow := begin(t, pool)
	appendEvent(t, slow, uuid.New())
	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		appendEvent(t, tx, uuid.New())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := follower.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got != total || follower.CaughtUpAt() != before {
		t.Error("an event that is held back does not count as lag")
	}
	if err := slow.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// How far a consumer is stands still while an event has no effect, and goes on
// after it.
func TestConsumerTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	wake := make(chan struct{})
	var broken atomic.Bool
	var handled atomic.Int64
	broken.Store(true)
	consumer := &eventlog.Consumer{
		Name: "tasks.test", Types: []string{events.TypeSessionEnded}, Pool: pool, Wake: wake, Log: testkit.Logger(t),
		Handle: func(context.Context, pgx.Tx, []events.Record) error {
			handled.Add(1)
			if broken.Load() {
				return errors.New("not now")
			}
			return nil
		},
	}
	if at := consumer.HandledUntil(); !at.IsZero() {
		t.Errorf("before the first look it knows of %v", at)
	}
	// When the second one is taken, the look of the first is over.
	look := func() {
		for range 2 {
			wake <- struct{}{}
		}
	}
	// Held back for a while, as above.
	lookUntilHandled := func() {
		for before := handled.Load(); handled.Load() == before && t.Context().Err() == nil; {
			look()
		}
	}
	run(t, consumer.Run)
	look()
	if consumer.HandledUntil().IsZero() {
		t.Error("an empty log is handled, and that is not told")
	}

	if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		appendEvent(t, tx, uuid.New())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	look()
	before := consumer.HandledUntil()
	lookUntilHandled()
	if at := consumer.HandledUntil(); !at.Equal(before) {
		t.Errorf("went on to %v while an event had no effect", at)
	}
	broken.Store(false)
	lookUntilHandled()
	look()
	if at := consumer.HandledUntil(); !at.After(before) {
		t.Errorf("still at %v though the event had its effect", at)
	}
}
