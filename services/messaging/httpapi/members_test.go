package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/httpapi"
)

const conversations = "/v1/conversations"

// support opens a support conversation of the user's.
func (f *fixture) support(user uuid.UUID) httpapi.Conversation {
	f.t.Helper()
	var c httpapi.Conversation
	if got := f.call(http.MethodPost, conversations, user, `{"kind":"support","subject":"Lost keys"}`, key(), &c); got != "201" {
		f.t.Fatal(got)
	}
	return c
}

func member(conversation, user uuid.UUID) string {
	return conversations + "/" + conversation.String() + "/members/" + user.String()
}

// want fails unless the call is answered so.
func (f *fixture) want(want, method, path string, user uuid.UUID) {
	f.t.Helper()
	if got := f.call(method, path, user, "", nil, nil); got != want {
		f.t.Errorf("%s %s: %s, want %s", method, path, got, want)
	}
}

// heard takes what was announced, as "event: how many are told".
func (f *fixture) heard() map[string]int {
	f.t.Helper()
	out := map[string]int{}
	for _, item := range f.told.take() {
		var payload struct {
			Event  string
			UserID uuid.UUID `json:"user_id"`
		}
		if err := json.Unmarshal(item.Payload, &payload); err != nil {
			f.t.Fatal(err)
		}
		out[string(item.Kind)+" "+payload.Event]++
	}
	return out
}

func TestSupportConversations(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.told.take()
	header := key()
	const body = `{"kind":"support","subject":" Lost keys "}`
	var first, again httpapi.Conversation
	for _, out := range []*httpapi.Conversation{&first, &again} {
		if got := f.call(http.MethodPost, conversations, f.client, body, header, out); got != "201" {
			t.Fatal(got)
		}
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the replay is another answer:\n%s", diff)
	}
	if first.Kind != "support" || first.Title != "Lost keys" || first.TaskID != nil || len(first.Members) != 3 {
		t.Errorf("conversation %+v", first)
	}
	if diff := cmp.Diff(map[string]int{"conversation opened": 3}, f.heard()); diff != "" {
		t.Error(diff)
	}
	if got := f.call(http.MethodPost, conversations, f.client, `{"kind":"support","subject":"Other"}`, header, nil); got != "422 idempotency_key_reused" {
		t.Error(got)
	}
	for body, want := range map[string]string{
		`{"kind":"support","subject":"  "}`:      "422 subject_invalid",
		`{"kind":"support","subject":"a\u0000"}`: "422 subject_invalid",
		`{"kind":"task","subject":"x"}`:          "422 invalid",
		`{"kind":"support"}`:                     "422 invalid",
	} {
		if got := f.call(http.MethodPost, conversations, f.client, body, key(), nil); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if got := f.call(http.MethodPost, conversations, f.client, body, nil, nil); got != "400 idempotency_key_missing" {
		t.Error(got)
	}

	agent := f.agents[0]
	f.want("200", http.MethodPut, member(first.ID, f.tasker), agent)
	f.want("200", http.MethodPut, member(first.ID, f.tasker), agent) // is there
	if diff := cmp.Diff(map[string]int{"conversation member_added": 4}, f.heard()); diff != "" {
		t.Error(diff)
	}
	messages := conversations + "/" + first.ID.String() + "/messages"
	f.want("200", http.MethodGet, messages, f.tasker)
	f.want("204", http.MethodDelete, member(first.ID, f.tasker), agent)
	f.want("204", http.MethodDelete, member(first.ID, f.tasker), agent) // is gone
	if diff := cmp.Diff(map[string]int{"conversation member_removed": 4}, f.heard()); diff != "" {
		t.Error(diff)
	}
	f.want("404 conversation_not_found", http.MethodGet, messages, f.tasker)
	f.want("204", http.MethodDelete, member(first.ID, f.client), f.client) // leaves
	f.want("404 conversation_not_found", http.MethodDelete, member(first.ID, f.client), f.client)
	f.want("204", http.MethodDelete, member(first.ID, f.agents[1]), agent)
	f.want("200", http.MethodPut, member(first.ID, f.agents[1]), f.agents[1]) // agents may come back
	var now httpapi.Conversation
	f.get(agent, conversations+"/"+first.ID.String(), &now)
	if len(now.Members) != 2 || now.Members[0].Role != "support" {
		t.Errorf("members %+v", now.Members)
	}
}

func TestSupportConversationsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.support(f.client)
	_, err := f.pool.Exec(t.Context(), `INSERT INTO members (conversation_id, user_id, role)
		SELECT $1, gen_random_uuid(), 'user' FROM generate_series(1, $2)`, c.ID, messaging.MaxMembers-len(c.Members)-1)
	if err != nil {
		t.Fatal(err)
	}
	f.want("200", http.MethodPut, member(c.ID, uuid.New()), f.agents[0])
	f.want("409 conversation_full", http.MethodPut, member(c.ID, uuid.New()), f.agents[0])
	f.want("422 user_id_invalid", http.MethodPut, member(c.ID, uuid.Nil), f.agents[0])
}

func TestSupportConversationsAreOpenedAtARate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	got := ""
	for range 6 { // the sixth within a minute, or the machine is slower than that
		got = f.call(http.MethodPost, conversations, f.client, `{"kind":"support","subject":"x"}`, key(), nil)
	}
	if got != "429 rate_limited" {
		t.Errorf("the sixth: %s", got)
	}
	f.support(f.tasker)
}

func TestAMarketplaceWithoutAgentsOffersNoSupport(t *testing.T) {
	t.Parallel()
	f := newFixture(t, withoutAgents)
	if got := f.call(http.MethodPost, conversations, f.client, `{"kind":"support","subject":"x"}`, key(), nil); got != "403 support_not_offered" {
		t.Error(got)
	}
}

func TestBlocksAreListedAndHold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	block := func(user uuid.UUID) string { return "/v1/blocks/" + user.String() }
	others := []uuid.UUID{uuid.New(), f.tasker, uuid.New()}
	for _, other := range others {
		f.want("204", http.MethodPut, block(other), f.client)
	}
	f.want("204", http.MethodPut, block(others[0]), f.client) // stays where it is
	f.want("422 user_id_invalid", http.MethodPut, block(f.client), f.client)
	f.want("422 user_id_invalid", http.MethodPut, block(uuid.Nil), f.client)
	f.want("422 invalid", http.MethodPut, "/v1/blocks/x", f.client)

	var got []uuid.UUID
	var list httpapi.BlockList
	path := "/v1/blocks?limit=2"
	for range 3 {
		list = httpapi.BlockList{}
		f.get(f.client, path, &list)
		for _, b := range list.Items {
			got = append(got, b.UserID)
		}
		if list.NextCursor == "" {
			break
		}
		path = "/v1/blocks?limit=2&cursor=" + list.NextCursor
		f.want("400 cursor_invalid", http.MethodGet, conversations+"?cursor="+list.NextCursor, f.client)
		f.want("400 cursor_invalid", http.MethodGet, path, f.tasker)
	}
	if diff := cmp.Diff([]uuid.UUID{others[2], others[1], others[0]}, got); diff != "" {
		t.Error(diff)
	}
	f.get(f.tasker, "/v1/blocks", &list)
	if len(list.Items) != 0 {
		t.Errorf("the blocked user sees %+v", list)
	}

	for _, user := range []uuid.UUID{f.client, f.tasker} {
		if got := f.call(http.MethodPost, f.messages(), user, `{"body":{"a":1}}`, key(), nil); got != "403 conversation_blocked" {
			t.Error(got)
		}
		f.want("200", http.MethodGet, f.messages(), user)
	}
	f.want("204", http.MethodDelete, block(f.tasker), f.client)
	f.want("204", http.MethodDelete, block(f.tasker), f.client)
	if got := f.call(http.MethodPost, f.messages(), f.tasker, `{"body":{"a":1}}`, key(), nil); got != "201" {
		t.Error(got)
	}
}

func TestUnreadMessagesAreCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.open(f.client, uuid.New(), uuid.New())
	for range 3 {
		if got := f.call(http.MethodPost, f.messages(), f.tasker, `{"body":{"a":1}}`, key(), nil); got != "201" {
			t.Fatal(got)
		}
	}
	f.handle(events.TaskChanged{TaskID: f.task, ClientID: f.client, TaskerID: &f.tasker, From: "open", To: "assigned", Version: 2})
	for user, want := range map[uuid.UUID]int64{f.client: 4, f.tasker: 1} {
		var sum httpapi.Unread
		f.get(user, conversations+"/unread", &sum)
		if diff := cmp.Diff(httpapi.Unread{Conversations: 1, Messages: want}, sum); diff != "" {
			t.Error(diff)
		}
		var list httpapi.ConversationList
		f.get(user, conversations+"?unread=true", &list)
		if len(list.Items) != 1 || list.Items[0].ID != f.conversation || list.Items[0].Unread != want {
			t.Errorf("list %+v", list)
		}
	}
	var list httpapi.ConversationList
	f.get(f.client, conversations+"?unread=true&limit=1", &list)
	if list.NextCursor != "" {
		t.Error("there is more than one with unread messages")
	}
	f.get(f.client, conversations+"?limit=1", &list)
	f.want("400 cursor_invalid", http.MethodGet, conversations+"?unread=true&cursor="+list.NextCursor, f.client)
	f.want("200", http.MethodGet, conversations+"?cursor="+list.NextCursor, f.client)
}

func TestHistoryIsReadBothWays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.handle(events.TaskChanged{TaskID: f.task, ClientID: f.client, TaskerID: &f.tasker, From: "open", To: "assigned", Version: 2})
	for i := 2; i <= 7; i++ {
		if got := f.call(http.MethodPost, f.messages(), f.client, fmt.Sprintf(`{"body":{"n":%d}}`, i), key(), nil); got != "201" {
			t.Fatal(got)
		}
	}
	for query, want := range map[string]string{
		"around=4&limit=3": "[5 4 3] 3 5",
		"around=1&limit=3": "[3 2 1] 0 3",
		"after=5":          "[7 6] 6 0",
		"after=2&limit=2":  "[4 3] 3 4",
		"before=3&limit=1": "[2] 2 2",
		"after=7":          "[] 0 0",
	} {
		var list httpapi.MessageList
		f.get(f.client, f.messages()+"?"+query, &list)
		seqs := []int64{}
		for _, m := range list.Items {
			seqs = append(seqs, m.Seq)
		}
		if got := fmt.Sprint(seqs, list.NextBefore, list.NextAfter); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	f.want("422 seq_unknown", http.MethodGet, f.messages()+"?around=8", f.client)
	f.want("422 invalid", http.MethodGet, f.messages()+"?around=0", f.client)
	f.want("422 invalid", http.MethodGet, f.messages()+"?after=0", f.client)
	f.want("422 range_ambiguous", http.MethodGet, f.messages()+"?around=1&before=2", f.client)
	f.want("422 invalid", http.MethodGet, f.messages()+"?after=-1", f.client)

	var list struct{ Items []map[string]any }
	f.get(f.client, f.messages()+"?before=2", &list)
	system := list.Items[0]
	if system["system"] != true {
		t.Errorf("message %v", system)
	}
	for _, absent := range []string{"from", "client_id"} {
		if value, ok := system[absent]; ok {
			t.Errorf("%s is there: %v", absent, value)
		}
	}
}

func TestAttachmentsOfAMessage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const good = `{"url":"https://files.example.com/a.jpg","name":"a.jpg","content_type":"image/jpeg","size":1000}`
	if got := f.call(http.MethodPost, f.messages(), f.client, `{"body":{"text":"look","attachments":[`+good+`]}}`, key(), nil); got != "201" {
		t.Error(got)
	}
	if got := f.call(http.MethodPost, f.messages(), f.client, `{"body":{"attachments":[`+good+`,{"url":"http://files.example.com"}]}}`, key(), nil); got != "422 attachment_invalid" {
		t.Error(got)
	}
}
