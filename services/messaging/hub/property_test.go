package hub_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/store"
)

func TestMain(m *testing.M) {
	// A check is a story of a few seconds; -rapid.checks tells more of them.
	if err := flag.Set("rapid.checks", "12"); err != nil {
		panic(err)
	}
	testkit.Main(m)
}

// Whatever is sent, repeated, dropped, resumed, lost on the bus or not published
// at all, on pods that come and go: at the end every client has each
// acknowledged message of its conversations once, in the order of its stream,
// and a repeated message got the first one's answer.
func TestEveryClientHasEveryMessageOnce(t *testing.T) {
	t.Parallel()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()})
	pool := database.Pool(t, contract.ComponentMessaging)
	server := testkit.NewBus(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt, pool, server)
		defer m.end()
		rt.Repeat(map[string]func(*rapid.T){
			"send":         m.send,
			"send at once": m.sendAtOnce,
			"send again":   m.sendAgain,
			"drop":         m.drop,
			"resume":       m.resume,
			"lose":         m.lose,
			"restart":      m.restart,
			"":             m.check,
		})
		m.settle(rt)
	})
}

// lossy is a connection to the bus that loses what is published when it is told
// to, as a bus may.
type lossy struct {
	*hub.NATS
	loses atomic.Bool
}

func (b *lossy) Publish(user uuid.UUID, data []byte) error {
	if b.loses.Load() {
		return nil
	}
	return b.NATS.Publish(user, data)
}

func (b *lossy) PublishMany(data []byte) error {
	if b.loses.Load() {
		return nil
	}
	return b.NATS.PublishMany(data)
}

type pod struct {
	*hub.Hub
	bus  *lossy
	conn *nats.Conn
}

// client is a user's, and what it was told so far.
type client struct {
	user uuid.UUID

	mu      sync.Mutex
	current *wire // nil while it is away
	log     []messaging.Item
	wrong   []string
	changed chan struct{} // holds a token when something came
}

func (c *client) last() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastLocked()
}

func (c *client) lastLocked() int64 {
	if len(c.log) == 0 {
		return 0
	}
	return c.log[len(c.log)-1].Offset
}

// wire is one connection of a client.
type wire struct {
	client *client
	link   *hub.Link
	left   bool // under client.mu
}

func (w *wire) Deliver(items []messaging.Item) {
	c := w.client
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, item := range items {
		switch {
		case w.left:
			c.wrong = append(c.wrong, fmt.Sprintf("item %d on a connection that was left", item.Offset))
		case item.Offset != c.lastLocked()+1:
			c.wrong = append(c.wrong, fmt.Sprintf("item %d after %d", item.Offset, c.lastLocked()))
		case item.UserID != c.user:
			c.wrong = append(c.wrong, fmt.Sprintf("an item of %s", item.UserID))
		}
		c.log = append(c.log, item)
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (*wire) Signal(messaging.Signal)           {}
func (*wire) Room(ctx context.Context) error    { return ctx.Err() }
func (*wire) Move(time.Duration, time.Duration) {}
func (*wire) SessionEnded(json.RawMessage)      {}

func (w *wire) End(hub.Reason) { go w.leave() }

func (w *wire) leave() {
	w.link.Leave()
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	w.left = true
	if w.client.current == w {
		w.client.current = nil
	}
}

type conversation struct {
	id      uuid.UUID
	members []*client
}

// sent is a message that was acknowledged.
type sent struct {
	draft  messaging.Draft
	answer messaging.Sent
	to     []*client
}

type model struct {
	t      *testing.T
	pool   *pgxpool.Pool
	server *bus.Server
	pods   [2]*pod
	store  *store.Store

	clients       []*client
	conversations []conversation
	sent          []sent
}

// large is how many members a conversation has whose messages go to all pods at
// once; most of them are never connected.
const large = 20

func newModel(t *testing.T, rt *rapid.T, pool *pgxpool.Pool, server *bus.Server) *model {
	t.Helper()
	m := &model{t: t, pool: pool, server: server, store: store.New(pool, time.Now)}
	for i := range m.pods {
		m.pods[i] = m.newPod(rt)
	}
	for range 5 {
		m.clients = append(m.clients, &client{user: uuid.New(), changed: make(chan struct{}, 1)})
	}
	for _, members := range [][]int{{0, 1}, {0, 2}, {1, 2, 3, 4}} {
		c := conversation{id: uuid.Must(uuid.NewV7())}
		for _, i := range members {
			c.members = append(c.members, m.clients[i])
		}
		m.conversations = append(m.conversations, c)
		m.insert(rt, c)
	}
	return m
}

func (m *model) insert(rt *rapid.T, c conversation) {
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO conversations (id, task_id, tasker_id, title) VALUES ($1, $2, $3, '')`, c.id, uuid.New(), uuid.New()); err != nil {
			return err
		}
		users := make([]uuid.UUID, 0, large)
		for _, member := range c.members {
			users = append(users, member.user)
		}
		for len(c.members) > 2 && len(users) < large {
			users = append(users, uuid.New())
		}
		_, err := tx.Exec(ctx, `INSERT INTO members (conversation_id, user_id, role) SELECT $1, unnest($2::uuid[]), 'client'`, c.id, users)
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
}

func (m *model) newPod(rt *rapid.T) *pod {
	log := testkit.Logger(m.t)
	conn, err := bus.Connect(bus.Options{URLs: []string{m.server.URL()}, Name: "pod", NoEcho: true, Log: log})
	if err != nil {
		rt.Fatal(err)
	}
	p := &pod{conn: conn, bus: &lossy{NATS: hub.NewNATS(conn, events.SubjectsOf("property"), log)}}
	p.Hub = hub.New(m.store, p.bus, hub.Options{}, log, prometheus.NewRegistry())
	if err := p.Start(context.Background()); err != nil {
		rt.Fatal(err)
	}
	return p
}

// stop ends a pod and its clients' connections.
func (m *model) stop(p *pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		m.t.Error(err)
	}
	p.conn.Close()
}

func (m *model) end() {
	for _, p := range m.pods {
		m.stop(p)
	}
}

func (m *model) anyPod(rt *rapid.T) *pod { return m.pods[rapid.IntRange(0, 1).Draw(rt, "pod")] }

func (m *model) anyDraft(rt *rapid.T) (messaging.Draft, []*client) {
	c := rapid.SampledFrom(m.conversations).Draw(rt, "conversation")
	sender := rapid.SampledFrom(c.members).Draw(rt, "sender")
	return messaging.Draft{
		ConversationID: c.id, SenderID: sender.user, ClientID: uuid.New(),
		Body: json.RawMessage(fmt.Sprintf(`{"n":%d}`, rapid.IntRange(0, 1000).Draw(rt, "body"))),
	}, c.members
}

// write commits drafts, and announces them unless the pod dies before.
func (m *model) write(p *pod, drafts []messaging.Draft, dies bool) ([]messaging.Sent, error) {
	outcomes, items, err := m.store.Write(context.Background(), drafts)
	if err != nil {
		return nil, err
	}
	if !dies {
		p.Announce(items)
	}
	answers := make([]messaging.Sent, 0, len(outcomes))
	for _, o := range outcomes {
		if o.Err != nil {
			return nil, o.Err
		}
		answers = append(answers, o.Sent)
	}
	return answers, nil
}

func (m *model) send(rt *rapid.T) {
	var drafts []messaging.Draft
	var to [][]*client
	for range rapid.IntRange(1, 4).Draw(rt, "drafts") {
		draft, members := m.anyDraft(rt)
		drafts, to = append(drafts, draft), append(to, members)
	}
	answers, err := m.write(m.anyPod(rt), drafts, rapid.IntRange(0, 5).Draw(rt, "dies") == 0)
	if err != nil {
		rt.Fatal(err)
	}
	for i, answer := range answers {
		m.sent = append(m.sent, sent{drafts[i], answer, to[i]})
	}
}

// sendAtOnce has both pods write into the same conversations at a time.
func (m *model) sendAtOnce(rt *rapid.T) {
	var drafts [2][]messaging.Draft
	var to [2][][]*client
	for i := range drafts {
		for range rapid.IntRange(1, 5).Draw(rt, "drafts") {
			draft, members := m.anyDraft(rt)
			drafts[i], to[i] = append(drafts[i], draft), append(to[i], members)
		}
	}
	var (
		answers [2][]messaging.Sent
		errs    [2]error
		wg      sync.WaitGroup
	)
	for i, p := range m.pods {
		wg.Go(func() { answers[i], errs[i] = m.write(p, drafts[i], false) })
	}
	wg.Wait()
	for i := range drafts {
		if errs[i] != nil {
			rt.Fatal(errs[i])
		}
		for k, answer := range answers[i] {
			m.sent = append(m.sent, sent{drafts[i][k], answer, to[i][k]})
		}
	}
}

func (m *model) sendAgain(rt *rapid.T) {
	if len(m.sent) == 0 {
		rt.Skip("nothing was sent")
	}
	first := rapid.SampledFrom(m.sent).Draw(rt, "message")
	answers, err := m.write(m.anyPod(rt), []messaging.Draft{first.draft}, false)
	if err != nil {
		rt.Fatal(err)
	}
	want := first.answer
	want.Duplicate = true
	if diff := gocmp.Diff(want, answers[0]); diff != "" {
		rt.Errorf("a repeated message (-first +again):\n%s", diff)
	}
}

func (m *model) drop(rt *rapid.T) {
	c := rapid.SampledFrom(m.clients).Draw(rt, "client")
	c.mu.Lock()
	w := c.current
	c.mu.Unlock()
	if w == nil {
		rt.Skip("it is away")
	}
	w.leave()
}

func (m *model) resume(rt *rapid.T) {
	m.connect(rt, rapid.SampledFrom(m.clients).Draw(rt, "client"), m.anyPod(rt))
}

// connect opens a client's next connection, and closes the one before.
func (m *model) connect(rt *rapid.T, c *client, p *pod) {
	c.mu.Lock()
	before := c.current
	c.mu.Unlock()
	if before != nil {
		before.leave()
	}
	w := &wire{client: c}
	link, err := p.Admit(w)
	if err != nil {
		rt.Fatal(err)
	}
	w.link = link
	c.mu.Lock()
	c.current = w
	c.mu.Unlock()
	from := c.last()
	at, err := link.Attach(context.Background(), c.user, uuid.New(), &from)
	if err != nil {
		rt.Fatal(err)
	}
	if !at.Recovered || at.Offset != from {
		rt.Errorf("attached at %+v, from %d", at, from)
	}
	link.Start()
}

func (m *model) lose(rt *rapid.T) {
	m.anyPod(rt).bus.loses.Store(rapid.Bool().Draw(rt, "loses"))
}

func (m *model) restart(rt *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(rt, "pod")
	m.stop(m.pods[i])
	m.pods[i] = m.newPod(rt)
}

// check holds at every moment.
func (m *model) check(rt *rapid.T) {
	for i, c := range m.clients {
		c.mu.Lock()
		wrong := slices.Clone(c.wrong)
		c.mu.Unlock()
		if len(wrong) > 0 {
			rt.Fatalf("client %d: %v", i, wrong)
		}
	}
}

// settle lets every client come back and get everything, and looks at it.
func (m *model) settle(rt *rapid.T) {
	for _, c := range m.clients {
		m.connect(rt, c, m.anyPod(rt))
	}
	for _, p := range m.pods {
		p.bus.loses.Store(false)
		p.BusReconnected() // as it says when it noticed that something was lost
	}
	late := time.After(30 * time.Second)
	for i, c := range m.clients {
		heads, err := m.store.Heads(context.Background(), []uuid.UUID{c.user})
		if err != nil {
			rt.Fatal(err)
		}
		for c.last() < heads[c.user] {
			select {
			case <-c.changed:
			case <-late:
				rt.Fatalf("client %d has items up to %d of %d", i, c.last(), heads[c.user])
			}
		}
	}
	m.check(rt)
	for i, c := range m.clients {
		m.compare(rt, i, c)
	}
}

// compare compares a client's log with what was acknowledged.
func (m *model) compare(rt *rapid.T, i int, c *client) {
	type message struct {
		Conversation, ID uuid.UUID
		Seq              int64
		Body             string
	}
	var want, got []message
	for _, s := range m.sent {
		if slices.Contains(s.to, c) {
			want = append(want, message{s.draft.ConversationID, s.answer.ID, s.answer.Seq, string(s.draft.Body)})
		}
	}
	next := map[uuid.UUID]int64{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, item := range c.log {
		var p struct {
			ConversationID uuid.UUID        `json:"conversation_id"`
			Seq            int64            `json:"seq"`
			ID             uuid.UUID        `json:"id"`
			Body           map[string]int64 `json:"body"`
		}
		if err := json.Unmarshal(item.Payload, &p); err != nil {
			rt.Fatalf("client %d: %s: %v", i, item.Payload, err)
		}
		if next[p.ConversationID]++; p.Seq != next[p.ConversationID] {
			rt.Errorf("client %d: seq %d of %s comes as number %d", i, p.Seq, p.ConversationID, next[p.ConversationID])
		}
		got = append(got, message{p.ConversationID, p.ID, p.Seq, fmt.Sprintf(`{"n":%d}`, p.Body["n"])})
	}
	order := func(a, b message) int {
		return cmp.Or(cmp.Compare(a.Conversation.String(), b.Conversation.String()), cmp.Compare(a.Seq, b.Seq))
	}
	slices.SortFunc(want, order)
	slices.SortFunc(got, order)
	if diff := gocmp.Diff(want, got); diff != "" {
		rt.Errorf("client %d (-acknowledged +delivered):\n%s", i, diff)
	}
}
