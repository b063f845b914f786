package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

type fixture struct {
	*store.Store
	pool     *pgxpool.Pool
	database *testkit.Database
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()})
	pool := database.Pool(t, contract.ComponentMessaging)
	return fixture{store.New(pool, time.Now), pool, database}
}

// admin connects as the role that migrates.
func (f fixture) admin(t *testing.T) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(f.database.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = pgx.Identifier{contract.DatabaseSchema(f.database.Installation, contract.ComponentMessaging)}.Sanitize()
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// pair is a conversation and its members.
type pair struct{ client, tasker, task, conversation uuid.UUID }

func (f fixture) open(t *testing.T) pair {
	t.Helper()
	p := pair{client: uuid.New(), tasker: uuid.New(), task: uuid.New()}
	f.offer(t, p)
	found, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: p.client, Limit: 1})
	if err != nil || len(found) != 1 {
		t.Fatalf("conversations of a new client: %v, %v", found, err)
	}
	p.conversation = found[0].ID
	return p
}

// offer handles an event, and returns what is announced after its commit.
func (f fixture) offer(t *testing.T, p pair) []messaging.Item {
	t.Helper()
	return f.handle(t, events.OfferMade{TaskID: p.task, OfferID: uuid.New(), ClientID: p.client, TaskerID: p.tasker, Title: "Shelves"})
}

func (f fixture) handle(t *testing.T, payload events.Payload) []messaging.Item {
	t.Helper()
	data, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	var announced []messaging.Item
	inbox := f.NewInbox(func(items []messaging.Item) { announced = append(announced, items...) })
	record := events.Record{ID: uuid.New(), Type: payload.EventType(), Data: data}
	err = pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		return inbox.Handle(t.Context(), tx, []events.Record{record})
	})
	if err != nil {
		t.Fatal(err)
	}
	if announced != nil {
		t.Fatal("announced before the commit")
	}
	inbox.After()
	return announced
}

func (p pair) draft(sender uuid.UUID, text string) messaging.Draft {
	return messaging.Draft{
		ConversationID: p.conversation, SenderID: sender, ClientID: uuid.New(),
		Body: json.RawMessage(fmt.Sprintf(`{"text":%q}`, text)),
	}
}

func TestWriteAnswersEveryDraftOfABatchByItself(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, other := f.open(t), f.open(t)
	earlier := p.draft(p.client, "earlier")
	first, _, err := f.Write(t.Context(), []messaging.Draft{earlier})
	if err != nil {
		t.Fatal(err)
	}

	changed := earlier
	changed.Body = json.RawMessage(`{"text":"changed"}`)
	reordered := earlier
	reordered.Body = json.RawMessage(`{ "text" : "earlier" }`)
	stranger := p.draft(other.client, "stranger")
	nowhere := p.draft(p.client, "nowhere")
	nowhere.ConversationID = uuid.New()
	good, twice := p.draft(p.tasker, "good"), p.draft(p.client, "")
	twice.Body = json.RawMessage(`{"text":"twice","n":1}`)
	twiceChanged, twiceReordered := twice, twice
	twiceChanged.Body = json.RawMessage(`{"text":"not the same"}`)
	twiceReordered.Body = json.RawMessage(`{"n":1,"text":"twice"}`)
	elsewhere := other.draft(other.tasker, "elsewhere")

	outcomes, items, err := f.Write(t.Context(), []messaging.Draft{
		changed, reordered, stranger, nowhere, good, twice, twice, twiceChanged, twiceReordered, elsewhere,
	})
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Seq       int64
		Duplicate bool
		Code      error
	}
	want := []answer{
		{Code: messaging.ErrClientIDReused},
		{Seq: 1, Duplicate: true},
		{Code: messaging.ErrNoConversation},
		{Code: messaging.ErrNoConversation},
		{Seq: 2},
		{Seq: 3},
		{Seq: 3, Duplicate: true},
		{Code: messaging.ErrClientIDReused},
		{Seq: 3, Duplicate: true},
		{Seq: 1},
	}
	for i, w := range want {
		got := answer{outcomes[i].Sent.Seq, outcomes[i].Sent.Duplicate, nil}
		if w.Code != nil {
			if !errors.Is(outcomes[i].Err, w.Code) {
				t.Errorf("draft %d: error %v, want %v", i, outcomes[i].Err, w.Code)
			}
			continue
		}
		if outcomes[i].Err != nil || got != w {
			t.Errorf("draft %d: %+v, %v, want %+v", i, got, outcomes[i].Err, w)
		}
	}
	if outcomes[1].Sent.ID != first[0].Sent.ID || !outcomes[1].Sent.SentAt.Equal(first[0].Sent.SentAt) {
		t.Errorf("a duplicate got %+v, the first got %+v", outcomes[1].Sent, first[0].Sent)
	}
	if len(items) != 6 {
		t.Errorf("%d items for 3 messages with 2 members each", len(items))
	}
	for _, user := range []uuid.UUID{p.client, p.tasker, other.client, other.tasker} {
		f.checkStream(t, user)
	}
}

// checkStream fails unless a stream's offsets run from 1 to its head.
func (f fixture) checkStream(t *testing.T, user uuid.UUID) []messaging.Item {
	t.Helper()
	items, err := f.ItemsAfter(t.Context(), user, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range items {
		if item.Offset != int64(i+1) {
			t.Fatalf("item %d of %s has offset %d", i, user, item.Offset)
		}
	}
	if position := f.position(t, user); position.Head != int64(len(items)) {
		t.Fatalf("position %+v; %d items", position, len(items))
	}
	return items
}

func (f fixture) position(t *testing.T, user uuid.UUID) messaging.Position {
	t.Helper()
	found, err := f.Resume(t.Context(), []messaging.Place{{UserID: user, Offset: -1}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return found[0].Position
}

func TestWritersOfSeveralProcessesNeitherDeadlockNorLeaveGaps(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pairs := []pair{f.open(t), f.open(t), f.open(t)}
	// Members that share several conversations are where lock order matters.
	for i := range pairs[1:] {
		shared := pair{client: pairs[0].client, tasker: pairs[i+1].tasker, task: uuid.New()}
		f.offer(t, shared)
	}
	const writers, batches = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for b := range batches {
				var drafts []messaging.Draft
				for i := range pairs {
					p := pairs[(i+w+b)%len(pairs)]
					drafts = append(drafts, p.draft(p.client, "a"), p.draft(p.tasker, "b"))
				}
				outcomes, _, err := f.Write(context.Background(), drafts)
				if err != nil {
					t.Error(err)
					return
				}
				for _, o := range outcomes {
					if o.Err != nil {
						t.Error(o.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, p := range pairs {
		messages, err := f.Messages(t.Context(), p.conversation, 1<<62, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		if len(messages) != writers*batches*2 {
			t.Errorf("%d messages, want %d", len(messages), writers*batches*2)
		}
		for i, m := range messages {
			if want := int64(len(messages) - i); m.Seq != want {
				t.Fatalf("message %d has seq %d, want %d", i, m.Seq, want)
			}
		}
		f.checkStream(t, p.client)
		f.checkStream(t, p.tasker)
	}
}

func TestWriteRefusesWhatPostgreSQLCannotHold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	draft := p.draft(p.client, "")
	draft.Body = json.RawMessage(`{"n":1e999999}`)
	_, _, err := f.Write(t.Context(), []messaging.Draft{p.draft(p.client, "fine"), draft})
	if !errors.Is(err, messaging.ErrBodyRefused) {
		t.Fatalf("got %v, want %v", err, messaging.ErrBodyRefused)
	}
	if messages, _ := f.Messages(t.Context(), p.conversation, 10, 10); len(messages) != 0 {
		t.Errorf("half of the batch is written: %v", messages)
	}
}

func TestOffersOpenAConversationOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	announced := f.offer(t, p)
	if len(announced) != 2 || announced[0].Kind != messaging.KindTask || announced[0].Offset != 2 {
		t.Errorf("a second offer announces %+v", announced)
	}
	found, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: p.tasker, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	want := []messaging.Conversation{{
		ID: p.conversation, Kind: messaging.ConversationTask, TaskID: p.task, Title: "Shelves", CreatedAt: found[0].CreatedAt,
		Members: []messaging.Member{{UserID: p.client, Role: "client"}, {UserID: p.tasker, Role: "tasker"}},
	}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	var payload map[string]any
	items := f.checkStream(t, p.tasker)
	if err := json.Unmarshal(items[0].Payload, &payload); err != nil {
		t.Fatal(err)
	}
	if payload["conversation_id"] != p.conversation.String() || payload["event"] != "offer_made" {
		t.Errorf("payload %v", payload)
	}
}

func TestTaskChangesReachClientAndTasker(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	tests := map[string]struct {
		tasker           *uuid.UUID
		wantUsers        []uuid.UUID
		wantConversation any
	}{
		"no tasker yet":            {wantUsers: []uuid.UUID{p.client}},
		"with a conversation":      {tasker: &p.tasker, wantUsers: []uuid.UUID{p.client, p.tasker}, wantConversation: p.conversation.String()},
		"tasker who never offered": {tasker: &p.task, wantUsers: []uuid.UUID{p.client, p.task}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			announced := f.handle(t, events.TaskChanged{
				TaskID: p.task, ClientID: p.client, TaskerID: tt.tasker, ActorID: p.client, From: "open", To: "assigned", Version: 2,
			})
			var users []uuid.UUID
			for _, item := range announced {
				if item.Kind != messaging.KindTask {
					continue
				}
				users = append(users, item.UserID)
				var payload map[string]any
				if err := json.Unmarshal(item.Payload, &payload); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.wantConversation, payload["conversation_id"]); diff != "" {
					t.Error(diff)
				}
			}
			if diff := cmp.Diff(tt.wantUsers, users); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadPositionsOnlyGrow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	for _, step := range []struct {
		seq       int64
		wantItems int
	}{{2, 2}, {2, 0}, {1, 0}, {3, 2}} {
		items, err := f.MarkRead(t.Context(), p.conversation, p.tasker, step.seq)
		if err != nil || len(items) != step.wantItems {
			t.Errorf("read %d: %d items, %v, want %d", step.seq, len(items), err, step.wantItems)
		}
	}
	found, err := f.Conversation(t.Context(), p.conversation, p.client)
	if err != nil || found.Members[1].ReadSeq != 3 {
		t.Errorf("conversation %+v, %v", found, err)
	}
	if _, err := f.Conversation(t.Context(), p.conversation, uuid.New()); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("a stranger gets %v", err)
	}
}

func TestConversationsArePagedNewestFirst(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	client, tasks := uuid.New(), make([]uuid.UUID, 5)
	for i := range tasks {
		tasks[i] = uuid.New()
		f.offer(t, pair{client: client, tasker: uuid.New(), task: tasks[i]})
	}
	var got []uuid.UUID
	query := messaging.ConversationQuery{UserID: client, Limit: 2}
	for {
		page, err := f.Conversations(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			got = append(got, c.TaskID)
		}
		query.Before = &page[len(page)-1].ID
	}
	want := []uuid.UUID{tasks[4], tasks[3], tasks[2], tasks[1], tasks[0]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	one, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: client, TaskID: &tasks[2], Limit: 9})
	if err != nil || len(one) != 1 || one[0].TaskID != tasks[2] {
		t.Errorf("of one task: %v, %v", one, err)
	}
}
