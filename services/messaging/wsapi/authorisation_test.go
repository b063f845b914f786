package wsapi_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
)

// support opens a support conversation; tell tells its members.
func (w *world) support(agent, user uuid.UUID, tell func([]messaging.Item)) pair {
	w.T.Helper()
	c := messaging.Conversation{
		ID: uuid.Must(uuid.NewV7()), Kind: messaging.ConversationSupport, Title: "Lost keys",
		Members: []messaging.Member{{UserID: agent, Role: messaging.RoleSupport}, {UserID: user, Role: messaging.RoleUser}},
	}
	items, err := w.Store.Open(w.T.Context(), c, user)
	if err != nil {
		w.T.Fatal(err)
	}
	tell(items)
	return pair{Client: user, Tasker: agent, Conversation: c.ID}
}

// add and remove change the members of a conversation, as an agent does.

func (w *world) add(conversation, agent, user uuid.UUID, tell func([]messaging.Item)) {
	w.T.Helper()
	w.changeMembers(conversation, messaging.MemberChange{ActorID: agent, Member: messaging.Member{UserID: user, Role: messaging.RoleUser}}, tell)
}

func (w *world) remove(conversation, agent, user uuid.UUID, tell func([]messaging.Item)) {
	w.T.Helper()
	w.changeMembers(conversation, messaging.MemberChange{ActorID: agent, Member: messaging.Member{UserID: user}, Removed: true}, tell)
}

func (w *world) changeMembers(conversation uuid.UUID, change messaging.MemberChange, tell func([]messaging.Item)) {
	w.T.Helper()
	items, err := w.Store.ChangeMembers(w.T.Context(), conversation, change.Member.UserID,
		func(messaging.Conversation) (*messaging.MemberChange, error) { return &change, nil })
	if err != nil {
		w.T.Fatal(err)
	}
	tell(items)
}

// commands are those that work on a conversation, all of them; see
// TestEveryCommandIsTried.
func commands(conversation uuid.UUID) []map[string]any {
	return []map[string]any{
		sendFields(pair{Conversation: conversation}, uuid.New(), "let me in"),
		{"op": "read", "conversation_id": conversation, "seq": 1},
		{"op": "typing", "conversation_id": conversation},
		{"op": "history", "conversation_id": conversation},
	}
}

// opsOnConversations are the ops that name a conversation, sorted.
func opsOnConversations() []string {
	var ops []string
	for _, op := range append(door.Ops(), door.OpAuth) {
		if required, optional := door.Fields(op); slices.Contains(slices.Concat(required, optional), "conversation_id") {
			ops = append(ops, op)
		}
	}
	slices.Sort(ops)
	return ops
}

// A command that is not in the list above is not tested by it.
func TestEveryCommandIsTried(t *testing.T) {
	t.Parallel()
	var tried []string
	for _, command := range commands(uuid.New()) {
		op, _ := command["op"].(string)
		tried = append(tried, op)
	}
	slices.Sort(tried)
	if diff := cmp.Diff(opsOnConversations(), tried); diff != "" {
		t.Errorf("what nobody tries without the right to it (-there +tried):\n%s", diff)
	}
}

func (w *world) written() (out string) {
	w.T.Helper()
	err := w.Pool.QueryRow(w.T.Context(), `SELECT concat_ws(' ', (SELECT sum(head) FROM conversations),
		(SELECT count(*) FROM messages), (SELECT sum(read_seq) FROM members), (SELECT sum(head) FROM streams))`).Scan(&out)
	if err != nil {
		w.T.Fatal(err)
	}
	return out
}

// A removed member is told, and from then on knows no more of the conversation
// than a stranger, who can't tell it from one that does not exist.
func TestOnlyMembersKnowOfAConversation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	agent, user := uuid.New(), uuid.New()
	member, removed, stranger := pod.connect(t, agent, ""), pod.connect(t, user, ""), pod.connect(t, uuid.New(), "")
	p := w.support(agent, user, pod.Hub.Announce)
	if opened := removed.waitEvents("conversation", 1)[0]; opened.Event != "opened" || opened.ConversationID != p.Conversation {
		t.Errorf("event %+v", opened)
	}
	removed.send(p, "one")
	w.remove(p.Conversation, agent, user, pod.Hub.Announce)
	if told := removed.waitEvents("conversation", 2)[1]; told.Event != "member_removed" || told.UserID != user {
		t.Errorf("event %+v", told)
	}
	before := w.written()
	for _, c := range []*peer{removed, stranger} {
		for i, command := range commands(p.Conversation) {
			here := c.wantRefused(command, "conversation_not_found")
			nowhere := c.wantRefused(commands(uuid.New())[i], "conversation_not_found")
			if *here.Error != *nowhere.Error {
				t.Errorf("%v: %+v, and where nothing is %+v", command["op"], here.Error, nowhere.Error)
			}
		}
	}
	if after := w.written(); after != before {
		t.Errorf("written: %s, before %s", after, before)
	}
	member.send(p, "two")
	member.waitEvents("message", 2)
	items, err := w.Store.ItemsAfter(t.Context(), user, 0, 10)
	if err != nil || len(items) != 3 {
		t.Errorf("the removed member's stream is %+v, %v", items, err)
	}
	if events := removed.durable(); len(events) != 3 {
		t.Errorf("the removed member has heard %+v", events)
	}
}

// What typing is held back for is that it was told: a stranger who asks again at
// once is not told that there is such a conversation.
func TestAStrangersTypingIsRefusedEachTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	stranger := pod.connect(t, uuid.New(), "")
	for range 3 {
		stranger.wantRefused(map[string]any{"op": "typing", "conversation_id": p.Conversation}, "conversation_not_found")
	}
}

func TestBlockedUsersNeitherSendNorType(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pod := w.newPod(podOptions{})
	p := w.Open()
	client, tasker := pod.connect(t, p.Client, ""), pod.connect(t, p.Tasker, "")
	client.send(p, "before")
	block := messaging.Block{ID: uuid.New(), BlockerID: p.Tasker, BlockedID: p.Client, CreatedAt: time.Now()}
	if err := w.Store.Block(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	before := w.written()
	byClient := client.wantRefused(sendFields(p, uuid.New(), "no"), "conversation_blocked")
	byTasker := tasker.wantRefused(sendFields(p, uuid.New(), "no"), "conversation_blocked")
	if *byClient.Error != *byTasker.Error {
		t.Errorf("the two can tell who blocks whom: %+v, %+v", byClient.Error, byTasker.Error)
	}
	for _, c := range []*peer{client, tasker} {
		if r := c.call(map[string]any{"op": "typing", "conversation_id": p.Conversation}); r.OK == nil {
			t.Errorf("typing: %+v", r.Error)
		}
		// What was written stays readable.
		r := c.call(map[string]any{"op": "history", "conversation_id": p.Conversation})
		if r.OK == nil || len(r.OK.Messages) != 1 || r.OK.Messages[0].Seq != 1 || string(r.OK.Messages[0].Body) != `{"text":"before"}` {
			t.Errorf("history: %+v %+v", r.OK, r.Error)
		}
	}
	if after := w.written(); after != before {
		t.Errorf("written: %s, before %s", after, before)
	}
	if err := w.Store.Unblock(t.Context(), p.Tasker, p.Client); err != nil {
		t.Fatal(err)
	}
	// Signals overtake nothing on their way: the one from before would be there.
	tasker.send(p, "after")
	client.waitEvents("message", 2)
	for _, c := range []*peer{client, tasker} {
		c.mu.Lock()
		for _, e := range c.events {
			if e.Op == "typing" {
				t.Errorf("a signal passes a block: %+v", e)
			}
		}
		c.mu.Unlock()
	}
}
