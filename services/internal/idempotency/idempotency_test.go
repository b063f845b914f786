package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/tasks/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

type input struct {
	Title string `json:"title"`
}

type output struct {
	ID uuid.UUID `json:"id"`
}

// bench is a keeper on a database of the test's own, and a clock to turn.
type bench struct {
	*idempotency.Keeper
	transactor *postgres.Transactor
	clock      atomic.Pointer[time.Time]
	runs       atomic.Int32
}

func newBench(t *testing.T) *bench {
	t.Helper()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentTasks: store.Migrations()})
	b := &bench{transactor: &postgres.Transactor{Pool: database.Pool(t, contract.ComponentTasks)}}
	start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	b.clock.Store(&start)
	b.Keeper = idempotency.NewKeeper(b.transactor, func() time.Time { return *b.clock.Load() })
	return b
}

func (b *bench) advance(d time.Duration) {
	now := b.clock.Load().Add(d)
	b.clock.Store(&now)
}

// do has an effect that can be counted: a new id.
func (b *bench) do(ctx context.Context, r idempotency.Request) (idempotency.Answer[output], error) {
	return idempotency.Do(ctx, b.Keeper, r, 201, func(context.Context) (output, error) {
		b.runs.Add(1)
		return output{ID: uuid.New()}, nil
	})
}

func (b *bench) count(t *testing.T) (rows int) {
	t.Helper()
	if err := b.transactor.Pool.QueryRow(t.Context(), "SELECT count(*) FROM idempotency_keys").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestDo(t *testing.T) {
	t.Parallel()
	user := uuid.New()
	first := idempotency.Request{Principal: user, Route: "POST /things", Key: "k", Input: input{"mow"}}
	tests := map[string]struct {
		second       func(r idempotency.Request) idempotency.Request
		later        time.Duration
		wantErr      error
		wantReplayed bool
		wantRuns     int32
	}{
		"the same again":          {second: func(r idempotency.Request) idempotency.Request { return r }, wantReplayed: true, wantRuns: 1},
		"the same, just in time":  {second: func(r idempotency.Request) idempotency.Request { return r }, later: idempotency.Retention - time.Second, wantReplayed: true, wantRuns: 1},
		"the same, a day later":   {second: func(r idempotency.Request) idempotency.Request { return r }, later: idempotency.Retention, wantRuns: 2},
		"other input":             {second: func(r idempotency.Request) idempotency.Request { r.Input = input{"dig"}; return r }, wantErr: idempotency.ErrKeyReused, wantRuns: 1},
		"other input, much later": {second: func(r idempotency.Request) idempotency.Request { r.Input = input{"dig"}; return r }, later: idempotency.Retention, wantRuns: 2},
		"other key":               {second: func(r idempotency.Request) idempotency.Request { r.Key = "l"; return r }, wantRuns: 2},
		"other user":              {second: func(r idempotency.Request) idempotency.Request { r.Principal = uuid.New(); return r }, wantRuns: 2},
		"other route":             {second: func(r idempotency.Request) idempotency.Request { r.Route = "POST /others"; return r }, wantRuns: 2},
		"no key":                  {second: func(r idempotency.Request) idempotency.Request { r.Key = ""; return r }, wantErr: idempotency.ErrKeyMissing, wantRuns: 1},
		"long key":                {second: func(r idempotency.Request) idempotency.Request { r.Key = strings.Repeat("k", 256); return r }, wantErr: idempotency.ErrKeyInvalid, wantRuns: 1},
		"longest key":             {second: func(r idempotency.Request) idempotency.Request { r.Key = strings.Repeat("k", 255); return r }, wantRuns: 2},
		"key with a NUL":          {second: func(r idempotency.Request) idempotency.Request { r.Key = "k\x00"; return r }, wantErr: idempotency.ErrKeyInvalid, wantRuns: 1},
		"key beyond ASCII":        {second: func(r idempotency.Request) idempotency.Request { r.Key = "kö"; return r }, wantErr: idempotency.ErrKeyInvalid, wantRuns: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			one, err := b.do(t.Context(), first)
			if err != nil {
				t.Fatal(err)
			}
			if one.Replayed || one.Status != 201 {
				t.Errorf("first answer = %+v, want a fresh 201", one)
			}
			b.advance(test.later)
			two, err := b.do(t.Context(), test.second(first))
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("second: %v, want %v", err, test.wantErr)
			}
			if two.Replayed != test.wantReplayed || b.runs.Load() != test.wantRuns {
				t.Errorf("replayed = %t after %d runs, want %t after %d", two.Replayed, b.runs.Load(), test.wantReplayed, test.wantRuns)
			}
			if test.wantReplayed {
				one.Replayed = true
				if diff := cmp.Diff(one, two); diff != "" {
					t.Errorf("the replay is another answer (-first +second):\n%s", diff)
				}
			}
		})
	}
}

// TestDoInFlight holds the first request in the middle: the second is refused
// at once, and served once the first has ended.
func TestDoInFlight(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := idempotency.Request{Principal: uuid.New(), Route: "POST /things", Key: "k", Input: input{"mow"}}
	inside, release := make(chan struct{}), make(chan struct{})
	first := make(chan idempotency.Answer[output], 1)
	var group sync.WaitGroup
	group.Go(func() {
		answer, err := idempotency.Do(t.Context(), b.Keeper, r, 201, func(context.Context) (output, error) {
			close(inside)
			<-release
			return output{ID: uuid.New()}, nil
		})
		if err != nil {
			t.Errorf("first: %v", err)
		}
		first <- answer
	})
	<-inside
	if _, err := b.do(t.Context(), r); !errors.Is(err, idempotency.ErrInFlight) {
		t.Errorf("second, meanwhile: %v, want %v", err, idempotency.ErrInFlight)
	}
	close(release)
	group.Wait()
	again, err := b.do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Replayed || again.Body != (<-first).Body || b.runs.Load() != 0 {
		t.Errorf("second, afterwards: %+v after %d runs of its own, want the first one's answer", again, b.runs.Load())
	}
}

func TestDoManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := idempotency.Request{Principal: uuid.New(), Route: "POST /things", Key: "k", Input: input{"mow"}}
	var group sync.WaitGroup
	ids := make(chan uuid.UUID, 32)
	for range cap(ids) {
		group.Go(func() {
			answer, err := b.do(t.Context(), r)
			switch {
			case err == nil:
				ids <- answer.Body.ID
			case !errors.Is(err, idempotency.ErrInFlight):
				t.Errorf("do: %v", err)
			}
		})
	}
	group.Wait()
	close(ids)
	distinct := map[uuid.UUID]bool{}
	for id := range ids {
		distinct[id] = true
	}
	if len(distinct) != 1 || b.runs.Load() != 1 {
		t.Errorf("%d different answers after %d runs, want one after one", len(distinct), b.runs.Load())
	}
}

// TestDoKeepsNoErrors also shows that the effect and the answer fall together.
func TestDoKeepsNoErrors(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := idempotency.Request{Principal: uuid.New(), Route: "POST /things", Key: "k", Input: input{"mow"}}
	errFull := errors.New("full")
	_, err := idempotency.Do(t.Context(), b.Keeper, r, 201, func(ctx context.Context) (output, error) {
		err := b.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO idempotency_keys (principal, route, key, input_hash, status, body, expires_at)
				VALUES ($1, 'effect', 'k', sha256(''), 201, '', now())`, r.Principal)
			return err
		})
		return output{}, errors.Join(err, errFull)
	})
	if !errors.Is(err, errFull) {
		t.Fatalf("error = %v, want %v", err, errFull)
	}
	if rows := b.count(t); rows != 0 {
		t.Errorf("%d rows are left of a failed request", rows)
	}
	if answer, err := b.do(t.Context(), r); err != nil || answer.Replayed {
		t.Errorf("again: %+v, %v; want a fresh answer", answer, err)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := idempotency.Request{Principal: uuid.New(), Route: "POST /things", Input: input{"mow"}}
	for i := range 3 {
		old.Key = fmt.Sprintf("old-%d", i)
		if _, err := b.do(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	b.advance(time.Hour)
	old.Key = "young"
	if _, err := b.do(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if deleted, err := b.Sweep(t.Context()); err != nil || deleted != 0 {
		t.Errorf("swept %d, %v before any has expired", deleted, err)
	}
	b.advance(idempotency.Retention - time.Hour)
	if deleted, err := b.Sweep(t.Context()); err != nil || deleted != 3 {
		t.Errorf("swept %d, %v; want the 3 old ones", deleted, err)
	}
	if rows := b.count(t); rows != 1 {
		t.Errorf("%d are left, want the young one", rows)
	}
}

// TestSweepIsBounded leaves what is over a batch to the next one.
func TestSweepIsBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.transactor.Pool.Exec(t.Context(), `
		INSERT INTO idempotency_keys (principal, route, key, input_hash, status, body, expires_at)
		SELECT gen_random_uuid(), 'r', 'k', sha256(''), 201, '', $1 FROM generate_series(1, 700)`, b.clock.Load())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{500, 200, 0} {
		if deleted, err := b.Sweep(t.Context()); err != nil || deleted != want {
			t.Errorf("swept %d, %v; want %d", deleted, err, want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx, testkit.Logger(t)) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}
