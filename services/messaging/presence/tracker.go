package presence

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// Peers carries notes between the processes, and may lose them.
type Peers interface {
	Publish(data []byte) error
	// Messages brings the notes of every process, this one's among them or not.
	// What does not fit in it is dropped.
	Messages() <-chan *nats.Msg
}

// Tracker is a process's part in presence. Make it with New. Its methods never
// wait for the database or the bus.
type Tracker struct {
	store     Store
	peers     Peers
	announcer Announcer
	log       *slog.Logger
	metrics   metrics

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	book *book
}

type metrics struct {
	told   *prometheus.CounterVec
	failed prometheus.Counter
}

// New makes a tracker; Start it.
func New(store Store, peers Peers, announcer Announcer, log *slog.Logger, registry prometheus.Registerer) *Tracker {
	t := &Tracker{
		store: store, peers: peers, announcer: announcer, log: log, book: newBook(uuid.New()),
		metrics: metrics{
			told: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "marketplane_messaging_presence_told_total",
				Help: "Statuses of users that were told, to their audiences as they changed and to those who asked, by status: online, away, offline.",
			}, []string{"status"}),
			failed: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "marketplane_messaging_presence_postponed_total",
				Help: "Times that presence was told later, because it could not be read who is told.",
			}),
		},
	}
	registry.MustRegister(t.metrics.told, t.metrics.failed)
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_messaging_presence_users",
		Help: "Users who announced themselves on this process's connections, or did until a moment ago.",
	}, func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(len(t.book.users))
	}))
	return t
}

// Join makes a place for a connection of the user. It counts from its first
// announcement on.
func (t *Tracker) Join(user uuid.UUID) *Place { return &Place{tracker: t, user: user} }

// Announce sets the place's status, Away or Online, and asks who else is there.
func (p *Place) Announce(s Status) {
	p.tracker.mu.Lock()
	defer p.tracker.mu.Unlock()
	p.tracker.book.announce(p, s, time.Now())
}

// Leave ends the place. It is safe to call twice.
func (p *Place) Leave() {
	p.tracker.mu.Lock()
	defer p.tracker.mu.Unlock()
	p.tracker.book.leave(p, time.Now())
}

// Start begins to tell.
func (t *Tracker) Start(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.wg.Go(func() { t.run(ctx) })
	return nil
}

// Stop tells of those who left, and were not heard of elsewhere, that they are
// offline; call it once the places have left.
func (t *Tracker) Stop(ctx context.Context) error {
	t.cancel()
	t.wg.Wait()
	t.mu.Lock()
	t.book.hurry(time.Now())
	t.mu.Unlock()
	for t.work(ctx) {
	}
	return nil
}

func (t *Tracker) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-t.peers.Messages():
			t.hear(m.Data)
		case <-ticker.C:
			t.work(ctx)
		}
	}
}

func (t *Tracker) hear(data []byte) {
	n, err := decodeNote(data)
	if err != nil {
		t.log.Warn("unreadable message from the bus", "error", err)
		return
	}
	t.mu.Lock()
	answers := t.book.hear(n, time.Now())
	notes := t.book.out.take()
	t.mu.Unlock()
	t.deliver(answers)
	t.publish(notes)
}

// work does what is due, and says whether it did anything.
func (t *Tracker) work(ctx context.Context) bool {
	now := time.Now()
	t.mu.Lock()
	users := t.book.due(now, perTick)
	notes := t.book.out.take()
	t.mu.Unlock()
	t.publish(notes)
	if len(users) == 0 {
		return false
	}
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	audiences, err := t.store.Audiences(looking, users)
	if err != nil {
		if ctx.Err() == nil {
			t.metrics.failed.Inc()
			t.log.Debug("presence is told later", "users", len(users), "error", err) // the metric counts them
		}
		t.mu.Lock()
		t.book.postpone(users, now)
		t.mu.Unlock()
		return false
	}
	t.mu.Lock()
	told := t.book.tell(users, audiences, now)
	notes = t.book.out.take()
	t.mu.Unlock()
	t.deliver(told)
	t.publish(notes)
	return true
}

func (t *Tracker) deliver(all []delivery) {
	for _, d := range all {
		t.metrics.told.WithLabelValues(d.status.String()).Inc()
		t.announcer.Signal(d.to, signalOf(d.user, d.status))
	}
}

func (t *Tracker) publish(notes []note) {
	for _, n := range notes {
		data, err := json.Marshal(n)
		if err != nil {
			t.log.Error("note of presence not published", "error", err)
			continue
		}
		if err := t.peers.Publish(data); err != nil {
			t.log.Debug("note of presence not published", "error", err) // others correct what it would have said
		}
	}
}
