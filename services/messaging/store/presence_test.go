package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/presence"
)

func TestAudiences(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, other := f.open(t), f.open(t)
	// The first client talks with the other tasker, too, about two tasks.
	for range 2 {
		f.offer(t, pair{client: first.client, tasker: other.tasker, task: uuid.New()})
	}
	nobody := uuid.New()
	got, err := f.Audiences(t.Context(), []uuid.UUID{first.client, other.tasker, first.tasker, nobody})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[uuid.UUID][]uuid.UUID{
		first.client: {first.tasker, other.tasker},
		other.tasker: {other.client, first.client},
		first.tasker: {first.client},
		nobody:       nil,
	} {
		slices.SortFunc(want, compareIDs)
		slices.SortFunc(got[user], compareIDs)
		if !slices.Equal(got[user], want) {
			t.Errorf("audience %v, want %v", got[user], want)
		}
	}
}

// Where one of two blocks the other, in whichever direction, neither hears of the
// other; of and to the rest of the conversation they do.
func TestBlocksPartAudiences(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, other := f.open(t), f.open(t)
	f.offer(t, pair{client: p.client, tasker: other.tasker, task: uuid.New()})
	both := func() [2]int {
		t.Helper()
		got, err := f.Audiences(t.Context(), []uuid.UUID{p.client, p.tasker})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(got[p.client], other.tasker) {
			t.Errorf("whom nobody blocks is not told of %s: %v", p.client, got)
		}
		return [2]int{len(got[p.client]), len(got[p.tasker])}
	}
	if got := both(); got != [2]int{2, 1} {
		t.Errorf("without a block: %v", got)
	}
	for _, pair := range [][2]uuid.UUID{{p.client, p.tasker}, {p.tasker, p.client}} {
		id, err := uuid.NewV7()
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Block(t.Context(), messaging.Block{ID: id, BlockerID: pair[0], BlockedID: pair[1], CreatedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if got := both(); got != [2]int{1, 0} {
			t.Errorf("while one blocks the other: %v", got)
		}
		if err := f.Unblock(t.Context(), pair[0], pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	if got := both(); got != [2]int{2, 1} {
		t.Errorf("after the blocks: %v", got)
	}
}

// Only the newest conversations count, and no more members than the bound.
func TestAudiencesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	user := uuid.New()
	oldest := uuid.New()
	for i := range presence.MaxConversations + 1 {
		tasker := uuid.New()
		if i == 0 {
			tasker = oldest
		}
		f.offer(t, pair{client: user, tasker: tasker, task: uuid.New()})
	}
	got, err := f.Audiences(t.Context(), []uuid.UUID{user})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got[user]); n != presence.MaxConversations || slices.Contains(got[user], oldest) {
		t.Errorf("%d are told", n)
	}
	_, err = f.pool.Exec(t.Context(), `
		INSERT INTO members (conversation_id, user_id, role)
		SELECT (SELECT max(conversation_id::text)::uuid FROM members WHERE user_id = $1), gen_random_uuid(), 'tasker'
		FROM generate_series(1, $2)`, user, presence.MaxAudience)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = f.Audiences(t.Context(), []uuid.UUID{user}); err != nil || len(got[user]) != presence.MaxAudience {
		t.Errorf("%d are told, %v", len(got[user]), err)
	}
}

func compareIDs(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }
