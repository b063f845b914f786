package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

func TestABlockStopsBothInConversationsOfTwo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p, bystanders := f.open(t), f.open(t)
	before := p.draft(p.client, "before")
	first, err := f.writeOne(t, before)
	if err != nil {
		t.Fatal(err)
	}
	f.blocks(t, p.tasker, p.client)
	f.blocks(t, p.tasker, p.client) // once more changes nothing
	for _, sender := range []uuid.UUID{p.client, p.tasker} {
		if _, err := f.writeOne(t, p.draft(sender, "no")); !errors.Is(err, messaging.ErrConversationBlocked) {
			t.Errorf("sent past a block: %v", err)
		}
	}
	if again, err := f.writeOne(t, before); err != nil || !again.Duplicate || again.ID != first.ID {
		t.Errorf("a repeat of what is written: %+v, %v", again, err)
	}
	if _, err := f.writeOne(t, p.draft(uuid.New(), "no")); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("a stranger learns of a block: %v", err)
	}
	if messages, err := f.Messages(t.Context(), p.conversation, 10, 10); len(messages) != 1 || err != nil {
		t.Errorf("%d messages, %v", len(messages), err)
	}
	if c, err := f.Conversation(t.Context(), p.conversation, p.client); err != nil || !c.Blocked {
		t.Errorf("conversation %+v, %v", c, err)
	}
	if _, err := f.writeOne(t, bystanders.draft(bystanders.client, "yes")); err != nil {
		t.Error(err)
	}

	f.blocks(t, p.client, p.tasker)
	f.unblocks(t, p.tasker, p.client)
	if !f.isBlocked(t, p.conversation) {
		t.Error("the other's block counts no more")
	}
	f.unblocks(t, p.client, p.tasker)
	f.unblocks(t, p.client, p.tasker)
	if _, err := f.writeOne(t, p.draft(p.client, "after")); err != nil {
		t.Error(err)
	}
}

func TestABlockHoldsWhereverTwoAreLeft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user, third := uuid.New(), uuid.New(), uuid.New()
	f.blocks(t, user, third)
	later := pair{client: user, tasker: third, task: uuid.New()}
	f.offer(t, later)
	found, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: user, Limit: 1})
	if err != nil || !found[0].Blocked {
		t.Errorf("a conversation that begins after the block: %+v, %v", found, err)
	}

	c := f.support(t, agent, user, third)
	if f.isBlocked(t, c) {
		t.Error("three are blocked")
	}
	f.remove(t, c, agent)
	if !f.isBlocked(t, c) {
		t.Error("the two who are left are not blocked")
	}
	f.add(t, c, agent)
	if f.isBlocked(t, c) {
		t.Error("three are blocked again")
	}
	f.remove(t, c, third)
	if f.isBlocked(t, c) {
		t.Error("two who don't block each other are blocked")
	}
	f.blocks(t, user, agent)
	if !f.isBlocked(t, c) {
		t.Error("the last agent is not blocked")
	}
}

// However blocks and members change at the same time, the flag says in the end
// what they say.
func TestBlocksAndMembersMeet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 10 {
		agent, user := uuid.New(), uuid.New()
		leaving, growing := f.support(t, agent, user, uuid.Nil), f.support(t, agent)
		offered := pair{client: user, tasker: agent, task: uuid.New()}
		var wg sync.WaitGroup
		wg.Go(func() { f.blocks(t, user, agent) })
		wg.Go(func() { f.remove(t, leaving, uuid.Nil) })
		wg.Go(func() { f.add(t, growing, user) })
		wg.Go(func() { f.offer(t, offered) })
		wg.Wait()
		found, err := f.Conversations(t.Context(), messaging.ConversationQuery{UserID: user, Limit: 10})
		if err != nil || len(found) != 3 {
			t.Fatalf("%d conversations, %v", len(found), err)
		}
		for _, c := range found {
			if !c.Blocked {
				t.Errorf("a %s conversation of %d is not blocked", c.Kind, len(c.Members))
			}
		}
	}
}

func TestSignalsPassNoBlock(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent, user, third := uuid.New(), uuid.New(), uuid.New()
	c := f.support(t, agent, user, third)
	f.blocks(t, user, third)
	for _, tt := range []struct {
		from uuid.UUID
		want []uuid.UUID
	}{{user, []uuid.UUID{agent}}, {third, []uuid.UUID{agent}}, {agent, []uuid.UUID{user, third}}} {
		got, err := f.Audience(t.Context(), c, tt.from)
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("reaches %v, %v, want %v", got, err, tt.want)
		}
		for _, want := range tt.want {
			if !slices.Contains(got, want) {
				t.Errorf("does not reach %v", want)
			}
		}
	}
	if _, err := f.Audience(t.Context(), c, uuid.New()); !errors.Is(err, messaging.ErrNoConversation) {
		t.Errorf("a stranger's audience: %v", err)
	}
}

func TestBlocksAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	user, last := uuid.New(), uuid.New()
	_, err := f.pool.Exec(t.Context(), `INSERT INTO blocks (id, blocker_id, blocked_id)
		SELECT gen_random_uuid(), $1, gen_random_uuid() FROM generate_series(1, $2)`, user, messaging.MaxBlocks-1)
	if err != nil {
		t.Fatal(err)
	}
	f.blocks(t, user, last)
	one := messaging.Block{ID: uuid.New(), BlockerID: user, BlockedID: uuid.New(), CreatedAt: time.Now()}
	if err := f.Block(t.Context(), one); !errors.Is(err, messaging.ErrTooManyBlocks) {
		t.Errorf("one more: %v", err)
	}
	f.blocks(t, user, last) // there already
	f.unblocks(t, user, last)
	if err := f.Block(t.Context(), one); err != nil {
		t.Errorf("after one less: %v", err)
	}
}
