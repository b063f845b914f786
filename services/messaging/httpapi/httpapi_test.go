package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
	"github.com/marketplane/marketplane/services/messaging/httpapi"
	"github.com/marketplane/marketplane/services/messaging/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// announcements is an announcer that remembers what was announced.
type announcements struct {
	mu    sync.Mutex
	items []messaging.Item
}

func (a *announcements) Announce(items []messaging.Item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.items = append(a.items, items...)
}

func (*announcements) Signal([]uuid.UUID, messaging.Signal) {}

// take returns what was announced since it was last called.
func (a *announcements) take() []messaging.Item {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.items
	a.items = nil
	return taken
}

// sendRate refills too slowly for a test to see it, however slow the machine.
var sendRate = messaging.Rate{PerSecond: 1.0 / 3600, Burst: 40}

type fixture struct {
	t      *testing.T
	tokens *testkit.Tokens
	router http.Handler

	client, tasker, task, conversation uuid.UUID
	open                               func(client, tasker, task uuid.UUID)
	// agents are the marketplace's support.
	agents []uuid.UUID
	pool   *pgxpool.Pool
	inbox  *store.Inbox
	told   *announcements
}

// withoutAgents makes a fixture of a marketplace that has no support.
func withoutAgents(f *fixture) { f.agents = nil }

func newFixture(t *testing.T, changes ...func(*fixture)) *fixture {
	t.Helper()
	log, registry := testkit.Logger(t), prometheus.NewRegistry()
	pool := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: store.Migrations()}).Pool(t, contract.ComponentMessaging)
	s := store.New(pool, time.Now)
	told := &announcements{}
	queue := commit.NewQueue(s, told.Announce, commit.Options{}, log, registry)
	if err := queue.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := queue.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{
		t: t, tokens: testkit.NewTokens(t), client: uuid.New(), tasker: uuid.New(), task: uuid.New(),
		agents: []uuid.UUID{uuid.New(), uuid.New()}, pool: pool, inbox: s.NewInbox(told.Announce), told: told,
	}
	for _, change := range changes {
		change(f)
	}
	router := web.NewRouter(web.Options{Log: log, Registry: registry, Instance: "test"})
	httpapi.Register(web.NewAPI(router, "test", log, f.tokens), messaging.NewService(s, queue, told, sendRate, time.Now, f.agents...),
		idempotency.NewKeeper(&postgres.Transactor{Pool: pool}, time.Now))
	f.router = router
	f.open = func(client, tasker, task uuid.UUID) {
		t.Helper()
		f.handle(events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"})
	}
	f.open(f.client, f.tasker, f.task)
	var list httpapi.ConversationList
	f.get(f.client, "/v1/conversations", &list)
	f.conversation = list.Items[0].ID
	return f
}

// handle gives another service's event its effect.
func (f *fixture) handle(payload events.Payload) {
	f.t.Helper()
	data, err := json.Marshal(payload)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := pgx.BeginFunc(f.t.Context(), f.pool, func(tx pgx.Tx) error {
		return f.inbox.Handle(f.t.Context(), tx, []events.Record{{ID: uuid.New(), Type: payload.EventType(), Data: data}})
	}); err != nil {
		f.t.Fatal(err)
	}
	f.inbox.After()
}

// call returns the status, and the problem's code if it is one.
func (f *fixture) call(method, path string, user uuid.UUID, body string, header map[string]string, out any) string {
	f.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if user != uuid.Nil {
		r.Header.Set("Authorization", "Bearer "+f.tokens.Issue(f.t, user, uuid.New()))
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	recorder := httptest.NewRecorder()
	f.router.ServeHTTP(recorder, r)
	answer := recorder.Body.Bytes()
	if recorder.Code >= 400 {
		var problem web.Problem
		if err := json.Unmarshal(answer, &problem); err != nil {
			f.t.Fatalf("%s %s: %d with %s", method, path, recorder.Code, answer)
		}
		return fmt.Sprintf("%d %s", recorder.Code, problem.Code)
	}
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			f.t.Fatal(err)
		}
	}
	return strconv.Itoa(recorder.Code)
}

func (f *fixture) get(user uuid.UUID, path string, out any) {
	f.t.Helper()
	if got := f.call(http.MethodGet, path, user, "", nil, out); got != "200" {
		f.t.Fatalf("GET %s: %s", path, got)
	}
}

func (f *fixture) messages() string {
	return "/v1/conversations/" + f.conversation.String() + "/messages"
}

func key() map[string]string { return map[string]string{"Idempotency-Key": uuid.NewString()} }

func TestMessagesAreSentOnceAndListed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var first, again httpapi.Sent
	header := key()
	if got := f.call(http.MethodPost, f.messages(), f.client, `{"body":{"text":"1"}}`, header, &first); got != "201" {
		t.Fatal(got)
	}
	if got := f.call(http.MethodPost, f.messages(), f.client, `{"body": {"text": "1"}}`, header, &again); got != "201" {
		t.Fatal(got)
	}
	if first.Seq != 1 || first.Duplicate || again.ID != first.ID || !again.Duplicate {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if got := f.call(http.MethodPost, f.messages(), f.client, `{"body":{"text":"2"}}`, header, nil); got != "422 idempotency_key_reused" {
		t.Error(got)
	}
	for i := 2; i <= 5; i++ {
		if got := f.call(http.MethodPost, f.messages(), f.tasker, fmt.Sprintf(`{"body":{"text":"%d"}}`, i), key(), nil); got != "201" {
			t.Fatal(got)
		}
	}
	var got []string
	path := f.messages() + "?limit=2"
	for range 10 {
		var list httpapi.MessageList
		f.get(f.client, path, &list)
		for _, m := range list.Items {
			got = append(got, string(m.Body))
		}
		if list.NextBefore == 0 {
			break
		}
		path = fmt.Sprintf("%s?limit=2&before=%d", f.messages(), list.NextBefore)
	}
	want := []string{`{"text": "5"}`, `{"text": "4"}`, `{"text": "3"}`, `{"text": "2"}`, `{"text": "1"}`}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], ": ", ":") // as encoders compact it
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConversationsAreListedWithCursors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 4 {
		f.open(f.client, uuid.New(), f.task)
	}
	var seen []uuid.UUID
	path := "/v1/conversations?limit=2"
	var list httpapi.ConversationList
	for range 10 {
		list = httpapi.ConversationList{}
		f.get(f.client, path, &list)
		for _, c := range list.Items {
			seen = append(seen, c.ID)
		}
		if list.NextCursor == "" {
			break
		}
		cursor := list.NextCursor
		path = "/v1/conversations?limit=2&cursor=" + cursor
		if got := f.call(http.MethodGet, path+"&task_id="+f.task.String(), f.client, "", nil, nil); got != "400 cursor_invalid" {
			t.Errorf("a cursor of another filter: %s", got)
		}
		if got := f.call(http.MethodGet, path, f.tasker, "", nil, nil); got != "400 cursor_invalid" {
			t.Errorf("another user's cursor: %s", got)
		}
	}
	if len(seen) != 5 || seen[4] != f.conversation {
		t.Errorf("listed %v", seen)
	}
	f.get(f.client, "/v1/conversations?task_id="+uuid.NewString(), &list)
	var one httpapi.Conversation
	f.get(f.tasker, "/v1/conversations/"+f.conversation.String(), &one)
	if one.Kind != "task" || *one.TaskID != f.task || len(one.Members) != 2 || one.Title != "Shelves" {
		t.Errorf("conversation %+v", one)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stranger := uuid.New()
	tests := map[string]struct {
		method, path string
		user         uuid.UUID
		body         string
		header       map[string]string
		want         string
	}{
		"no token":             {http.MethodGet, "/v1/conversations", uuid.Nil, "", nil, "401 token_missing"},
		"wrong token":          {http.MethodGet, "/v1/conversations", uuid.Nil, "", map[string]string{"Authorization": "Bearer x"}, "401 token_invalid"},
		"a stranger looks":     {http.MethodGet, "/v1/conversations/" + f.conversation.String(), stranger, "", nil, "404 conversation_not_found"},
		"a stranger reads":     {http.MethodGet, f.messages(), stranger, "", nil, "404 conversation_not_found"},
		"a stranger writes":    {http.MethodPost, f.messages(), stranger, `{"body":{"a":1}}`, key(), "404 conversation_not_found"},
		"no such conversation": {http.MethodGet, "/v1/conversations/" + uuid.NewString(), f.client, "", nil, "404 conversation_not_found"},
		"not a UUID":           {http.MethodGet, "/v1/conversations/x", f.client, "", nil, "422 invalid"},
		"task not a UUID":      {http.MethodGet, "/v1/conversations?task_id=x", f.client, "", nil, "422 invalid"},
		"limit too high":       {http.MethodGet, "/v1/conversations?limit=101", f.client, "", nil, "422 invalid"},
		"a made-up cursor":     {http.MethodGet, "/v1/conversations?cursor=x", f.client, "", nil, "400 cursor_invalid"},
		"negative before":      {http.MethodGet, f.messages() + "?before=-1", f.client, "", nil, "422 invalid"},
		"no key":               {http.MethodPost, f.messages(), f.client, `{"body":{"a":1}}`, nil, "400 idempotency_key_missing"},
		"key is no UUID":       {http.MethodPost, f.messages(), f.client, `{"body":{"a":1}}`, map[string]string{"Idempotency-Key": "x"}, "400 idempotency_key_invalid"},
		"unknown field":        {http.MethodPost, f.messages(), f.client, `{"body":{"a":1},"to":"all"}`, key(), "422 invalid"},
		"no body":              {http.MethodPost, f.messages(), f.client, `{}`, key(), "422 invalid"},
		"body is text":         {http.MethodPost, f.messages(), f.client, `{"body":"hi"}`, key(), "422 body_invalid"},
		"malformed JSON":       {http.MethodPost, f.messages(), f.client, `{"body":`, key(), "400 malformed"},
		"too large":            {http.MethodPost, f.messages(), f.client, `{"body":{"a":"` + strings.Repeat("x", messaging.MaxBody) + `"}}`, key(), "422 body_too_large"},
		"far too large":        {http.MethodPost, f.messages(), f.client, `{"body":{"a":"` + strings.Repeat("x", web.DefaultMaxBody) + `"}}`, key(), "413 too_large"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := f.call(tt.method, tt.path, tt.user, tt.body, tt.header, nil); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAUserWhoSendsTooFastIsToldWhenToGoOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range sendRate.Burst + 1 {
		want := "201"
		if i == sendRate.Burst {
			want = "429 rate_limited"
		}
		if got := f.call(http.MethodPost, f.messages(), f.client, `{"body":{"a":1}}`, key(), nil); got != want {
			t.Fatalf("message %d: %s, want %s", i+1, got, want)
		}
	}
}
