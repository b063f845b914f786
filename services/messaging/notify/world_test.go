package notify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// The tests of this file's world run in synctest bubbles: their time is virtual.

// world is a store, a bus and a back end, and the processes that work on them.
type world struct {
	t *testing.T

	mu       sync.Mutex
	messages []Message
	members  map[uuid.UUID][]uuid.UUID // by conversation
	read     map[member]int64
	notified map[member]int64
	state    State
	until    time.Time // of the lease
	storeErr error

	connected map[uuid.UUID]bool
	busErr    error

	// answer decides about each request; nil takes them all.
	answer  func(n Notification) error
	takes   time.Duration // how long each request takes
	sent    []Notification
	asked   int // requests, taken or not
	workers []*process
}

type member struct{ conversation, user uuid.UUID }

// process is one that notifies, and can be killed.
type process struct {
	*world
	worker *Worker
	cancel context.CancelFunc
	done   chan struct{}
	dead   chan struct{}
}

var errAway = errors.New("it is away")

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, members: map[uuid.UUID][]uuid.UUID{}, read: map[member]int64{}, notified: map[member]int64{},
		connected: map[uuid.UUID]bool{},
	}
}

func (w *world) start() *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{world: w, cancel: cancel, done: make(chan struct{}), dead: make(chan struct{})}
	p.worker = New(p, p, p, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	w.workers = append(w.workers, p)
	go func() {
		defer close(p.done)
		if err := p.worker.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	return p
}

// stop stops every process as it should.
func (w *world) stop() {
	for _, p := range w.workers {
		p.cancel()
		<-p.done
	}
}

// kill leaves whatever the process is at undone: nothing that it does reaches
// anybody any more.
func (p *process) kill() { close(p.dead) }

// alive is an error in a process that was killed.
func (p *process) alive(ctx context.Context) error {
	select {
	case <-p.dead:
		return errAway
	default:
		return ctx.Err()
	}
}

// conversation makes one with n members.
func (w *world) conversation(n int) (id uuid.UUID, members []uuid.UUID) {
	id = uuid.New()
	for range n {
		members = append(members, uuid.New())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[id] = members
	return id, members
}

// send writes a message now, as a commit a moment later would.
func (w *world) send(conversation, sender uuid.UUID) Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := Message{ConversationID: conversation, ID: uuid.New(), SenderID: sender, SentAt: time.Now(), Seq: 1}
	for _, other := range w.messages {
		if other.ConversationID == conversation {
			m.Seq = other.Seq + 1
		}
	}
	w.messages = append(w.messages, m)
	return m
}

func (w *world) markRead(conversation, user uuid.UUID, seq int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.read[member{conversation, user}] = seq
}

func (w *world) connect(user uuid.UUID, connected bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.connected[user] = connected
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// taken returns what the back end took, in order, and forgets it.
func (w *world) taken() []Notification {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.sent
	w.sent = nil
	return out
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// The back end.

func (p *process) Send(ctx context.Context, n Notification) error {
	p.mu.Lock()
	p.asked++
	takes := p.takes
	if p.alive(ctx) == nil && (p.state.Holder != p.worker.self || !time.Now().Before(p.until)) {
		p.t.Errorf("%s is sent by a process that does not hold the work", n.ID())
	}
	p.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.alive(ctx); err != nil {
		return err
	}
	if p.answer != nil {
		if err := p.answer(n); err != nil {
			return err
		}
	}
	p.sent = append(p.sent, n)
	return nil
}

// The bus.

func (p *process) Absent(_ context.Context, users []uuid.UUID) (map[uuid.UUID]bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busErr != nil {
		return nil, p.busErr
	}
	out := map[uuid.UUID]bool{}
	for _, user := range users {
		if !p.connected[user] {
			out[user] = true
		}
	}
	return out, nil
}

// The store.

// locked takes the store's lock, unless the store or the process is away.
func (p *process) locked(ctx context.Context) error {
	if err := p.alive(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	if p.storeErr != nil {
		p.mu.Unlock()
		return p.storeErr
	}
	return nil
}

func (p *process) State(ctx context.Context) (State, error) {
	if err := p.locked(ctx); err != nil {
		return State{}, err
	}
	defer p.mu.Unlock()
	now := time.Now()
	if p.state.Places[Soon].At.IsZero() {
		p.state.Places = [2]Place{{At: now}, {At: now}}
	}
	state := p.state
	state.Now, state.Held = now, now.Before(p.until)
	return state, nil
}

func (p *process) Hold(ctx context.Context, holder uuid.UUID, lease time.Duration) error {
	if err := p.locked(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if p.state.Holder != holder && time.Now().Before(p.until) {
		return ErrLost
	}
	p.state.Holder, p.until = holder, time.Now().Add(lease)
	return nil
}

func (p *process) Record(ctx context.Context, holder uuid.UUID, lease time.Duration, sent []Notification) error {
	if err := p.Hold(ctx, holder, lease); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range sent {
		m := member{n.ConversationID, n.UserID}
		p.notified[m] = max(p.notified[m], n.Seq)
	}
	return nil
}

func (p *process) Move(ctx context.Context, holder uuid.UUID, lease time.Duration, look Look, to Place) error {
	if err := p.Hold(ctx, holder, lease); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if to.At.Before(p.state.Places[look].At) {
		p.t.Errorf("the place moves back, from %v to %v", p.state.Places[look], to)
	}
	p.state.Places[look] = to
	return nil
}

func (p *process) Release(ctx context.Context, holder uuid.UUID) error {
	if err := p.locked(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if p.state.Holder == holder {
		p.until = time.Time{}
	}
	return nil
}

// before is the order of messages.
func before(m Message, p Place) bool {
	if c := m.SentAt.Compare(p.At); c != 0 {
		return c < 0
	}
	if c := compare(m.ConversationID, p.Conversation); c != 0 {
		return c < 0
	}
	return m.Seq <= p.Seq
}

func compare(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

func (p *process) Messages(ctx context.Context, after Place, until time.Time, limit int) ([]Message, error) {
	if err := p.locked(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	var out []Message
	for _, m := range p.messages {
		if !before(m, after) && m.SentAt.Before(until) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Message) int {
		return cmp.Or(a.SentAt.Compare(b.SentAt), compare(a.ConversationID, b.ConversationID), cmp.Compare(a.Seq, b.Seq))
	})
	return out[:min(limit, len(out))], nil
}

func (p *process) Members(ctx context.Context, conversations []uuid.UUID) ([]Member, error) {
	if err := p.locked(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	var out []Member
	for _, id := range conversations {
		for _, user := range p.members[id] {
			m := member{id, user}
			out = append(out, Member{id, user, max(p.read[m], p.notified[m])})
		}
	}
	return out, nil
}

func (p *process) CountUnread(ctx context.Context, of []Notification) error {
	if err := p.locked(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	for i := range of {
		n := &of[i]
		n.Unread = 0
		for _, m := range p.messages {
			if m.ConversationID == n.ConversationID && m.SenderID != n.UserID && m.Seq > p.read[member{n.ConversationID, n.UserID}] {
				n.Unread++
			}
		}
	}
	return nil
}

// texts are short forms of notifications, sorted, with names for users: what is
// sent together may arrive in any order.
func texts(all []Notification, names map[uuid.UUID]string) []string {
	var out []string
	for _, n := range all {
		out = append(out, fmt.Sprintf("%s: %d, %d unread", names[n.UserID], n.Seq, n.Unread))
	}
	slices.Sort(out)
	return out
}
