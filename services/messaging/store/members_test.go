package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging"
)

// support opens a support conversation of the given members, the first of whom
// is an agent.
func (f fixture) support(t *testing.T, users ...uuid.UUID) uuid.UUID {
	t.Helper()
	c := messaging.Conversation{
		ID: uuid.Must(uuid.NewV7()), Kind: messaging.ConversationSupport, Title: "Lost keys",
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
	for i, user := range users {
		role := messaging.RoleUser
		if i == 0 {
			role = messaging.RoleSupport
		}
		c.Members = append(c.Members, messaging.Member{UserID: user, Role: role})
	}
	items, err := f.Open(t.Context(), c, users[len(users)-1])
	if err != nil {
		t.Fatal(err)
	}
	if len(items) != len(users) {
		t.Errorf("%d members are told %d times", len(users), len(items))
	}
	return c.ID
}

// add and remove do as they are told.
func (f fixture) add(t testing.TB, conversation, user uuid.UUID) []messaging.Item {
	t.Helper()
	items, err := f.ChangeMembers(context.Background(), conversation, user, func(c messaging.Conversation) (*messaging.MemberChange, error) {
		return &messaging.MemberChange{Member: messaging.Member{UserID: user, Role: messaging.RoleUser, ReadSeq: c.LastSeq}}, nil
	})
	if err != nil {
		t.Error(err)
	}
	return items
}

func (f fixture) remove(t testing.TB, conversation, user uuid.UUID) []messaging.Item {
	t.Helper()
	items, err := f.ChangeMembers(context.Background(), conversation, user, func(messaging.Conversation) (*messaging.MemberChange, error) {
		return &messaging.MemberChange{Member: messaging.Member{UserID: user, Role: messaging.RoleUser}, Removed: true}, nil
	})
	if err != nil {
		t.Error(err)
	}
	return items
}

func (f fixture) blocks(t testing.TB, blocker, blocked uuid.UUID) {
	t.Helper()
	block := messaging.Block{ID: uuid.Must(uuid.NewV7()), BlockerID: blocker, BlockedID: blocked, CreatedAt: time.Now()}
	if err := f.Block(context.Background(), block); err != nil {
		t.Error(err)
	}
}

func (f fixture) unblocks(t testing.TB, blocker, blocked uuid.UUID) {
	t.Helper()
	if err := f.Unblock(context.Background(), blocker, blocked); err != nil {
		t.Error(err)
	}
}

// isBlocked reads a conversation's flag.
func (f fixture) isBlocked(t testing.TB, conversation uuid.UUID) (blocked bool) {
	t.Helper()
	if err := f.pool.QueryRow(context.Background(), "SELECT blocked FROM conversations WHERE id = $1", conversation).Scan(&blocked); err != nil {
		t.Fatal(err)
	}
	return blocked
}

func (f fixture) writeOne(t testing.TB, d messaging.Draft) (messaging.Sent, error) {
	t.Helper()
	outcomes, _, err := f.Write(context.Background(), []messaging.Draft{d})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes[0].Sent, outcomes[0].Err
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user, third := uuid.New(), uuid.New(), uuid.New()
	p := pair{conversation: f.support(t, agent, user)}
	if _, err := f.writeOne(t, p.draft(user, "hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.writeOne(t, p.draft(third, "too early")); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("who is no member yet: %v", err)
	}
	if items := f.add(t, p.conversation, third); len(items) != 3 {
		t.Errorf("told %d times of a third member", len(items))
	}
	if _, err := f.writeOne(t, p.draft(third, "here")); err != nil {
		t.Error(err)
	}
	c, err := f.Conversation(t.Context(), p.conversation, third)
	if err != nil || c.Unread != 0 || c.TaskID != uuid.Nil || len(c.Members) != 3 {
		t.Errorf("to the newcomer it is %+v, %v", c, err)
	}
	if items := f.remove(t, p.conversation, third); len(items) != 3 {
		t.Errorf("told %d times of a third who leaves", len(items))
	}
	if _, err := f.writeOne(t, p.draft(third, "too late")); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("who is no member any more: %v", err)
	}
	if _, err := f.Head(t.Context(), p.conversation, third); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("a head for who is no member any more: %v", err)
	}
	if _, err := f.Conversation(t.Context(), p.conversation, third); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("a conversation for who is no member any more: %v", err)
	}
	if items, err := f.MarkRead(t.Context(), p.conversation, third, 2); len(items) != 0 || err != nil {
		t.Errorf("read by who is no member any more: %d items, %v", len(items), err)
	}
	var events []string
	for _, item := range f.checkStream(t, third) {
		var payload struct{ Event string }
		if err := json.Unmarshal(item.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		events = append(events, string(item.Kind)+" "+payload.Event)
	}
	if diff := cmp.Diff([]string{"conversation member_added", "message ", "conversation member_removed"}, events); diff != "" {
		t.Error(diff)
	}
}

// A batch that waits for a conversation while a member of it is removed neither
// writes the member's draft nor tells the member of the others'.
func TestWhoIsRemovedMeanwhileWritesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user := uuid.New(), uuid.New()
	p := pair{conversation: f.support(t, agent, user, uuid.New())}
	deciding, decided := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := f.ChangeMembers(context.Background(), p.conversation, user, func(messaging.Conversation) (*messaging.MemberChange, error) {
			close(deciding)
			<-decided
			return &messaging.MemberChange{Member: messaging.Member{UserID: user}, Removed: true}, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-deciding
	wg.Go(func() {
		outcomes, items, err := f.Write(context.Background(), []messaging.Draft{p.draft(user, "mine"), p.draft(agent, "ours")})
		if err != nil {
			t.Error(err)
			return
		}
		if !errors.Is(outcomes[0].Err, messaging.ErrNoConversation) || outcomes[1].Err != nil {
			t.Errorf("outcomes %+v", outcomes)
		}
		for _, item := range items {
			if item.UserID == user {
				t.Error("who was removed is told of a message")
			}
		}
	})
	if err := f.awaitLockWaiter(t); err != nil {
		t.Error(err)
	}
	close(decided)
	wg.Wait()
}

// awaitLockWaiter waits until a session of the fixture waits for a lock. It is
// below the time that a service may let a transaction idle.
func (f fixture) awaitLockWaiter(t *testing.T) error {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); <-tick.C {
		var waiting int
		err := f.pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE usename = current_user AND datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		if err != nil || waiting > 0 {
			return err
		}
	}
	return errors.New("nobody waits for a lock")
}

func TestTheSystemWritesOnceOfATaskThatChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, other := f.open(t), f.open(t)
	f.blocks(t, p.client, p.tasker) // not the system
	var records []events.Record
	for i, q := range []pair{other, p, p} {
		data, err := json.Marshal(events.TaskChanged{
			TaskID: q.task, ClientID: q.client, TaskerID: &q.tasker, ActorID: q.client, From: "open", To: "assigned", Version: int64(i),
		})
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, events.Record{ID: uuid.New(), Type: events.TypeTaskChanged, Data: data})
	}
	inbox := f.NewInbox(func([]messaging.Item) {})
	for range 2 {
		if err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error { return inbox.Handle(t.Context(), tx, records) }); err != nil {
			t.Fatal(err)
		}
	}
	messages, err := f.Messages(t.Context(), p.conversation, 10, 10)
	if err != nil || len(messages) != 2 {
		t.Fatalf("messages %+v, %v", messages, err)
	}
	newest := messages[0]
	if !newest.System() || newest.Seq != 2 || newest.ClientID != records[2].ID {
		t.Errorf("message %+v", newest)
	}
	var body map[string]any
	if err := json.Unmarshal(newest.Body, &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "task_changed", "from": "open", "to": "assigned", "task_id": p.task.String(), "version": 2.0}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	var heard []messaging.Item
	for _, item := range f.checkStream(t, p.tasker) {
		if item.Kind == messaging.KindSystemMessage {
			heard = append(heard, item)
		}
	}
	if len(heard) != 2 {
		t.Fatalf("told of %+v", heard)
	}
	var payload map[string]any
	if err := json.Unmarshal(heard[1].Payload, &payload); err != nil {
		t.Fatal(err)
	}
	if payload["system"] != true || payload["seq"] != 2.0 || payload["id"] != newest.ID.String() {
		t.Errorf("payload %v", payload)
	}
	for _, absent := range []string{"from", "client_id"} {
		if value, ok := payload[absent]; ok {
			t.Errorf("%s is there: %v", absent, value)
		}
	}
	// Nobody has read them, and nobody wrote them.
	c, err := f.Conversation(t.Context(), p.conversation, p.client)
	if err != nil || c.Unread != 2 || c.LastSeq != 2 {
		t.Errorf("conversation %+v, %v", c, err)
	}
}

// The consumer of events locks several conversations, as senders do.
func TestEventsAndSendersDoNotDeadlock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pairs := []pair{f.open(t), f.open(t), f.open(t), f.open(t)}
	const rounds = 10
	var wg sync.WaitGroup
	wg.Go(func() {
		inbox := f.NewInbox(func([]messaging.Item) {})
		for round := range rounds {
			var records []events.Record
			for i := range pairs {
				p := pairs[(i+round)%len(pairs)]
				data, _ := json.Marshal(events.TaskChanged{TaskID: p.task, ClientID: p.client, TaskerID: &p.tasker, To: "assigned"})
				records = append(records, events.Record{ID: uuid.New(), Type: events.TypeTaskChanged, Data: data})
			}
			if err := pgx.BeginFunc(context.Background(), f.pool, func(tx pgx.Tx) error {
				return inbox.Handle(context.Background(), tx, records)
			}); err != nil {
				t.Error(err)
			}
		}
	})
	for w := range 3 {
		wg.Go(func() {
			for round := range rounds {
				var drafts []messaging.Draft
				for i := range pairs {
					p := pairs[(i+w+round)%len(pairs)]
					drafts = append(drafts, p.draft(p.client, "a"))
				}
				if _, _, err := f.Write(context.Background(), drafts); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, p := range pairs {
		messages, err := f.Messages(t.Context(), p.conversation, 1<<62, 1000)
		if err != nil || len(messages) != 4*rounds || messages[0].Seq != 4*rounds {
			t.Errorf("%d messages, %v", len(messages), err)
		}
		f.checkStream(t, p.client)
	}
}

func TestUnreadMessagesAreOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	quiet := pair{client: p.client, tasker: uuid.New(), task: uuid.New()}
	f.offer(t, quiet)
	for _, sender := range []uuid.UUID{p.client, p.tasker, p.client, p.tasker, p.tasker} {
		if _, err := f.writeOne(t, p.draft(sender, "x")); err != nil {
			t.Fatal(err)
		}
	}
	check := func(user uuid.UUID, want int64) {
		t.Helper()
		c, err := f.Conversation(t.Context(), p.conversation, user)
		if err != nil || c.Unread != want {
			t.Errorf("unread %d, %v, want %d", c.Unread, err, want)
		}
		u, err := f.Unread(t.Context(), user)
		wantAll := messaging.Unread{Messages: want}
		if want > 0 {
			wantAll.Conversations = 1
		}
		if err != nil || u != wantAll {
			t.Errorf("unread in all %+v, %v, want %+v", u, err, wantAll)
		}
		found, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: user, Unread: true, Limit: 10})
		if err != nil || len(found) != int(wantAll.Conversations) {
			t.Errorf("%d conversations with unread messages, %v", len(found), err)
		}
	}
	check(p.client, 3)
	check(p.tasker, 2)
	if _, err := f.MarkRead(t.Context(), p.conversation, p.client, 4); err != nil {
		t.Fatal(err)
	}
	check(p.client, 1)
	if _, err := f.MarkRead(t.Context(), p.conversation, p.client, 5); err != nil {
		t.Fatal(err)
	}
	check(p.client, 0)
}
