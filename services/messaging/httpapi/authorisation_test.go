package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// operation is one of the API, as somebody may try it.
type operation struct {
	method, path string // {…} stand for ids
	body         string
	// ofConversation says that it works on one conversation, which only members
	// may know of. What works on the caller's own things is nobody else's.
	ofConversation bool
	// wantBlocked is the answer to a member of a task's conversation of two, one
	// of whom blocks the other.
	wantBlocked string
}

var operations = []operation{
	{method: "GET", path: "/v1/conversations"},
	{method: "POST", path: "/v1/conversations", body: `{"kind":"support","subject":"x"}`},
	{method: "GET", path: "/v1/conversations/unread"},
	{method: "GET", path: "/v1/conversations/{conversation_id}", ofConversation: true, wantBlocked: "200"},
	{method: "GET", path: "/v1/conversations/{conversation_id}/messages", ofConversation: true, wantBlocked: "200"},
	{method: "POST", path: "/v1/conversations/{conversation_id}/messages", body: `{"body":{"a":1}}`, ofConversation: true, wantBlocked: "403 conversation_blocked"},
	{method: "PUT", path: "/v1/conversations/{conversation_id}/members/{user_id}", ofConversation: true, wantBlocked: "403 members_fixed"},
	{method: "DELETE", path: "/v1/conversations/{conversation_id}/members/{user_id}", ofConversation: true, wantBlocked: "403 members_fixed"},
	{method: "GET", path: "/v1/blocks"},
	{method: "PUT", path: "/v1/blocks/{user_id}"},
	{method: "DELETE", path: "/v1/blocks/{user_id}"},
}

func (o operation) name() string { return o.method + " " + o.path }

// try returns the status and the body, less what is of the request alone.
func (o operation) try(f *fixture, user, conversation, other uuid.UUID) (status int, body []byte) {
	f.t.Helper()
	path := strings.NewReplacer("{conversation_id}", conversation.String(), "{user_id}", other.String()).Replace(o.path)
	r := httptest.NewRequest(o.method, path, strings.NewReader(o.body))
	if user != uuid.Nil {
		r.Header.Set("Authorization", "Bearer "+f.tokens.Issue(f.t, user, uuid.New()))
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", uuid.NewString())
	r.Header.Set("X-Request-Id", "same")
	recorder := httptest.NewRecorder()
	f.router.ServeHTTP(recorder, r)
	return recorder.Code, recorder.Body.Bytes()
}

func answerOf(status int, body []byte) string {
	var problem struct{ Code string }
	if status < 400 || json.Unmarshal(body, &problem) != nil {
		return strconv.Itoa(status)
	}
	return fmt.Sprintf("%d %s", status, problem.Code)
}

// written is what the database holds; equal if nothing was written between.
func (f *fixture) written() string {
	f.t.Helper()
	var out string
	err := f.pool.QueryRow(f.t.Context(), `SELECT concat_ws(' ',
		(SELECT count(*) FROM conversations), (SELECT sum(head) FROM conversations),
		(SELECT count(*) FROM messages), (SELECT count(*) FROM members), (SELECT sum(read_seq) FROM members),
		(SELECT count(*) FROM blocks), (SELECT sum(head) FROM streams), (SELECT count(*) FROM idempotency_keys))`).Scan(&out)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// Whatever a conversation is to somebody who is no member, any more or at all,
// it is the same as one that does not exist.
func TestOnlyMembersKnowOfAConversation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	removed, stranger := uuid.New(), uuid.New()
	c := f.support(f.client).ID
	f.want("200", http.MethodPut, member(c, removed), f.agents[0])
	f.want("204", http.MethodDelete, member(c, removed), f.agents[0])
	if got := f.call(http.MethodPost, conversations+"/"+c.String()+"/messages", f.client, `{"body":{"secret":1}}`, key(), nil); got != "201" {
		t.Fatal(got)
	}
	f.told.take()
	for _, o := range operations {
		for who, user := range map[string]uuid.UUID{"a stranger": stranger, "a removed member": removed} {
			before := f.written()
			f.told.take()
			for _, other := range []uuid.UUID{user, f.client, uuid.New()} {
				status, body := o.try(f, user, c, other)
				if !o.ofConversation {
					if bytes.Contains(body, []byte(c.String())) || bytes.Contains(body, []byte(f.client.String())) {
						t.Errorf("%s tells %s: %s", o.name(), who, body)
					}
					break
				}
				if got := answerOf(status, body); got != "404 conversation_not_found" {
					t.Errorf("%s answers %s: %s", o.name(), who, got)
				}
				_, nowhere := o.try(f, user, uuid.New(), other)
				if diff := cmp.Diff(string(nowhere), string(body)); diff != "" {
					t.Errorf("%s answers %s in another way than where nothing is (-nowhere +here):\n%s", o.name(), who, diff)
				}
			}
			if o.ofConversation && (f.written() != before || len(f.told.take()) != 0) {
				t.Errorf("%s writes for %s", o.name(), who)
			}
		}
	}
}

func TestNobodyWithoutATokenGetsAnything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.written()
	for _, o := range operations {
		status, body := o.try(f, uuid.Nil, f.conversation, f.client)
		if got := answerOf(status, body); got != "401 token_missing" {
			t.Errorf("%s: %s", o.name(), got)
		}
	}
	if after := f.written(); after != before {
		t.Errorf("written: %s, before %s", after, before)
	}
}

func TestWhoIsBlockedReadsAndDoesNotWrite(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.want("204", http.MethodPut, "/v1/blocks/"+f.tasker.String(), f.client)
	f.told.take()
	before := f.written()
	for _, o := range operations {
		if !o.ofConversation {
			continue
		}
		var answers []string
		for _, user := range []uuid.UUID{f.client, f.tasker} {
			status, body := o.try(f, user, f.conversation, uuid.New())
			if got := answerOf(status, body); got != o.wantBlocked {
				t.Errorf("%s: %s, want %s", o.name(), got, o.wantBlocked)
			}
			answers = append(answers, string(body))
		}
		// The two can't tell from their answers who blocks whom.
		if answers[0] != answers[1] {
			t.Errorf("%s answers the blocker and the blocked:\n%s\n%s", o.name(), answers[0], answers[1])
		}
	}
	if f.written() != before || len(f.told.take()) != 0 {
		t.Error("something is written past a block")
	}
}

func TestOnlyAgentsChangeMembers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.support(f.client).ID
	f.want("200", http.MethodPut, member(c, f.tasker), f.agents[0])
	f.told.take()
	before := f.written()
	for _, other := range []uuid.UUID{uuid.New(), f.tasker, f.agents[0]} {
		f.want("403 not_an_agent", http.MethodPut, member(c, other), f.client)
		f.want("403 not_an_agent", http.MethodDelete, member(c, other), f.client)
	}
	// An agent's rights end with support conversations.
	f.want("404 conversation_not_found", http.MethodPut, member(f.conversation, f.agents[0]), f.agents[0])
	f.want("404 conversation_not_found", http.MethodPut, member(f.conversation, f.agents[1]), f.agents[0])
	f.want("404 conversation_not_found", http.MethodDelete, member(f.conversation, f.client), f.agents[0])
	if f.written() != before || len(f.told.take()) != 0 {
		t.Error("something is written")
	}
}

// An operation that is not in the list above is not tested by it.
func TestEveryOperationIsTried(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	routes, ok := f.router.(chi.Routes)
	if !ok {
		t.Fatal("the router does not tell its routes")
	}
	listed := map[string]bool{}
	for _, o := range operations {
		listed[o.name()] = true
	}
	err := chi.Walk(routes, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !listed[method+" "+route] {
			t.Errorf("nobody tries %s %s without the right to it", method, route)
		}
		delete(listed, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range listed {
		t.Errorf("there is no %s", name)
	}
}
