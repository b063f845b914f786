// Package podtest has what tests of messaging's doors stand on: pods, each with a
// hub and a commit queue of its own, that share a real PostgreSQL and a real NATS.
package podtest

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/presence"
	"github.com/marketplane/marketplane/services/messaging/store"
)

// Patience is how long a test waits for what must happen.
const Patience = time.Minute

// World is what pods share.
type World struct {
	T        testing.TB
	Database *testkit.Database
	Pool     *pgxpool.Pool
	Store    *store.Store
	Tokens   *testkit.Tokens
	Subjects events.Subjects
	Bus      *bus.Server

	busAddress string
}

// NewWorld makes a world, until the test's end.
func NewWorld(t testing.TB) *World {
	t.Helper()
	w := &World{
		T:        t,
		Database: testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()}),
		Tokens:   testkit.NewTokens(t),
		Subjects: events.SubjectsOf(uuid.NewString()),
	}
	w.Pool = w.Database.Pool(t, contract.ComponentMessaging)
	w.Store = store.New(w.Pool, time.Now)
	w.busAddress = "127.0.0.1:0"
	w.StartBus()
	w.busAddress = strings.TrimPrefix(w.Bus.URL(), "nats://")
	t.Cleanup(w.StopBus)
	return w
}

// StartBus starts the bus again, where it was.
func (w *World) StartBus() {
	w.T.Helper()
	var err error
	w.Bus, err = bus.StartServer(bus.ServerOptions{Name: "test", Listen: w.busAddress, Log: testkit.Logger(w.T)})
	if err != nil {
		w.T.Fatal(err)
	}
}

// StopBus stops the bus.
func (w *World) StopBus() {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := w.Bus.Stop(ctx); err != nil {
		w.T.Error(err)
	}
}

// Pair is a conversation and its members.
type Pair struct{ Client, Tasker, Conversation uuid.UUID }

// Open opens a conversation of two new users.
func (w *World) Open() Pair {
	w.T.Helper()
	p := Pair{Client: uuid.New(), Tasker: uuid.New()}
	data, err := json.Marshal(events.OfferMade{TaskID: uuid.New(), OfferID: uuid.New(), ClientID: p.Client, TaskerID: p.Tasker, Title: "Shelves"})
	if err != nil {
		w.T.Fatal(err)
	}
	inbox := w.Store.NewInbox(func([]messaging.Item) {})
	err = postgres.InTx(w.T.Context(), w.Pool, func(tx pgx.Tx) error {
		return inbox.Handle(w.T.Context(), tx, []events.Record{{Type: events.TypeOfferMade, Data: data}})
	})
	if err != nil {
		w.T.Fatal(err)
	}
	found, err := w.Store.Conversations(w.T.Context(), messaging.ConversationQuery{UserID: p.Client, Limit: 1})
	if err != nil {
		w.T.Fatal(err)
	}
	p.Conversation = found[0].ID
	return p
}

// Pod is one process's messaging, but for its doors.
type Pod struct {
	Hub      *hub.Hub
	Queue    *commit.Queue
	Service  *messaging.Service
	Tracker  *presence.Tracker
	Conn     *nats.Conn
	Registry *prometheus.Registry
	Bus      *LossyBus
	Sessions Sessions
	// Door is what its doors stand on.
	Door door.Options

	w *World
}

// LossyBus is a hub.Bus that loses what is published when it is told to.
type LossyBus struct {
	*hub.NATS
	Lose atomic.Bool
}

// Publish implements hub.Bus.
func (b *LossyBus) Publish(user uuid.UUID, data []byte) error {
	if b.Lose.Load() {
		return nil
	}
	return b.NATS.Publish(user, data)
}

// Fast lets tests send as fast as they can.
var Fast = messaging.Rate{PerSecond: 1e6, Burst: 1e6}

// NewPod makes a pod. Its clients may send as fast as they can.
func (w *World) NewPod(options hub.Options) *Pod {
	w.T.Helper()
	log := testkit.Logger(w.T)
	p := &Pod{w: w}
	var ready atomic.Pointer[hub.Hub] // the first connection may come before the hub
	conn, err := bus.Connect(bus.Options{
		URLs: []string{w.Bus.URL()}, Name: "pod", NoEcho: true, Log: log,
		Connected: func() {
			if h := ready.Load(); h != nil {
				h.BusReconnected()
			}
		},
	})
	if err != nil {
		w.T.Fatal(err)
	}
	p.Registry = prometheus.NewRegistry()
	pool := w.Database.Pool(w.T, contract.ComponentMessaging)
	own := store.New(pool, time.Now)
	p.Conn = conn
	p.Bus = &LossyBus{NATS: hub.NewNATS(conn, w.Subjects, log)}
	p.Hub = hub.New(own, p.Bus, options, log, p.Registry)
	ready.Store(p.Hub)
	p.Queue = commit.NewQueue(own, p.Hub.Announce, commit.Options{}, log, p.Registry)
	p.Service = messaging.NewService(own, p.Queue, p.Hub, Fast, time.Now)
	peers, err := presence.NewNATS(conn, w.Subjects)
	if err != nil {
		w.T.Fatal(err)
	}
	p.Tracker = presence.New(own, peers, p.Hub, log, p.Registry)
	p.Sessions = Sessions{w.Tokens, w.Tokens.Revocations, uuid.Nil}
	p.Door = door.Options{Rate: Fast, Presence: p.Tracker, Metrics: door.NewMetrics(p.Registry)}
	if err := errors.Join(p.Tracker.Start(w.T.Context()), p.Hub.Start(w.T.Context()), p.Queue.Start(w.T.Context())); err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		conn.Close()
		pool.Close()
	})
	return p
}

// Stop stops the pod as its process would; doors returns when they are closed, and is
// called after the hub's end.
func (p *Pod) Stop(ctx context.Context, doors func(ctx context.Context) error) error {
	return errors.Join(p.Hub.Stop(ctx), doors(ctx), p.Tracker.Stop(ctx), p.Queue.Stop(ctx))
}

// Sessions are those of testkit's tokens.
type Sessions struct {
	web.Verifier
	*identity.Revocations
	// EndsMeanwhile is a session that always ends just after its token is verified.
	EndsMeanwhile uuid.UUID
}

// IsRevoked implements door.Sessions.
func (s Sessions) IsRevoked(session uuid.UUID) bool {
	return session == s.EndsMeanwhile || s.Revocations.IsRevoked(session)
}

// Metric is the value of the pod's counter or gauge of a name, with the labels that
// are given as pairs; 0 if there is none.
func (p *Pod) Metric(name string, labels ...string) float64 {
	p.w.T.Helper()
	families, err := p.Registry.Gather()
	if err != nil {
		p.w.T.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	next:
		for _, metric := range family.GetMetric() {
			has := map[string]string{}
			for _, l := range metric.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue next
				}
			}
			return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return 0
}

// WaitUntil looks again and again at what gives no signal.
func WaitUntil(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(Patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not in %s", what, Patience)
		}
	}
}
