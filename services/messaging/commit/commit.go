// Package commit groups the writes of messages: what arrives while others are
// written goes into one transaction, which is what makes many small durable
// writes cheap. Nobody waits in it: senders are called back. It knows no
// database and no wire.
package commit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
)

// Outcome is what became of one draft of a batch.
type Outcome struct {
	Sent messaging.Sent
	// Err is the draft's own fault; nil for a message that is written.
	Err error
}

// Writer writes a batch durably. It returns one outcome for each draft, in
// their order, and the items that tell of what was written. An error concerns
// the whole batch: of kind Unavailable if a later try may do.
type Writer interface {
	Write(ctx context.Context, drafts []messaging.Draft) ([]Outcome, []messaging.Item, error)
}

// Options bound a Queue. Zero values mean the defaults.
type Options struct {
	// MaxBatch is how many drafts one transaction takes: 200.
	MaxBatch int
	// MaxWaiting is how many drafts may wait for a transaction: 2000.
	MaxWaiting int
}

func (o Options) withDefaults() Options {
	if o.MaxBatch == 0 {
		o.MaxBatch = 200
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 2000
	}
	return o
}

const (
	// delay is how long a draft may wait for others, when there are others.
	delay = 3 * time.Millisecond
	// writeTimeout bounds the writing of one batch.
	writeTimeout = 5 * time.Second
	// lanes is how many batches are written at a time: one commits while the other
	// one is prepared. More would take database connections from readers. A
	// conversation has one lane, which keeps its drafts in order, and keeps two
	// batches from waiting for each other's locks.
	lanes = 2
)

var (
	errOverloaded = fault.New(fault.Unavailable, "overloaded",
		"More messages arrive than can be written. Try again in a moment.").After(500 * time.Millisecond)
	errStopped = fault.New(fault.Unavailable, "stopping",
		"This server is going away. Connect again, and send the message once more.").After(100 * time.Millisecond)
)

// Queue is a messaging.Sender.
type Queue struct {
	writer   Writer
	announce func([]messaging.Item)
	options  Options
	log      *slog.Logger
	metrics  metrics

	waiting [lanes]chan request
	stop    chan struct{} // closed when no more drafts are taken
	running sync.WaitGroup

	mu      sync.RWMutex // held for reading while a draft enters
	stopped bool
}

type request struct {
	draft  messaging.Draft
	answer func(messaging.Sent, error)
}

type metrics struct {
	size     prometheus.Histogram
	duration *prometheus.HistogramVec
	refused  prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "marketplane_messaging_commit_batch_size",
			Help:    "Messages written in one transaction.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200},
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "marketplane_messaging_commit_duration_seconds",
			Help:    "Time of one group commit, by result (ok, refused, unavailable).",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"result"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "marketplane_messaging_commit_refused_total",
			Help: "Messages refused for now because too many waited to be written.",
		}),
	}
	registry.MustRegister(m.size, m.duration, m.refused)
	return m
}

// NewQueue makes a queue; Start it. announce gets the items of every commit,
// before the senders are answered; it must not block.
func NewQueue(writer Writer, announce func([]messaging.Item), options Options, log *slog.Logger, registry prometheus.Registerer) *Queue {
	q := &Queue{
		writer: writer, announce: announce, options: options.withDefaults(), log: log, metrics: newMetrics(registry),
		stop: make(chan struct{}),
	}
	for i := range q.waiting {
		q.waiting[i] = make(chan request, max(1, q.options.MaxWaiting/lanes))
	}
	return q
}

// Send implements messaging.Sender.
func (q *Queue) Send(draft messaging.Draft, answer func(messaging.Sent, error)) {
	if err := q.enter(request{draft, answer}); err != nil {
		answer(messaging.Sent{}, err)
	}
}

func (q *Queue) enter(r request) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.stopped {
		return errStopped
	}
	id := r.draft.ConversationID
	select {
	case q.waiting[id[len(id)-1]%lanes] <- r: // the last byte of a UUIDv7 is random
		return nil
	default:
		q.metrics.refused.Inc()
		return errOverloaded
	}
}

// Start begins to write.
func (q *Queue) Start(context.Context) error {
	for _, waiting := range q.waiting {
		q.running.Go(func() { q.run(waiting) })
	}
	return nil
}

// Stop takes no more drafts, and waits until those that wait have their answer.
func (q *Queue) Stop(ctx context.Context) error {
	q.mu.Lock()
	if !q.stopped {
		q.stopped = true
		close(q.stop)
	}
	q.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.running.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *Queue) run(waiting <-chan request) {
	var requests []request
	for {
		requests = q.collect(waiting, requests[:0], len(requests))
		if len(requests) == 0 {
			return // stopped, and nothing waits
		}
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		q.write(ctx, requests)
		cancel()
		clear(requests) // bodies are not kept for the next batch
	}
}

// collect waits for a first draft, and a little for others to go with it: for as
// many as there were the last time. So a draft that is alone waits for nothing,
// and under load fewer, larger transactions are written. It returns none once
// the queue is stopped and empty.
func (q *Queue) collect(waiting <-chan request, requests []request, last int) []request {
	select {
	case r := <-waiting:
		requests = append(requests, r)
	case <-q.stop:
		return q.take(waiting, requests)
	}
	requests = q.take(waiting, requests)
	if len(requests) >= min(last, q.options.MaxBatch) {
		return requests
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for len(requests) < min(last, q.options.MaxBatch) {
		select {
		case r := <-waiting:
			requests = append(requests, r)
		case <-timer.C:
			return requests
		case <-q.stop:
			return requests
		}
	}
	return requests
}

// take adds what waits already.
func (q *Queue) take(waiting <-chan request, requests []request) []request {
	for len(requests) < q.options.MaxBatch {
		select {
		case r := <-waiting:
			requests = append(requests, r)
		default:
			return requests
		}
	}
	return requests
}

// write writes requests together, or by halves if one of them spoils the batch.
func (q *Queue) write(ctx context.Context, requests []request) {
	drafts := make([]messaging.Draft, len(requests))
	for i, r := range requests {
		drafts[i] = r.draft
	}
	start := time.Now()
	outcomes, items, err := q.writer.Write(ctx, drafts)
	result := "ok"
	switch {
	case err == nil:
		q.metrics.size.Observe(float64(len(requests)))
	case fault.From(err).Kind == fault.Unavailable:
		result = "unavailable"
	default:
		result = "refused"
	}
	q.metrics.duration.WithLabelValues(result).Observe(time.Since(start).Seconds())
	if err == nil {
		q.announce(items)
		for i, r := range requests {
			r.answer(outcomes[i].Sent, outcomes[i].Err)
		}
		return
	}
	if result == "refused" && len(requests) > 1 {
		half := len(requests) / 2
		q.write(ctx, requests[:half])
		q.write(ctx, requests[half:])
		return
	}
	q.log.Warn("messages not written", "count", len(requests), "error", err)
	for _, r := range requests {
		r.answer(messaging.Sent{}, err)
	}
}
