package store_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/notify"
	"github.com/marketplane/marketplane/services/messaging/store"
)

const lease = time.Minute

// Of many processes one holds the work, until its lease has run out; a holder of
// before changes nothing any more.
func TestOneHolderAtATime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := f.Notifier()
	begun, err := n.State(t.Context())
	if err != nil || begun.Held || time.Since(begun.Places[notify.Soon].At) < time.Minute {
		t.Fatalf("at the beginning: %+v, %v", begun, err)
	}
	var (
		wg     sync.WaitGroup
		holder uuid.UUID
		wins   atomic.Int32
	)
	for range 8 {
		wg.Go(func() {
			self := uuid.New()
			switch err := n.Hold(t.Context(), self, lease); {
			case err == nil:
				wins.Add(1)
				holder = self
			case !errors.Is(err, notify.ErrLost):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d processes hold the work", wins.Load())
	}
	if err := n.Hold(t.Context(), holder, lease); err != nil {
		t.Errorf("the holder does not prolong: %v", err)
	}

	p, other := f.open(t), uuid.New()
	place := notify.Place{At: begun.Now.Add(time.Hour).Truncate(time.Microsecond), Conversation: p.conversation, Seq: 3}
	sent := []notify.Notification{{ConversationID: p.conversation, UserID: p.tasker, Seq: 3}}
	refused := func(who uuid.UUID) {
		t.Helper()
		for operation, err := range map[string]error{
			"record":    n.Record(t.Context(), who, lease, sent),
			"move soon": n.Move(t.Context(), who, lease, notify.Soon, place),
			"move late": n.Move(t.Context(), who, lease, notify.Late, place),
		} {
			if !errors.Is(err, notify.ErrLost) {
				t.Errorf("%s: %v", operation, err)
			}
		}
	}
	refused(other)
	if _, err := f.pool.Exec(t.Context(), "UPDATE notifier SET held_until = clock_timestamp()"); err != nil {
		t.Fatal(err)
	}
	if err := n.Hold(t.Context(), other, lease); err != nil {
		t.Fatalf("after the lease: %v", err)
	}
	refused(holder)
	state, err := n.State(t.Context())
	if err != nil || state.Holder != other || !state.Held || !state.Places[notify.Soon].At.Equal(begun.Places[notify.Soon].At) {
		t.Errorf("%+v, %v", state, err)
	}
	f.wantKnown(t, p.conversation, map[uuid.UUID]int64{p.client: 0, p.tasker: 0})

	if err := errors.Join(
		n.Record(t.Context(), other, lease, sent),
		n.Record(t.Context(), other, lease, []notify.Notification{{ConversationID: p.conversation, UserID: p.tasker, Seq: 2}}),
		n.Move(t.Context(), other, lease, notify.Late, place),
		n.Release(t.Context(), holder), // no longer the holder's to release
	); err != nil {
		t.Fatal(err)
	}
	f.wantKnown(t, p.conversation, map[uuid.UUID]int64{p.client: 0, p.tasker: 3})
	if state, err = n.State(t.Context()); err != nil || !state.Held || !state.Places[notify.Late].At.Equal(place.At) || state.Places[notify.Late].Seq != 3 {
		t.Errorf("%+v, %v", state, err)
	}
	if err := errors.Join(n.Release(t.Context(), other), n.Hold(t.Context(), holder, lease)); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

func (f fixture) wantKnown(t *testing.T, conversation uuid.UUID, want map[uuid.UUID]int64) {
	t.Helper()
	members, err := f.Notifier().Members(t.Context(), []uuid.UUID{conversation})
	if err != nil {
		t.Fatal(err)
	}
	got := map[uuid.UUID]int64{}
	for _, m := range members {
		got[m.UserID] = m.KnownSeq
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("known seqs (-want +got):\n%s", diff)
	}
}

// Messages are followed by time, whatever their conversations, in pages.
func TestMessagesAreFollowedByTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	clock := now
	writer := store.New(f.pool, func() time.Time { return clock })
	a, b := f.open(t), f.open(t)
	var want []uuid.UUID
	for i := range 6 { // two at a time have the same
		clock = now.Add(time.Duration(i) * time.Second)
		outcomes, _, err := writer.Write(t.Context(), []messaging.Draft{a.draft(a.client, "a"), b.draft(b.tasker, "b")})
		if err != nil {
			t.Fatal(err)
		}
		pairs := []uuid.UUID{outcomes[0].Sent.ID, outcomes[1].Sent.ID}
		if compareIDs(a.conversation, b.conversation) > 0 {
			pairs[0], pairs[1] = pairs[1], pairs[0]
		}
		want = append(want, pairs...)
	}
	n := f.Notifier()
	for _, limit := range []int{1, 3, 100} {
		var got []uuid.UUID
		place := notify.Place{At: now}
		for {
			page, err := n.Messages(t.Context(), place, now.Add(5*time.Second), limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				got = append(got, m.ID)
				place = notify.Place{At: m.SentAt, Conversation: m.ConversationID, Seq: m.Seq}
			}
			if len(page) < limit {
				break
			}
		}
		if diff := cmp.Diff(want[:10], got); diff != "" { // those at the end are not before it
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}

	of := []notify.Notification{
		{ConversationID: a.conversation, UserID: a.tasker},
		{ConversationID: a.conversation, UserID: a.client},
		{ConversationID: b.conversation, UserID: b.client},
		{ConversationID: b.conversation, UserID: a.client, Unread: 9}, // no member
	}
	if _, err := f.MarkRead(t.Context(), b.conversation, b.client, 4); err != nil {
		t.Fatal(err)
	}
	if err := n.CountUnread(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	if got := []int{of[0].Unread, of[1].Unread, of[2].Unread, of[3].Unread}; !cmp.Equal(got, []int{6, 0, 2, 0}) {
		t.Errorf("unread: %v", got)
	}
	f.wantKnown(t, b.conversation, map[uuid.UUID]int64{b.client: 4, b.tasker: 0})
}

// The index is there and good, and answers the query. Whether it is worth it, the
// planner knows from the table's size.
func TestMessagesByTimeHaveAnIndex(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var plan []string
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
		rows, err := tx.Query(t.Context(), `
			EXPLAIN SELECT seq FROM messages WHERE sent_at >= $1::timestamptz AND sent_at < $1::timestamptz + interval '1 minute'
			AND (sent_at, conversation_id, seq) > ($1::timestamptz, $2, 0) ORDER BY sent_at, conversation_id, seq LIMIT 200`, "2026-01-01 05:00Z", uuid.Nil)
		if err != nil {
			return err
		}
		plan, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil || !strings.Contains(strings.Join(plan, "\n"), "messages_by_time") {
		t.Errorf("%v, the plan is\n%s", err, strings.Join(plan, "\n"))
	}
}
