package hub

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
)

// Wire is a client's connection on some protocol. Only Room may block.
type Wire interface {
	// Deliver queues items of the user's stream, which follow one another. A wire
	// that has no room left ends itself as a slow consumer. The slice is the
	// hub's again afterwards; what its payloads hold never changes.
	Deliver(items []messaging.Item)
	// Signal queues an ephemeral signal, or drops it.
	Signal(signal messaging.Signal)
	// Room waits until there is room for items of a replay, or the wire or ctx
	// ends, which is an error.
	Room(ctx context.Context) error
	// Move asks the client to connect again after a while, and to leave before
	// the deadline.
	Move(after, deadline time.Duration)
	// SessionEnded tells the client why it will be closed.
	SessionEnded(payload json.RawMessage)
	// End closes the connection, once what was taken from it is answered. It
	// returns at once; the wire's owner calls Leave when it is closed.
	End(reason Reason)
}

// Reason says why the hub ends a connection.
type Reason int

// The reasons.
const (
	// Drained connections are to resume elsewhere, now.
	Drained Reason = iota
	// SessionEnded connections are to stay away.
	SessionEnded
	// Behind connections can't be brought up to date here: they are to resume.
	Behind
)

// Store is what delivery reads.
type Store interface {
	// Resume returns, for each place, where its stream is, and at most limit of
	// the items that follow it: none if they are not all kept.
	Resume(ctx context.Context, places []messaging.Place, limit int) ([]messaging.Resumption, error)
	Heads(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]int64, error)
	ItemsAfter(ctx context.Context, user uuid.UUID, offset int64, limit int) ([]messaging.Item, error)
}

// Bus carries news between processes, and may lose them.
type Bus interface {
	// Subscribe makes the user's news arrive in Messages until cancel is called.
	Subscribe(user uuid.UUID) (cancel func(), err error)
	// SubscribeMany makes what is for many users arrive in Messages.
	SubscribeMany() error
	// Publish sends to every other process that is subscribed to the user. It
	// keeps no part of data.
	Publish(user uuid.UUID, data []byte) error
	// PublishMany sends to every other process. It keeps no part of data.
	PublishMany(data []byte) error
	// Messages is one channel for everything that is subscribed to.
	// What does not fit in it is dropped.
	Messages() <-chan *nats.Msg
	// Connected says whether messages can arrive now.
	Connected() bool
}

// Options configure a Hub. Zero values mean the defaults.
type Options struct {
	// Instance names this process.
	Instance string
	// MaxLinks bounds the connections: 20,000.
	MaxLinks int
	// MaxLinksOfUser bounds those of one user: 100, which are more devices and
	// pages than anybody has, those included whose loss is not noticed yet.
	MaxLinksOfUser int
	// Window is the time over which connections are asked to move when the hub
	// stops. Zero closes them at once.
	Window time.Duration
}

const (
	defaultMaxLinks       = 20_000
	defaultMaxLinksOfUser = 100
	// pageSize is how many items one read of the store returns.
	pageSize = 100
	// readTimeout bounds one read of the store.
	readTimeout = 5 * time.Second
)

var (
	errFull = fault.New(fault.Unavailable, "too_many_connections",
		"This server holds as many connections as it can. Try again in a moment.").After(time.Second)
	errUserFull = fault.New(fault.TooMany, "too_many_connections",
		"You have as many connections to this server as a user may have. Close one, or try again in a moment.").After(time.Second)
	errStopping = fault.New(fault.Unavailable, "stopping",
		"This server is going away. Connect again.").After(100 * time.Millisecond)
)

// Hub holds the connections of one process. Make it with New.
type Hub struct {
	store   Store
	bus     Bus
	options Options
	log     *slog.Logger
	metrics metrics

	ctx    context.Context // ends with the hub
	cancel context.CancelFunc
	wg     sync.WaitGroup

	lookups chan *lookup  // links that attach
	replays chan struct{} // holds a token for each replay that reads the store
	fills   fillQueue
	missed  missed
	compare chan struct{} // asks for a comparison of all heads, now
	gaps    chan *user    // users with a gap that this process's own commits left

	scratch []receiver // dispatch's own

	mu       sync.RWMutex // taken before any user's
	links    map[*Link]struct{}
	users    map[uuid.UUID]*user
	sessions map[uuid.UUID][]*Link
	counts   [draining + 1]int // links by state
	fresh    map[*user]struct{}
	told     bool          // that the process stops
	stopping bool          // and takes no more links
	empty    chan struct{} // closed when the stopping hub has no link left
}

// New makes a hub; Start it.
func New(store Store, bus Bus, options Options, log *slog.Logger, registry prometheus.Registerer) *Hub {
	if options.MaxLinks == 0 {
		options.MaxLinks = defaultMaxLinks
	}
	if options.MaxLinksOfUser == 0 {
		options.MaxLinksOfUser = defaultMaxLinksOfUser
	}
	h := &Hub{
		store: store, bus: bus, options: options, log: log,
		lookups:  make(chan *lookup, maxLookups),
		replays:  make(chan struct{}, replayers),
		fills:    newFillQueue(),
		missed:   missed{heads: map[uuid.UUID]int64{}},
		compare:  make(chan struct{}, 1),
		gaps:     make(chan *user, 64),
		links:    map[*Link]struct{}{},
		users:    map[uuid.UUID]*user{},
		sessions: map[uuid.UUID][]*Link{},
		fresh:    map[*user]struct{}{},
		empty:    make(chan struct{}),
	}
	h.metrics = newMetrics(registry, h)
	return h
}

// Readers of the store at a time, by what they read for. Together they leave
// connections of the database's pool to those who write.
const (
	fillers   = 2 // to close gaps
	resumers  = 2 // to begin where links attach
	replayers = 2 // to go on where a link missed more than a page
)

// Start begins to deliver.
func (h *Hub) Start(context.Context) error {
	if err := h.bus.SubscribeMany(); err != nil {
		return err
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.dispatch)
	h.wg.Go(h.compareHeads)
	for range fillers {
		h.wg.Go(h.fill)
	}
	for range resumers {
		h.wg.Go(h.lookUp)
	}
	return nil
}

// Stop drains the connections and ends the hub. When ctx ends first, the
// connections that are left are told to resume elsewhere at once.
func (h *Hub) Stop(ctx context.Context) error {
	err := h.drain(ctx)
	h.cancel()
	h.fills.close()
	h.wg.Wait()
	return err
}

// BusReconnected tells the hub that it may have missed something, and that
// others may have missed what it could not publish.
func (h *Hub) BusReconnected() {
	h.compareAll()
	for user, head := range h.missed.take() {
		if !h.published(h.bus.Publish(user, encodeHead(head)), itemNotPublished) {
			h.missed.add(user, head)
		}
	}
}

// Stopping tells the hub that the process stops. It goes on as before until
// Stop, and says so in its Load.
func (h *Hub) Stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = true
}

// Load is what the process tells of its connections.
func (h *Hub) Load() contract.Load {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return contract.Load{
		Instance: h.options.Instance,
		Live:     h.counts[live],
		Draining: h.counts[draining],
		Pending:  h.counts[pending],
		Stopping: h.told || h.stopping,
	}
}

// Admit takes in a connection that is not authenticated yet. It is refused
// when the hub is full or stops.
func (h *Hub) Admit(wire Wire) (*Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return nil, errStopping
	}
	if len(h.links) >= h.options.MaxLinks {
		h.metrics.refused.Inc()
		return nil, errFull
	}
	l := &Link{hub: h, wire: wire}
	h.links[l] = struct{}{}
	h.counts[pending]++
	return l, nil
}

// EndSession closes the connections of a session that has ended.
func (h *Hub) EndSession(session uuid.UUID) {
	h.mu.RLock()
	links := slices.Clone(h.sessions[session])
	h.mu.RUnlock()
	payload := messaging.SessionEndedPayload(session)
	for _, l := range links {
		l.wire.SessionEnded(payload)
		l.wire.End(SessionEnded)
	}
}

// dispatch takes what the bus brings, and gives gaps that don't close by
// themselves to the fillers.
func (h *Hub) dispatch() {
	// gapPatience is how long an item may be overtaken by later ones of another
	// process, before it is read from the store.
	const gapPatience = 25 * time.Millisecond
	var (
		open     = map[*user]struct{}{}
		patience = time.NewTimer(gapPatience)
		messages = h.bus.Messages()
	)
	defer patience.Stop()
	note := func(u *user) {
		if len(open) == 0 {
			patience.Reset(gapPatience)
		}
		open[u] = struct{}{}
	}
	for {
		select {
		case <-h.ctx.Done():
			return
		case m := <-messages:
			if len(messages) >= cap(messages)-1 {
				h.metrics.dropped.WithLabelValues("bus_overflow").Inc()
				h.compareAll() // the channel was full: something may be dropped
			}
			h.receive(m, note)
		case u := <-h.gaps:
			note(u)
		case <-patience.C:
			for u := range open {
				if u.behind() {
					h.fills.add(u)
				}
			}
			clear(open)
		}
	}
}

// receive handles a message, and calls behind with users who now have a gap.
func (h *Hub) receive(m *nats.Msg, behind func(*user)) {
	if strings.HasSuffix(m.Subject, manySuffix) {
		h.receiveMany(m.Data, behind)
		return
	}
	id, err := userOf(m.Subject)
	if err != nil {
		h.log.Warn("message of no user from the bus", "subject", m.Subject)
		return
	}
	h.mu.RLock()
	u := h.users[id]
	h.mu.RUnlock()
	if u == nil {
		return
	}
	got, err := decodeNews(id, m.Data)
	if err != nil {
		h.log.Warn("unreadable message from the bus", "error", err)
		return
	}
	if got.signal.Kind != "" {
		u.signal(got.signal)
	}
	var given tally
	if u.accept(got.items, got.head, &given) {
		behind(u)
	}
	if n := len(got.items); n > 0 {
		h.metrics.countLive(&given, got.items[n-1].Kind, got.items[n-1].Payload)
	}
}

func (h *Hub) receiveMany(data []byte, behind func(*user)) {
	what, kind, payload, receivers, err := decodeMany(data, h.scratch)
	if err != nil {
		h.log.Warn("unreadable message to many from the bus", "error", err)
		return
	}
	switch what {
	case manyItems:
		h.spread(kind, payload, receivers, behind)
	case manySignal:
		h.spreadSignal(messaging.Signal{Kind: kind, Payload: payload}, receivers)
	default: // of a later release
		return
	}
	clear(receivers)
	h.scratch = receivers
}
