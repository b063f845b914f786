package commit_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
)

type writerFunc func(ctx context.Context, drafts []messaging.Draft) ([]commit.Outcome, []messaging.Item, error)

func (f writerFunc) Write(ctx context.Context, drafts []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
	return f(ctx, drafts)
}

func newQueue(t *testing.T, options commit.Options, write writerFunc) *commit.Queue {
	t.Helper()
	q := commit.NewQueue(write, func([]messaging.Item) {}, options, testkit.Logger(t), prometheus.NewRegistry())
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return q
}

func draft(body string) messaging.Draft {
	return messaging.Draft{ClientID: uuid.New(), Body: json.RawMessage(body)}
}

// sendAll sends n drafts at a time, and returns their errors.
func sendAll(q *commit.Queue, drafts []messaging.Draft) []error {
	errs := make([]error, len(drafts))
	var wg sync.WaitGroup
	for i, d := range drafts {
		wg.Go(func() { _, errs[i] = q.Send(context.Background(), d) })
	}
	wg.Wait()
	return errs
}

func TestSendsShareTransactionsAndOnlyTwoAreUnderWay(t *testing.T) {
	t.Parallel()
	const drafts = 500
	var batches, underWay, most, largest atomic.Int64
	q := newQueue(t, commit.Options{MaxBatch: 50}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		most.Store(max(most.Load(), underWay.Add(1)))
		defer underWay.Add(-1)
		batches.Add(1)
		largest.Store(max(largest.Load(), int64(len(d))))
		return make([]commit.Outcome, len(d)), nil, nil
	})
	all := make([]messaging.Draft, drafts)
	for i := range all {
		all[i] = draft(`{"a":1}`)
	}
	for _, err := range sendAll(q, all) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if most.Load() > 2 || largest.Load() > 50 || batches.Load() > drafts/2 {
		t.Errorf("%d batches, %d at a time, the largest of %d", batches.Load(), most.Load(), largest.Load())
	}
}

func TestOneBadDraftDoesNotFailItsBatch(t *testing.T) {
	t.Parallel()
	q := newQueue(t, commit.Options{Delay: 50 * time.Millisecond}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		for _, each := range d {
			if string(each.Body) == "bad" {
				return nil, nil, messaging.ErrBodyRefused
			}
		}
		return make([]commit.Outcome, len(d)), nil, nil
	})
	all := []messaging.Draft{draft("a"), draft("b"), draft("bad"), draft("c"), draft("bad"), draft("d"), draft("e")}
	for i, err := range sendAll(q, all) {
		if bad := string(all[i].Body) == "bad"; bad != errors.Is(err, messaging.ErrBodyRefused) {
			t.Errorf("draft %s: %v", all[i].Body, err)
		}
	}
}

func TestWhatIsNotWrittenIsRefusedForNow(t *testing.T) {
	t.Parallel()
	away := fault.New(fault.Unavailable, "database_unavailable", "Later.").After(time.Second)
	var writes atomic.Int64
	q := newQueue(t, commit.Options{Delay: 50 * time.Millisecond}, func(context.Context, []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		writes.Add(1)
		return nil, nil, away
	})
	for _, err := range sendAll(q, []messaging.Draft{draft("a"), draft("b"), draft("c")}) {
		if f := fault.From(err); f.Kind != fault.Unavailable || f.RetryAfter == 0 {
			t.Errorf("got %v", err)
		}
	}
	if writes.Load() > 3 {
		t.Errorf("%d writes: a database that is away is asked for each draft again", writes.Load())
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	began := make(chan struct{}, 10)
	q := newQueue(t, commit.Options{MaxBatch: 1, MaxWaiting: 2}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		began <- struct{}{}
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	var wg sync.WaitGroup
	var taken, refused atomic.Int64
	// Two are written, one waits for a slot, two wait in the queue; of ten, at
	// least five are refused at once.
	refusals := make(chan struct{}, 10)
	for range 10 {
		wg.Go(func() {
			_, err := q.Send(context.Background(), draft("a"))
			if err == nil {
				taken.Add(1)
				return
			}
			if fault.From(err).Code != "overloaded" {
				t.Error(err)
			}
			refused.Add(1)
			refusals <- struct{}{}
		})
	}
	<-began
	<-began
	for range 5 {
		<-refusals
	}
	close(release)
	wg.Wait()
	if taken.Load()+refused.Load() != 10 || taken.Load() < 2 {
		t.Errorf("%d taken, %d refused", taken.Load(), refused.Load())
	}
}

func TestStopWritesWhatWaitsAndTakesNoMore(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	began := make(chan struct{}, 10)
	q := newQueue(t, commit.Options{MaxBatch: 1}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		select {
		case began <- struct{}{}:
		default:
		}
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	answers := make(chan error, 1)
	go func() {
		_, err := q.Send(context.Background(), draft("a"))
		answers <- err
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- q.Stop(context.Background()) }()
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	for { // until the stop has begun
		if _, err := q.Send(hurried, draft("late")); fault.From(err).Code == "stopping" {
			break
		}
	}
	close(release)
	if err := errors.Join(<-answers, <-stopped); err != nil {
		t.Error(err)
	}
}

func TestASenderWhoLeavesLearnsThatTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	q := newQueue(t, commit.Options{}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := q.Send(ctx, draft("a"))
	if f := fault.From(err); f.Kind != fault.Unavailable || f.Code != "outcome_unknown" {
		t.Errorf("got %v", err)
	}
	close(release)
}
