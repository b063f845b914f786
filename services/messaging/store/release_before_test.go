package store_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store"
)

// Statements of release v0.1.0, as its pods go on to run them during a rollout,
// and after a way back.
const (
	oldAdvance = `INSERT INTO streams (user_id, head)
		SELECT n.user_id, n.items
		FROM (SELECT unnest($1::uuid[]) AS user_id, unnest($2::bigint[]) AS items) n
		ORDER BY n.user_id
		ON CONFLICT (user_id) DO UPDATE SET head = streams.head + excluded.head
		RETURNING user_id, head`
	oldMembers       = `SELECT conversation_id, user_id, role, read_seq FROM members WHERE conversation_id = ANY ($1::uuid[])`
	oldLock          = `SELECT id, head FROM conversations WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE`
	oldInsertMessage = `INSERT INTO messages (conversation_id, seq, id, sender_id, client_id, body, sent_at)
		SELECT unnest($1::uuid[]), unnest($2::bigint[]), unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::uuid[]), unnest($6::text[])::jsonb, $7::timestamptz`
	oldSetHeads = `UPDATE conversations c SET head = h.head
		FROM (SELECT unnest($1::uuid[]) AS id, unnest($2::bigint[]) AS head) h
		WHERE c.id = h.id`
	oldFindSent = `SELECT d.place::integer AS place, m.id, m.seq, m.sent_at, (m.body = d.body)::boolean AS same_body
		FROM messages m
		JOIN (
			SELECT unnest($1::integer[]) AS place, unnest($2::uuid[]) AS conversation_id, unnest($3::uuid[]) AS sender_id,
			       unnest($4::uuid[]) AS client_id, unnest($5::text[])::jsonb AS body
		) d ON m.conversation_id = d.conversation_id AND m.sender_id = d.sender_id AND m.client_id = d.client_id`
	oldInsertItems = `INSERT INTO stream_items (user_id, "offset", kind, payload)
		SELECT unnest($1::uuid[]), unnest($2::bigint[]), unnest($3::text[]), unnest($4::text[])::jsonb`
	oldItemsAfter = `SELECT "offset", kind, payload
		FROM stream_items
		WHERE user_id = $1 AND "offset" > $2
		ORDER BY "offset"
		LIMIT $3`
	oldDelete = `DELETE FROM stream_items s
		USING (
			SELECT o.user_id, o."offset"
			FROM stream_items o
			WHERE o.created_at < $1
			ORDER BY o.created_at
			LIMIT $2
			FOR UPDATE SKIP LOCKED
		) old
		WHERE s.user_id = old.user_id AND s."offset" = old."offset"
		RETURNING s.user_id, s."offset"`
)

// oldPod is a process of release v0.1.0: one connection, whose prepared
// statements outlive the migration.
type oldPod struct {
	t    *testing.T
	conn *pgx.Conn
}

func (p oldPod) exec(statement string, args ...any) {
	p.t.Helper()
	if _, err := p.conn.Exec(p.t.Context(), statement, args...); err != nil {
		p.t.Fatal(err)
	}
}

// write writes a message and its items, as a group commit of it does.
func (p oldPod) write(m messaging.Message, members []uuid.UUID) {
	p.t.Helper()
	if err := p.commit(m, members); err != nil {
		p.t.Fatal(err)
	}
}

// commit writes a message as the next one of its conversation.
func (p oldPod) commit(m messaging.Message, members []uuid.UUID) error {
	ctx := context.Background()
	conversations := []uuid.UUID{m.ConversationID}
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, oldMembers, conversations); err != nil {
			return err
		}
		var id uuid.UUID
		if err := tx.QueryRow(ctx, oldLock, conversations).Scan(&id, &m.Seq); err != nil {
			return err
		}
		m.Seq++
		if _, err := tx.Exec(ctx, oldInsertMessage, conversations, []int64{m.Seq}, []uuid.UUID{m.ID}, []uuid.UUID{m.SenderID}, []uuid.UUID{m.ClientID}, []string{string(m.Body)}, m.SentAt); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, oldSetHeads, conversations, []int64{m.Seq}); err != nil {
			return err
		}
		for _, user := range members {
			var head int64
			if err := tx.QueryRow(ctx, oldAdvance, []uuid.UUID{user}, []int64{1}).Scan(&user, &head); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, oldInsertItems, []uuid.UUID{user}, []int64{head}, []string{"message"}, []string{string(messaging.MessagePayload(m))}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p oldPod) read(user uuid.UUID, after int64) (out []messaging.Item) {
	p.t.Helper()
	rows, err := p.conn.Query(p.t.Context(), oldItemsAfter, user, after, 100)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (messaging.Item, error) {
		item := messaging.Item{UserID: user}
		return item, row.Scan(&item.Offset, &item.Kind, &item.Payload)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// open makes a conversation, and returns a message to write into it.
func (p oldPod) open(members []uuid.UUID) messaging.Message {
	p.t.Helper()
	conversation := uuid.Must(uuid.NewV7())
	p.exec(`INSERT INTO conversations (id, task_id, tasker_id, title) VALUES ($1, $2, $3, '')`, conversation, uuid.New(), members[1])
	p.exec(`INSERT INTO members (conversation_id, user_id, role) SELECT $1, unnest($2::uuid[]), 'client'`, conversation, members)
	return again(messaging.Message{ConversationID: conversation, SenderID: members[0]})
}

// again is another message like one.
func again(m messaging.Message) messaging.Message {
	m.ID, m.ClientID = uuid.Must(uuid.NewV7()), uuid.New()
	m.Body, m.SentAt = json.RawMessage(`{"text": "old"}`), time.Now().UTC().Truncate(time.Microsecond)
	return m
}

// newOldDatabase is one that only the first migration was applied to.
func newOldDatabase(t *testing.T) *testkit.Database {
	t.Helper()
	first, err := fs.ReadFile(store.Migrations(), "00001_conversations.sql")
	if err != nil {
		t.Fatal(err)
	}
	return testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: fstest.MapFS{"00001_conversations.sql": {Data: first}}})
}

func newOldPod(t *testing.T, pool *pgxpool.Pool) oldPod {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	return oldPod{t, conn.Conn()}
}

// The migration gives way, or the writers of the release before wait for it;
// none of them fails.
func TestTheMigrationFailsNoWriter(t *testing.T) {
	t.Parallel()
	database := newOldDatabase(t)
	pool := database.Pool(t, contract.ComponentMessaging)
	var writers sync.WaitGroup
	defer writers.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wrote, failed := make(chan struct{}, 100), make(chan struct{}, 3)
	for range 3 {
		p, members := newOldPod(t, pool), []uuid.UUID{uuid.New(), uuid.New()}
		m := p.open(members)
		writers.Go(func() {
			for ctx.Err() == nil {
				if err := p.commit(again(m), members); err != nil {
					t.Error(err)
					failed <- struct{}{}
					return
				}
				select {
				case wrote <- struct{}{}:
				default:
				}
			}
		})
	}
	await := func() {
		for range 10 {
			select {
			case <-wrote:
			case <-failed:
				t.FailNow()
			}
		}
	}
	await()
	migrateAlone(t, database)
	for len(wrote) > 0 {
		<-wrote
	}
	await()
}

// What pods of both releases write, both read, while the later one's migration
// runs and after it.
func TestTheReleaseBeforeWorksBesideThisOne(t *testing.T) {
	t.Parallel()
	database := newOldDatabase(t)
	pool := database.Pool(t, contract.ComponentMessaging)
	old := newOldPod(t, pool)
	client, tasker := uuid.New(), uuid.New()
	members := []uuid.UUID{client, tasker}
	before := old.open(members)
	conversation := before.ConversationID
	old.write(before, members)
	if n := len(old.read(client, 0)); n != 1 {
		t.Fatalf("%d items before the migration", n)
	}

	migrateAlone(t, database)

	old.write(again(before), members)
	s := store.New(pool, time.Now)
	draft := messaging.Draft{ConversationID: conversation, SenderID: tasker, ClientID: uuid.New(), Body: json.RawMessage(`{"text":"new","a":1}`)}
	outcomes, items, err := s.Write(t.Context(), []messaging.Draft{draft, {
		ConversationID: conversation, SenderID: client, ClientID: before.ClientID, Body: before.Body,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := outcomes[1].Sent; !got.Duplicate || got.ID != before.ID || got.Seq != 1 {
		t.Errorf("what the release before wrote, sent again: %+v", outcomes[1])
	}
	if got := outcomes[0].Sent; got.Seq != 3 || got.Duplicate {
		t.Errorf("a new message: %+v", outcomes[0])
	}
	var found struct {
		place  int
		id     uuid.UUID
		seq    int64
		sentAt time.Time
		same   bool
	}
	if err := old.conn.QueryRow(t.Context(), oldFindSent, []int32{7}, []uuid.UUID{conversation}, []uuid.UUID{tasker}, []uuid.UUID{draft.ClientID}, []string{string(draft.Body)}).
		Scan(&found.place, &found.id, &found.seq, &found.sentAt, &found.same); err != nil || !found.same || found.id != outcomes[0].Sent.ID {
		t.Errorf("a new message, sent again to the release before: %+v, %v", found, err)
	}
	old.write(again(before), members)

	for _, user := range members {
		got, err := s.ItemsAfter(t.Context(), user, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || got[0].Offset != 1 || got[3].Offset != 4 {
			t.Fatalf("this release reads %+v", got)
		}
		if string(got[2].Payload) != string(items[0].Payload) {
			t.Errorf("replayed %s, delivered %s", got[2].Payload, items[0].Payload)
		}
		theirs := old.read(user, 0)
		if diff := cmp.Diff(decoded(t, got), decoded(t, theirs)); diff != "" {
			t.Errorf("(-this release reads +the release before reads):\n%s", diff)
		}
	}

	// It deletes by age, from wherever the items are.
	admin, err := pgx.Connect(t.Context(), database.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }()
	schema := pgx.Identifier{contract.DatabaseSchema(database.Installation, contract.ComponentMessaging)}.Sanitize()
	for _, table := range []string{"stream_entries", "stream_items_before"} {
		if _, err := admin.Exec(t.Context(), `UPDATE `+schema+`.`+table+` SET created_at = now() - interval '9 days' WHERE "offset" <= 2`); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := old.conn.Query(t.Context(), oldDelete, time.Now().Add(-7*24*time.Hour), 1000)
	if err != nil {
		t.Fatal(err)
	}
	deleted, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (offset int64, err error) {
		var user uuid.UUID
		return offset, row.Scan(&user, &offset)
	})
	if err != nil || len(deleted) != 4 {
		t.Errorf("deleted %v, %v", deleted, err)
	}
	if left := old.read(client, 0); len(left) != 2 || left[0].Offset != 3 {
		t.Errorf("left: %+v", left)
	}
}

// What is new in conversations is nothing to the release before.
func TestTheReleaseBeforeOpensAndListsConversations(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user := uuid.New(), uuid.New()
	support := f.support(t, agent, user)

	// What it opens is a task's, and not blocked.
	id, tasker, task := uuid.Must(uuid.NewV7()), uuid.New(), uuid.New()
	for _, statement := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO conversations (id, task_id, tasker_id, title) VALUES ($1, $2, $3, $4)
			ON CONFLICT ON CONSTRAINT conversations_one_per_pair DO NOTHING`, []any{id, task, tasker, "Shelves"}},
		{`INSERT INTO members (conversation_id, user_id, role) VALUES ($1, $2, $3)`, []any{id, user, "client"}},
		{`INSERT INTO members (conversation_id, user_id, role) VALUES ($1, $2, $3)`, []any{id, tasker, "tasker"}},
	} {
		if _, err := f.pool.Exec(t.Context(), statement.sql, statement.args...); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := f.Conversation(t.Context(), id, user); err != nil || c.Kind != "task" || c.Blocked {
		t.Errorf("opened by the release before: %+v, %v", c, err)
	}

	// It lists what is none of its kind as a conversation about task 0.
	rows, err := f.pool.Query(t.Context(), `SELECT c.id, c.task_id FROM members m JOIN conversations c ON c.id = m.conversation_id
		WHERE m.user_id = $1 ORDER BY m.conversation_id`, user)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	tasks := map[uuid.UUID]uuid.UUID{}
	for rows.Next() {
		var id, task uuid.UUID
		if err := rows.Scan(&id, &task); err != nil {
			t.Fatal(err)
		}
		tasks[id] = task
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if tasks[support] != uuid.Nil || tasks[id] != task || len(tasks) != 2 {
		t.Errorf("tasks %v", tasks)
	}
}

// migrateAlone applies the messaging migrations, and nothing that follows them:
// what pods do meanwhile must not wait for the grants.
func migrateAlone(t *testing.T, database *testkit.Database) {
	t.Helper()
	config, err := pgx.ParseConfig(database.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = pgx.Identifier{contract.DatabaseSchema(database.Installation, contract.ComponentMessaging)}.Sanitize()
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, store.Migrations())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// decoded are the items, with payloads compared by what they mean.
func decoded(t *testing.T, items []messaging.Item) (out []map[string]any) {
	t.Helper()
	for _, item := range items {
		var payload map[string]any
		if err := json.Unmarshal(item.Payload, &payload); err != nil {
			t.Fatalf("%s: %v", item.Payload, err)
		}
		if text, ok := payload["sent_at"].(string); ok {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				t.Fatal(err)
			}
			payload["sent_at"] = at.UTC()
		}
		out = append(out, map[string]any{"offset": item.Offset, "kind": item.Kind, "payload": payload})
	}
	return out
}
