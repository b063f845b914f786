package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marketplane/marketplane/services/messaging"
)

// What is replayed is, byte for byte, what was delivered when it was new, though
// PostgreSQL keeps JSON in a form of its own.
func TestAReplayIsWhatWasDelivered(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	draft := p.draft(p.client, "")
	draft.Body = json.RawMessage(`{"zebra":1e2,"a":"<\u00e4>","a":"twice","nested":{"b":1.50,"a":[ ]}}`)
	_, delivered, err := f.Write(t.Context(), []messaging.Draft{draft, p.draft(p.tasker, "plain")})
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := f.MarkRead(t.Context(), p.conversation, p.tasker, 1)
	if err != nil {
		t.Fatal(err)
	}
	delivered = append(delivered, receipts...)
	delivered = append(delivered, f.offer(t, p)...)
	for _, user := range []uuid.UUID{p.client, p.tasker} {
		var want []messaging.Item
		for _, item := range delivered {
			if item.UserID == user {
				want = append(want, item)
			}
		}
		resumed, err := f.Resume(t.Context(), []messaging.Place{{UserID: user, Offset: 1}}, 10)
		if err != nil {
			t.Fatal(err)
		}
		paged, err := f.ItemsAfter(t.Context(), user, 1, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, resumed[0].Items); diff != "" {
			t.Errorf("resumed (-delivered +replayed):\n%s", diff)
		}
		if diff := cmp.Diff(want, paged); diff != "" {
			t.Errorf("paged (-delivered +replayed):\n%s", diff)
		}
	}
}

// What many get is sent to all of them at once: it must be one, wherever it comes
// from and whatever else is in its batch.
func TestItemsOfOneNewsAreTogetherAndShareTheirPayload(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	users := make([]uuid.UUID, 20)
	for i := range users {
		users[i] = uuid.New()
	}
	conversation := f.support(t, users...)
	p := pair{client: users[0], tasker: users[1], conversation: conversation}
	_, items, err := f.Write(t.Context(), []messaging.Draft{p.draft(p.client, "one"), p.draft(p.tasker, "two"), p.draft(p.client, "three")})
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := f.MarkRead(t.Context(), conversation, p.client, 2)
	if err != nil {
		t.Fatal(err)
	}
	items = append(items, receipts...)
	if len(items) != 4*len(users) {
		t.Fatalf("%d items", len(items))
	}
	for i, item := range items {
		if shares := i > 0 && item.SharesPayload(items[i-1]); shares != (i%len(users) > 0) {
			t.Errorf("item %d of kind %s shares its payload: %v", i, item.Kind, shares)
		}
		if want := int64(2 + i/len(users)); item.Offset != want {
			t.Errorf("item %d has offset %d, want %d", i, item.Offset, want)
		}
	}
}

// An item whose message is not there is a hole. It spoils nobody else's look.
func TestAMessageThatIsNotThereIsAHole(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, other := f.open(t), f.open(t)
	for _, text := range []string{"one", "two", "three"} {
		for _, q := range []pair{p, other} {
			if _, err := f.writeOne(t, q.draft(q.client, text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.exec(t, `DELETE FROM messages WHERE conversation_id = $1 AND seq = 2`, p.conversation)
	found, err := f.Resume(t.Context(), []messaging.Place{{UserID: p.client}, {UserID: other.client}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	read, err := f.ItemsAfter(t.Context(), p.client, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	offsets := func(items []messaging.Item) (out []int64) {
		for _, item := range items {
			out = append(out, item.Offset)
		}
		return out
	}
	want := [][]int64{{1, 2, 4}, {1, 2, 3, 4}, {1, 2, 4}}
	got := [][]int64{offsets(found[0].Items), offsets(found[1].Items), offsets(read)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestResumeLooksUpManyPlacesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	for range 4 {
		f.offer(t, p)
	}
	f.raiseTail(t, p.tasker, 2)
	nobody := uuid.New()
	got, err := f.Resume(t.Context(), []messaging.Place{
		{UserID: p.client, Offset: 0},
		{UserID: p.client, Offset: 3},
		{UserID: p.client, Offset: 5},
		{UserID: p.client, Offset: 6},
		{UserID: p.client, Offset: -1},
		{UserID: p.tasker, Offset: 1},
		{UserID: p.tasker, Offset: 2},
		{UserID: nobody, Offset: 0},
	}, 3)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Position messaging.Position
		Offsets  []int64
	}
	client, tasker := messaging.Position{Head: 5}, messaging.Position{Head: 5, Tail: 2}
	want := []answer{
		{client, []int64{1, 2, 3}},
		{client, []int64{4, 5}},
		{client, nil},
		{client, nil},
		{client, nil},
		{tasker, nil},
		{tasker, []int64{3, 4, 5}},
		{messaging.Position{}, nil},
	}
	for i, r := range got {
		a := answer{Position: r.Position}
		for _, item := range r.Items {
			a.Offsets = append(a.Offsets, item.Offset)
		}
		if diff := cmp.Diff(want[i], a); diff != "" {
			t.Errorf("place %d (-want +got):\n%s", i, diff)
		}
	}
}

func (f fixture) raiseTail(t *testing.T, user uuid.UUID, tail int64) {
	t.Helper()
	f.exec(t, `UPDATE streams SET tail = $2 WHERE user_id = $1`, user, tail)
}

func (f fixture) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if _, err := f.pool.Exec(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// A day's items go at once, and no stream lacks items that its tail promises.
func TestExpireDropsWholeDays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, other := f.open(t), f.open(t)
	for range 3 {
		f.offer(t, p)
	}
	ttl := 7 * 24 * time.Hour
	expire := func() int {
		t.Helper()
		dropped, err := f.Expire(context.Background(), time.Now().Add(-ttl))
		if err != nil {
			t.Fatal(err)
		}
		return dropped
	}
	if n := expire(); n != 0 {
		t.Errorf("young items: %d tables dropped", n)
	}
	// No table is there for days that are over: their items land aside.
	f.exec(t, `UPDATE stream_entries SET created_at = now() - interval '9 days' WHERE user_id = ANY ($1) AND "offset" <= 3`, []uuid.UUID{p.client, p.tasker})
	f.exec(t, `UPDATE stream_entries SET created_at = now() - interval '2 days' WHERE user_id = $1`, other.client)
	if n := expire(); n != 0 {
		t.Errorf("%d tables dropped, though some of it is young", n)
	}
	f.checkStream(t, other.client)
	f.exec(t, `UPDATE stream_entries SET created_at = now() - interval '9 days' WHERE user_id = $1`, other.client)
	if n := expire(); n != 1 {
		t.Errorf("%d tables emptied, want 1", n)
	}
	want := map[uuid.UUID]messaging.Position{
		p.client: {Head: 4, Tail: 3}, p.tasker: {Head: 4, Tail: 3}, other.client: {Head: 1, Tail: 1}, other.tasker: {Head: 1},
	}
	for user, position := range want {
		if diff := cmp.Diff(position, f.position(t, user)); diff != "" {
			t.Error(diff)
		}
	}
	items, err := f.ItemsAfter(t.Context(), p.client, 3, 10)
	if err != nil || len(items) != 1 || items[0].Offset != 4 {
		t.Errorf("what is left: %+v, %v", items, err)
	}
}

// What replays rest on holds in the tables of days as in the one aside.
func TestEntriesAreChecked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const insert = `INSERT INTO stream_entries (user_id, "offset", kind, payload, conversation_id, seq, created_at)
		VALUES ($1, $2, 'message', $3, $4, $5, now() - make_interval(days => $6))`
	payload, conversation, seq := `{"a": 1}`, uuid.New(), int64(1)
	list, null := `[]`, `null`
	for _, daysAgo := range []int{0, 9} {
		for name, tt := range map[string]struct {
			offset       int64
			payload      *string
			conversation *uuid.UUID
			seq          *int64
			want         string // the SQLSTATE
		}{
			"a payload":           {offset: 1, payload: &payload},
			"a message":           {offset: 2, conversation: &conversation, seq: &seq},
			"no offset":           {payload: &payload, want: "23514"},
			"neither of the two":  {offset: 3, want: "23514"},
			"a conversation only": {offset: 3, conversation: &conversation, want: "23514"},
			"no object":           {offset: 3, payload: &list, want: "23514"},
			"null in JSON":        {offset: 3, payload: &null, want: "23514"},
		} {
			got := ""
			_, err := f.pool.Exec(t.Context(), insert, uuid.New(), tt.offset, tt.payload, tt.conversation, tt.seq, daysAgo)
			if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
				got = refused.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("%s, %d days ago: %q, want %q", name, daysAgo, got, tt.want)
			}
		}
	}
}

// entryTables are the days' tables, by name, and what each holds.
func entryTables(t *testing.T, admin *pgx.Conn) map[string]int {
	t.Helper()
	rows, err := admin.Query(t.Context(), `SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'stream_entries'::regclass`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, name := range names {
		var n int
		if err := admin.QueryRow(t.Context(), `SELECT count(*) FROM `+pgx.Identifier{name}.Sanitize()).Scan(&n); err != nil {
			t.Fatal(err)
		}
		out[name] = n
	}
	return out
}

// The service can have days made and dropped, and nothing else of the kind. A
// day in which the tables were not made ends in the table for such days; the
// next ones have their own again.
func TestDaysAreMadeAheadAndDroppedWhenOld(t *testing.T) {
	t.Parallel()
	today := time.Now().UTC()
	if today.Add(2*time.Minute).Day() != today.Day() {
		t.Skip("midnight is near")
	}
	f := newFixture(t)
	admin := f.admin(t)
	day := func(days int) string { return "stream_entries_" + today.AddDate(0, 0, days).Format("20060102") }
	want := map[string]int{"stream_entries_default": 0, day(0): 0, day(1): 0, day(2): 0, day(3): 0}
	if diff := cmp.Diff(want, entryTables(t, admin)); diff != "" {
		t.Error(diff)
	}

	// A table of nine days ago, and none for the days from now on.
	old := today.AddDate(0, 0, -9)
	for i := range 4 {
		if _, err := admin.Exec(t.Context(), `DROP TABLE `+day(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Exec(t.Context(), fmt.Sprintf(`CREATE TABLE %s PARTITION OF stream_entries (PRIMARY KEY (user_id, "offset")) FOR VALUES FROM ('%s') TO ('%s')`,
		day(-9), old.Format("2006-01-02Z"), old.AddDate(0, 0, 1).Format("2006-01-02Z"))); err != nil {
		t.Fatal(err)
	}
	p := f.open(t)
	f.offer(t, p)
	f.exec(t, `UPDATE stream_entries SET created_at = now() - interval '9 days' WHERE "offset" = 1`)
	if diff := cmp.Diff(map[string]int{"stream_entries_default": 2, day(-9): 2}, entryTables(t, admin)); diff != "" {
		t.Fatal(diff)
	}
	// Whoever looks at entries holds up the dropping, and is not held up for long.
	reader, err := f.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := reader.Exec(t.Context(), `SELECT FROM stream_entries`); err != nil {
		t.Fatal(err)
	}
	expire := func() (int, error) { return f.Expire(context.Background(), time.Now().AddDate(0, 0, -7)) }
	if _, err := expire(); err == nil {
		t.Error("dropped under a reader")
	}
	if got := f.position(t, p.client); got.Tail != 1 {
		t.Errorf("position %+v", got)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each makes one, since the table aside holds something
		if _, err := expire(); err != nil {
			t.Fatal(err)
		}
	}
	want = map[string]int{"stream_entries_default": 2, day(1): 0, day(2): 0, day(3): 0}
	if diff := cmp.Diff(want, entryTables(t, admin)); diff != "" {
		t.Error(diff)
	}
	items, err := f.ItemsAfter(t.Context(), p.client, 1, 10)
	if err != nil || len(items) != 1 || items[0].Offset != 2 {
		t.Errorf("what is left: %+v, %v", items, err)
	}

	for _, statement := range []string{`SELECT roll_stream_days(now(), 3)`, `DROP TABLE ` + day(1), `TRUNCATE stream_entries`} {
		if _, err := f.pool.Exec(t.Context(), statement); err == nil {
			t.Errorf("the service may %s", statement)
		}
	}
}

// Days go, are made and are looked at by everybody at once.
func TestExpiringHindersNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := f.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	for range 2 {
		others.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				if _, _, err := f.Write(context.Background(), []messaging.Draft{p.draft(p.client, "on and on")}); err != nil {
					t.Error(err)
				}
				if _, err := f.Resume(context.Background(), []messaging.Place{{UserID: p.client}, {UserID: p.tasker}}, 10); err != nil {
					t.Error(err)
				}
			}
		})
	}
	admin := f.admin(t)
	for range 20 {
		// As at midnight: one day is too old, and one is not there yet.
		old := time.Now().UTC().AddDate(0, 0, -9)
		last := "stream_entries_" + time.Now().UTC().AddDate(0, 0, 3).Format("20060102")
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(`DROP TABLE IF EXISTS %s; CREATE TABLE stream_entries_%s PARTITION OF stream_entries (PRIMARY KEY (user_id, "offset")) FOR VALUES FROM ('%s') TO ('%s')`,
			last, old.Format("20060102"), old.Format("2006-01-02Z"), old.AddDate(0, 0, 1).Format("2006-01-02Z"))); err != nil {
			t.Fatal(err)
		}
		for dropped := 0; dropped == 0 && !t.Failed(); {
			var err error
			if dropped, err = f.Expire(context.Background(), time.Now().AddDate(0, 0, -7)); isLockTimeout(err) {
				continue // on a machine that is busy with others
			} else if err != nil {
				t.Error(err)
			}
		}
	}
	cancel()
	others.Wait()
	f.checkStream(t, p.client)
}

func isLockTimeout(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "55P03"
}

// However little the server knew of the tables when it made its plans, resumes
// read no more of them than they need.
func TestResumesReadByIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	resume := func(p pair) {
		t.Helper()
		if _, err := f.Resume(t.Context(), []messaging.Place{{UserID: p.client}, {UserID: p.tasker}}, 10); err != nil {
			t.Fatal(err)
		}
	}
	p := f.open(t)
	for range 10 { // the plan that is kept is made now
		resume(p)
	}
	for i := range 40 {
		if _, _, err := f.Write(t.Context(), []messaging.Draft{p.draft(p.client, strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	admin := f.admin(t)
	scans := func() (sequential, indexed int64) {
		t.Helper()
		if _, err := f.pool.Exec(t.Context(), "SELECT pg_stat_force_next_flush()"); err != nil {
			t.Fatal(err)
		}
		if err := admin.QueryRow(t.Context(), `SELECT sum(seq_scan)::bigint, sum(idx_scan) FILTER (WHERE relname = 'streams')::bigint
			FROM pg_stat_user_tables WHERE schemaname = current_schema AND relname ~ '^(stream|messages)'`).Scan(&sequential, &indexed); err != nil {
			t.Fatal(err)
		}
		return sequential, indexed
	}
	sequential, indexed := scans()
	const resumes = 50
	for range resumes {
		resume(p)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		nowSequential, nowIndexed := scans()
		if nowSequential != sequential {
			t.Fatalf("%d tables were read from begin to end", nowSequential-sequential)
		}
		if nowIndexed >= indexed+2*resumes { // what was read is counted by now
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d reads are counted", nowIndexed-indexed, 2*resumes)
		}
	}
}
