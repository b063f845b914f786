package commit_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// send sends the drafts, in their order. What it returns waits for their errors.
func send(q *commit.Queue, drafts []messaging.Draft) (wait func() []error) {
	errs := make([]error, len(drafts))
	var wg sync.WaitGroup
	for i, d := range drafts {
		wg.Add(1)
		q.Send(d, func(_ messaging.Sent, err error) {
			errs[i] = err
			wg.Done()
		})
	}
	return func() []error {
		wg.Wait()
		return errs
	}
}

func sendAll(q *commit.Queue, drafts []messaging.Draft) []error { return send(q, drafts)() }

// While a batch is written, the next one grows; and it waits until it is as
// large as the one before, but not for long.
func TestSendsShareTransactions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches []int
		q := newQueue(t, commit.Options{MaxBatch: 50}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
			time.Sleep(time.Millisecond) // of the bubble's time
			batches = append(batches, len(d))
			return make([]commit.Outcome, len(d)), nil, nil
		})
		all := make([]messaging.Draft, 120)
		for i := range all {
			all[i] = draft(`{"a":1}`)
		}
		start := time.Now()
		if err := errors.Join(sendAll(q, all[:1])...); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("a draft that is alone waited %s", took)
		}
		var wg sync.WaitGroup
		wg.Add(len(all))
		for _, d := range all {
			q.Send(d, func(messaging.Sent, error) { wg.Done() })
		}
		wg.Wait()
		start = time.Now()
		if err := errors.Join(sendAll(q, all[:2])...); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*time.Millisecond {
			t.Errorf("the last two took %s, want the delay of 3 ms and the write", took)
		}
		most, sum := 0, 0
		for _, n := range batches {
			most, sum = max(most, n), sum+n
		}
		if most != 50 || sum != 123 || len(batches) > 6 {
			t.Errorf("batches of %v", batches)
		}
	})
}

// The drafts of one conversation are written in their order, though two batches
// are under way.
func TestAConversationKeepsItsOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var underWay, most int
	written := map[uuid.UUID][]string{}
	q := newQueue(t, commit.Options{MaxBatch: 3, MaxWaiting: 4000}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		mu.Lock()
		underWay++
		most = max(most, underWay)
		mu.Unlock()
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		underWay--
		for _, each := range d {
			written[each.ConversationID] = append(written[each.ConversationID], string(each.Body))
		}
		return make([]commit.Outcome, len(d)), nil, nil
	})
	conversations := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	const each = 300
	var all []messaging.Draft
	for i := range each {
		for _, id := range conversations {
			d := draft(strconv.Itoa(i))
			d.ConversationID = id
			all = append(all, d)
		}
	}
	if err := errors.Join(sendAll(q, all)...); err != nil {
		t.Fatal(err)
	}
	for _, id := range conversations {
		for i, body := range written[id] {
			if body != strconv.Itoa(i) {
				t.Fatalf("body %s at place %d", body, i)
			}
		}
		if len(written[id]) != each {
			t.Errorf("%d written", len(written[id]))
		}
	}
	if most > 2 {
		t.Errorf("%d batches at a time", most)
	}
}

func TestOneBadDraftDoesNotFailItsBatch(t *testing.T) {
	t.Parallel()
	first := make(chan struct{})
	q := newQueue(t, commit.Options{}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		if string(d[0].Body) == "first" {
			<-first // the others come meanwhile, and are one batch
		}
		for _, each := range d {
			if string(each.Body) == "bad" {
				return nil, nil, messaging.ErrBodyRefused
			}
		}
		return make([]commit.Outcome, len(d)), nil, nil
	})
	q.Send(draft("first"), func(messaging.Sent, error) {})
	all := []messaging.Draft{draft("a"), draft("b"), draft("bad"), draft("c"), draft("bad"), draft("d"), draft("e")}
	wait := send(q, all)
	close(first)
	for i, err := range wait() {
		if bad := string(all[i].Body) == "bad"; bad != errors.Is(err, messaging.ErrBodyRefused) {
			t.Errorf("draft %s: %v", all[i].Body, err)
		}
	}
}

func TestWhatIsNotWrittenIsRefusedForNow(t *testing.T) {
	t.Parallel()
	away := fault.New(fault.Unavailable, "database_unavailable", "Later.").After(time.Second)
	var writes atomic.Int64
	q := newQueue(t, commit.Options{}, func(context.Context, []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
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
	began := make(chan struct{})
	q := newQueue(t, commit.Options{MaxBatch: 1, MaxWaiting: 4}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		select {
		case began <- struct{}{}:
		case <-release:
		}
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	var taken sync.WaitGroup
	taken.Add(3)
	answer := func(_ messaging.Sent, err error) {
		if err != nil {
			t.Error(err)
		}
		taken.Done()
	}
	q.Send(draft("is written"), answer)
	<-began
	q.Send(draft("waits"), answer)
	q.Send(draft("waits"), answer)
	refused := 0
	for range 5 { // answered at once, by Send itself
		q.Send(draft("too many"), func(_ messaging.Sent, err error) {
			if fault.From(err).Code != "overloaded" {
				t.Errorf("got %v", err)
			}
			refused++
		})
	}
	if refused != 5 {
		t.Errorf("%d refused", refused)
	}
	close(release)
	taken.Wait()
}

func TestStopWritesWhatWaitsAndTakesNoMore(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	began := make(chan struct{}, 1)
	q := newQueue(t, commit.Options{MaxBatch: 1}, func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		select {
		case began <- struct{}{}:
		default:
		}
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	answers := make(chan error, 2)
	answer := func(_ messaging.Sent, err error) { answers <- err }
	q.Send(draft("is written"), answer)
	<-began
	q.Send(draft("waits"), answer)
	stopped := make(chan error, 1)
	go func() { stopped <- q.Stop(context.Background()) }()
	for { // until the stop has begun
		refused := make(chan error, 1)
		q.Send(draft("late"), func(_ messaging.Sent, err error) {
			select {
			case refused <- err:
			default:
			}
		})
		select {
		case err := <-refused:
			if fault.From(err).Code == "stopping" {
				close(release)
				if err := errors.Join(<-answers, <-answers, <-stopped); err != nil {
					t.Error(err)
				}
				return
			}
		default: // it waits, too
		}
		runtime.Gosched()
	}
}
