package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/tasks"
	"github.com/marketplane/marketplane/services/tasks/httpapi"
	"github.com/marketplane/marketplane/services/tasks/metrics"
	"github.com/marketplane/marketplane/services/tasks/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// server serves the API on a database of the test's own.
type server struct {
	*httptest.Server
	tokens   *testkit.Tokens
	registry *prometheus.Registry
}

func newServer(t *testing.T) *server {
	t.Helper()
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentTasks: store.Migrations()})
	transactor := &postgres.Transactor{Pool: database.Pool(t, contract.ComponentTasks)}
	s := &server{tokens: testkit.NewTokens(t), registry: prometheus.NewRegistry()}
	router := web.NewRouter(web.Options{Log: testkit.Logger(t), Registry: s.registry, Instance: "test"})
	service := tasks.NewService(store.New(transactor), metrics.New(s.registry), time.Now)
	httpapi.Register(web.NewAPI(router, "test", testkit.Logger(t), s.tokens), service, idempotency.NewKeeper(transactor, time.Now))
	s.Server = httptest.NewServer(router)
	t.Cleanup(s.Close)
	return s
}

// person is a user with a token.
type person struct {
	t     *testing.T
	s     *server
	id    uuid.UUID
	token string
}

func (s *server) person(t *testing.T) person {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	return person{t: t, s: s, id: id, token: s.tokens.Issue(t, id, uuid.New())}
}

// answer is what came back.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	problem web.Problem
}

// call sends a request; headers are name, value, ...
func (p person) call(method, path, body string, headers ...string) answer {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), method, p.s.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := p.s.Client().Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	a := answer{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		p.t.Fatal(err)
	}
	if a.status >= 400 {
		if got := a.header.Get("Content-Type"); got != "application/problem+json" {
			p.t.Errorf("%s %s: %d as %q, want a problem", method, path, a.status, got)
		}
		if err := json.Unmarshal(a.body, &a.problem); err != nil {
			p.t.Errorf("%s %s: %d with a body that is no problem: %v", method, path, a.status, err)
		}
	}
	return a
}

// do is call for what must succeed; it decodes the body into T.
func do[T any](p person, status int, method, path, body string, headers ...string) (T, answer) {
	p.t.Helper()
	var v T
	a := p.call(method, path, body, headers...)
	if a.status != status {
		p.t.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return v, a
}

const (
	lawn = `{"title":"Mow the lawn","description":"Front and back.","budget":{"amount_minor":2500,"currency":"EUR"},"location":"Berlin"}`
	bid  = `{"price":{"amount_minor":2000,"currency":"EUR"},"message":"Today."}`
)

func (p person) post() httpapi.Task {
	p.t.Helper()
	task, _ := do[httpapi.Task](p, 201, "POST", "/v1/tasks", lawn, "Idempotency-Key", uuid.NewString())
	return task
}

func (p person) offer(task httpapi.Task) httpapi.Offer {
	p.t.Helper()
	offer, _ := do[httpapi.Offer](p, 201, "POST", taskPath(task)+"/offers", bid, "Idempotency-Key", uuid.NewString())
	return offer
}

func taskPath(task httpapi.Task) string { return "/v1/tasks/" + task.ID.String() }

func offerPath(offer httpapi.Offer) string {
	return "/v1/tasks/" + offer.TaskID.String() + "/offers/" + offer.ID.String()
}

func TestJourney(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, tasker, other := s.person(t), s.person(t), s.person(t)

	task, created := do[httpapi.Task](client, 201, "POST", "/v1/tasks", lawn, "Idempotency-Key", "post-1")
	if got := created.header.Get("Location"); got != taskPath(task) {
		t.Errorf("Location = %q, want %q", got, taskPath(task))
	}
	if created.header.Get("ETag") != `"1"` || created.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("headers = %v, want ETag \"1\" and no replay", created.header)
	}
	want := httpapi.Task{
		ID: task.ID, ClientID: client.id, Title: "Mow the lawn", Description: "Front and back.",
		Budget: httpapi.Money{AmountMinor: 2500, Currency: "EUR"}, Location: "Berlin",
		Status: "open", Version: 1, CreatedAt: task.CreatedAt, UpdatedAt: task.CreatedAt,
	}
	if diff := cmp.Diff(want, task); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
	if _, got := do[httpapi.Task](tasker, 200, "GET", taskPath(task), ""); got.header.Get("ETag") != `"1"` || !bytes.Equal(got.body, created.body) {
		t.Errorf("a tasker gets %s with %v, want what was created", got.body, got.header)
	}

	offer, rival := tasker.offer(task), other.offer(task)
	for who, wantIDs := range map[person][]uuid.UUID{client: {rival.ID, offer.ID}, tasker: {offer.ID}, other: {rival.ID}} {
		list, _ := do[httpapi.OfferList](who, 200, "GET", taskPath(task)+"/offers", "")
		var ids []uuid.UUID
		for _, o := range list.Items {
			ids = append(ids, o.ID)
		}
		if diff := cmp.Diff(wantIDs, ids); diff != "" {
			t.Errorf("offers that %s sees (-want +got):\n%s", who.id, diff)
		}
	}

	assigned, got := do[httpapi.Task](client, 200, "POST", offerPath(offer)+"/accept", "", "If-Match", `"1"`)
	if assigned.Status != "assigned" || assigned.TaskerID == nil || *assigned.TaskerID != tasker.id || got.header.Get("ETag") != `"2"` {
		t.Errorf("accepted: %+v with ETag %s", assigned, got.header.Get("ETag"))
	}
	started, _ := do[httpapi.Task](tasker, 200, "POST", taskPath(task)+"/start", "", "If-Match", "*")
	submitted, _ := do[httpapi.Task](tasker, 200, "POST", taskPath(task)+"/submit", `{"note":"All green."}`)
	completed, _ := do[httpapi.Task](client, 200, "POST", taskPath(task)+"/complete", "")
	statuses := []string{started.Status, submitted.Status, completed.Status}
	if diff := cmp.Diff([]string{"in_progress", "submitted", "completed"}, statuses); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if completed.SubmissionNote != "All green." || completed.Version != 5 {
		t.Errorf("completed: %+v", completed)
	}

	wantMetrics := `
# HELP marketplane_tasks_transitions_total Attempts to move a task to another status, by the status before (none: it is being posted), the one asked for, and result.
# TYPE marketplane_tasks_transitions_total counter
marketplane_tasks_transitions_total{from="none",result="done",to="open"} 1
marketplane_tasks_transitions_total{from="open",result="done",to="assigned"} 1
marketplane_tasks_transitions_total{from="assigned",result="done",to="in_progress"} 1
marketplane_tasks_transitions_total{from="in_progress",result="done",to="submitted"} 1
marketplane_tasks_transitions_total{from="submitted",result="done",to="completed"} 1
`
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(wantMetrics), "marketplane_tasks_transitions_total"); err != nil {
		t.Error(err)
	}
}

func TestSubmitWithoutBody(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, tasker := s.person(t), s.person(t)
	task := client.post()
	do[httpapi.Task](client, 200, "POST", offerPath(tasker.offer(task))+"/accept", "")
	do[httpapi.Task](tasker, 200, "POST", taskPath(task)+"/start", "")
	if got, _ := do[httpapi.Task](tasker, 200, "POST", taskPath(task)+"/submit", ""); got.Status != "submitted" {
		t.Errorf("status = %s, want submitted", got.Status)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, tasker := s.person(t), s.person(t)
	task := client.post()
	offers := taskPath(task) + "/offers"
	invalid := func(pointer string) []web.ProblemError {
		return []web.ProblemError{{In: "body", Pointer: pointer}}
	}
	tests := map[string]struct {
		method, path, body string
		headers            []string
		token              *string
		wantStatus         int
		wantCode           string
		wantErrors         []web.ProblemError
	}{
		"malformed JSON":      {method: "POST", path: "/v1/tasks", body: `{"title":`, wantStatus: 400, wantCode: "malformed", wantErrors: invalid("")},
		"no JSON":             {method: "POST", path: "/v1/tasks", body: `hello`, wantStatus: 400, wantCode: "malformed", wantErrors: invalid("")},
		"two documents":       {method: "POST", path: "/v1/tasks", body: lawn + lawn, wantStatus: 400, wantCode: "malformed", wantErrors: invalid("")},
		"no body":             {method: "POST", path: "/v1/tasks", wantStatus: 400, wantCode: "malformed"},
		"null":                {method: "POST", path: "/v1/tasks", body: `null`, wantStatus: 422, wantCode: "invalid", wantErrors: invalid("")},
		"a list":              {method: "POST", path: "/v1/tasks", body: `[]`, wantStatus: 422, wantCode: "invalid", wantErrors: invalid("")},
		"another media type":  {method: "POST", path: "/v1/tasks", body: lawn, headers: []string{"Content-Type", "text/plain"}, wantStatus: 415, wantCode: "unsupported_media_type", wantErrors: invalid("")},
		"unknown field":       {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"title"`, `"status":"completed","title"`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/status")},
		"unknown field below": {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"amount_minor"`, `"a/b":1,"amount_minor"`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/budget/a~1b")},
		"no title":            {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"title":"Mow the lawn",`, ``, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("")},
		"a number as title":   {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"Mow the lawn"`, `7`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/title")},
		"a blank title":       {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"Mow the lawn"`, `"  "`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/title")},
		"a NUL in the title":  {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `"Mow the lawn"`, `"a\u0000b"`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/title")},
		"cents of cents":      {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `2500`, `25.5`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/budget/amount_minor")},
		"beyond 64 bits":      {method: "POST", path: "/v1/tasks", body: strings.Replace(lawn, `2500`, `1e30`, 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/budget/amount_minor")},
		"oversized":           {method: "POST", path: "/v1/tasks", body: `{"title":"` + strings.Repeat("a", web.DefaultMaxBody) + `"}`, wantStatus: 413, wantCode: "too_large"},
		"no token":            {method: "GET", path: "/v1/tasks", token: new(string), wantStatus: 401, wantCode: "token_missing"},
		"wrong token":         {method: "GET", path: "/v1/tasks", token: new("abc.def.ghi"), wantStatus: 401, wantCode: "token_invalid"},
		"wrong token, posted": {method: "POST", path: "/v1/tasks", body: `{`, token: new("abc.def.ghi"), wantStatus: 401, wantCode: "token_invalid"},
		"no key":              {method: "POST", path: "/v1/tasks", body: lawn, headers: []string{"Idempotency-Key", ""}, wantStatus: 400, wantCode: "idempotency_key_missing"},
		"no key for an offer": {method: "POST", path: offers, body: bid, headers: []string{"Idempotency-Key", ""}, wantStatus: 400, wantCode: "idempotency_key_missing"},
		"a key with spaces":   {method: "POST", path: "/v1/tasks", body: lawn, headers: []string{"Idempotency-Key", "a b"}, wantStatus: 400, wantCode: "idempotency_key_invalid"},
		"offer elsewhere":     {method: "POST", path: offers, body: strings.Replace(bid, "EUR", "CHF", 1), wantStatus: 422, wantCode: "invalid", wantErrors: invalid("/price/currency")},
		"task id":             {method: "GET", path: "/v1/tasks/abc", wantStatus: 422, wantCode: "invalid", wantErrors: []web.ProblemError{{In: "path", Name: "task_id"}}},
		"no such task":        {method: "GET", path: "/v1/tasks/" + uuid.NewString(), wantStatus: 404, wantCode: "not_found"},
		"unknown status":      {method: "GET", path: "/v1/tasks?status=lost", wantStatus: 422, wantCode: "invalid", wantErrors: []web.ProblemError{{In: "query", Name: "status"}}},
		"limit of 0":          {method: "GET", path: "/v1/tasks?limit=0", wantStatus: 422, wantCode: "invalid", wantErrors: []web.ProblemError{{In: "query", Name: "limit"}}},
		"limit of 101":        {method: "GET", path: "/v1/tasks?limit=101", wantStatus: 422, wantCode: "invalid", wantErrors: []web.ProblemError{{In: "query", Name: "limit"}}},
		"cursor":              {method: "GET", path: "/v1/tasks?cursor=abc", wantStatus: 400, wantCode: "cursor_invalid"},
		"If-Match":            {method: "POST", path: taskPath(task) + "/cancel", headers: []string{"If-Match", "1"}, wantStatus: 400, wantCode: "if_match_malformed"},
		"stale":               {method: "POST", path: taskPath(task) + "/cancel", headers: []string{"If-Match", `"7"`}, wantStatus: 412, wantCode: "version_mismatch"},
		"illegal":             {method: "POST", path: taskPath(task) + "/complete", wantStatus: 409, wantCode: "illegal_transition"},
		"forbidden":           {method: "POST", path: taskPath(task) + "/start", wantStatus: 403, wantCode: "forbidden"},
		"no such route":       {method: "GET", path: "/v1/tasks/" + task.ID.String() + "/nothing", wantStatus: 404, wantCode: "no_such_route"},
		"no such method":      {method: "DELETE", path: taskPath(task), wantStatus: 405, wantCode: "method_not_allowed"},
	}
	t.Run("refused", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				who := client
				if test.path == offers {
					who = tasker
				}
				who.t = t
				if test.token != nil {
					who.token = *test.token
				}
				got := who.call(test.method, test.path, test.body, append([]string{"Idempotency-Key", uuid.NewString()}, test.headers...)...)
				if got.status != test.wantStatus || got.problem.Code != test.wantCode {
					t.Fatalf("%d %s, want %d %s", got.status, got.body, test.wantStatus, test.wantCode)
				}
				if got.problem.Status != test.wantStatus || got.problem.RequestID == "" || got.problem.Type == "" {
					t.Errorf("problem = %s; want its status, type and request id", got.body)
				}
				for i := range got.problem.Errors {
					if got.problem.Errors[i].Detail == "" {
						t.Errorf("errors[%d] says nothing", i)
					}
					got.problem.Errors[i].Detail = ""
				}
				if diff := cmp.Diff(test.wantErrors, got.problem.Errors); diff != "" {
					t.Errorf("errors (-want +got):\n%s\n%s", diff, got.body)
				}
			})
		}
	})
	list, _ := do[httpapi.TaskList](client, 200, "GET", "/v1/tasks?mine=true", "")
	if len(list.Items) != 1 || list.Items[0].Version != 1 {
		t.Errorf("refused requests left their mark: %+v", list.Items)
	}
	if offers, _ := do[httpapi.OfferList](client, 200, "GET", offers, ""); len(offers.Items) != 0 {
		t.Errorf("refused requests left offers: %+v", offers.Items)
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, tasker := s.person(t), s.person(t)
	const key = "Idempotency-Key"

	first := client.call("POST", "/v1/tasks", lawn, key, "a")
	// White space and the order of members are not another request.
	respelled := `{ "location":"Berlin", "description":"Front and back.", "budget":{"currency":"EUR","amount_minor":2500}, "title":"Mow the lawn" }`
	again := client.call("POST", "/v1/tasks", respelled, key, "a")
	if first.status != 201 || again.status != 201 || !bytes.Equal(first.body, again.body) {
		t.Fatalf("first %d %s, again %d %s; want the same", first.status, first.body, again.status, again.body)
	}
	if again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the second answer does not say that it is a replay")
	}
	for _, name := range []string{"Location", "ETag", "Content-Type"} {
		if first.header.Get(name) == "" || first.header.Get(name) != again.header.Get(name) {
			t.Errorf("%s: %q, then %q; want the same", name, first.header.Get(name), again.header.Get(name))
		}
	}
	other := client.call("POST", "/v1/tasks", strings.Replace(lawn, "Mow", "Dig", 1), key, "a")
	if other.status != 422 || other.problem.Code != "idempotency_key_reused" {
		t.Errorf("another body: %d %s, want 422 idempotency_key_reused", other.status, other.body)
	}

	// The same key does for each user and each route, but for one task.
	var task httpapi.Task
	if err := json.Unmarshal(first.body, &task); err != nil {
		t.Fatal(err)
	}
	second := client.post()
	offered := tasker.call("POST", taskPath(task)+"/offers", bid, key, "a")
	replayed := tasker.call("POST", taskPath(task)+"/offers", bid, key, "a")
	if offered.status != 201 || replayed.status != 201 || !bytes.Equal(offered.body, replayed.body) || replayed.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("offer %d %s, again %d %s; want a replay", offered.status, offered.body, replayed.status, replayed.body)
	}
	if got := tasker.call("POST", taskPath(second)+"/offers", bid, key, "a"); got.problem.Code != "idempotency_key_reused" {
		t.Errorf("the same on another task: %d %s, want idempotency_key_reused", got.status, got.body)
	}

	// A refusal is not kept: the same request may do later.
	if got := client.call("POST", taskPath(task)+"/offers", bid, key, "b"); got.problem.Code != "own_task" {
		t.Errorf("an offer on the own task: %d %s", got.status, got.body)
	}
	refused := tasker.call("POST", taskPath(task)+"/offers", bid, key, "c")
	if refused.problem.Code != "offer_pending" {
		t.Fatalf("a second offer: %d %s", refused.status, refused.body)
	}
	var offer httpapi.Offer
	if err := json.Unmarshal(offered.body, &offer); err != nil {
		t.Fatal(err)
	}
	do[httpapi.Offer](tasker, 200, "POST", offerPath(offer)+"/withdraw", "")
	if got := tasker.call("POST", taskPath(task)+"/offers", bid, key, "c"); got.status != 201 || got.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the refused request, later: %d %s; want a fresh 201", got.status, got.body)
	}
}

// TestIdempotencyUnderRace sends one request many times at once: there is one
// task, and every answer is that or "in flight".
func TestIdempotencyUnderRace(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client := s.person(t)
	answers := make([]answer, 16)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() { answers[i] = client.call("POST", "/v1/tasks", lawn, "Idempotency-Key", "a") })
	}
	group.Wait()
	for _, a := range answers {
		switch {
		case a.status == 201:
		case a.status == 409 && a.problem.Code == "request_in_flight" && a.header.Get("Retry-After") == "1":
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	list, _ := do[httpapi.TaskList](client, 200, "GET", "/v1/tasks?mine=true", "")
	if len(list.Items) != 1 {
		t.Errorf("%d tasks, want one", len(list.Items))
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, reader := s.person(t), s.person(t)
	var want []uuid.UUID
	for range 5 {
		want = append([]uuid.UUID{client.post().ID}, want...)
	}
	var got []uuid.UUID
	cursor := ""
	for {
		list, a := do[httpapi.TaskList](reader, 200, "GET", "/v1/tasks?limit=2&status=open&cursor="+cursor, "")
		if len(list.Items) == 0 {
			t.Fatalf("an empty part: %s", a.body)
		}
		for _, task := range list.Items {
			got = append(got, task.ID)
		}
		if cursor = list.NextCursor; cursor == "" {
			break
		}
		// What is posted meanwhile is newer than the cursor, and does not shift it.
		client.post()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tasks by pages (-want +got):\n%s", diff)
	}

	first, _ := do[httpapi.TaskList](reader, 200, "GET", "/v1/tasks?limit=2&status=open", "")
	for name, call := range map[string]answer{
		"another filter": reader.call("GET", "/v1/tasks?limit=2&cursor="+first.NextCursor, ""),
		"another user":   client.call("GET", "/v1/tasks?limit=2&status=open&cursor="+first.NextCursor, ""),
		"another list":   reader.call("GET", "/v1/tasks/"+want[0].String()+"/offers?cursor="+first.NextCursor, ""),
	} {
		if call.status != 400 || call.problem.Code != "cursor_invalid" {
			t.Errorf("the cursor under %s: %d %s, want 400 cursor_invalid", name, call.status, call.body)
		}
	}
	if _, a := do[httpapi.TaskList](reader, 200, "GET", "/v1/tasks?mine=true", ""); string(bytes.TrimSpace(a.body)) != `{"items":[]}` {
		t.Errorf("an empty list is %s", a.body)
	}
}

func TestOfferPages(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client := s.person(t)
	task := client.post()
	var want []uuid.UUID
	for range 3 {
		want = append([]uuid.UUID{s.person(t).offer(task).ID}, want...)
	}
	first, _ := do[httpapi.OfferList](client, 200, "GET", taskPath(task)+"/offers?limit=2", "")
	second, _ := do[httpapi.OfferList](client, 200, "GET", taskPath(task)+"/offers?limit=2&cursor="+first.NextCursor, "")
	var got []uuid.UUID
	for _, o := range append(first.Items, second.Items...) {
		got = append(got, o.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" || second.NextCursor != "" {
		t.Errorf("offers by pages, then %q (-want +got):\n%s", second.NextCursor, diff)
	}
}

// TestAStrangerLearnsNothing: a task that is not open does not exist for others.
func TestAStrangerLearnsNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	client, stranger := s.person(t), s.person(t)
	task := client.post()
	do[httpapi.Task](client, 200, "POST", taskPath(task)+"/cancel", "")
	for _, request := range [][2]string{
		{"GET", ""},
		{"GET", "/offers"},
		{"POST", "/start"},
		{"POST", "/submit"},
		{"POST", "/complete"},
		{"POST", "/cancel"},
		{"POST", "/offers/" + uuid.NewString() + "/accept"},
		{"POST", "/offers/" + uuid.NewString() + "/withdraw"},
	} {
		got := stranger.call(request[0], taskPath(task)+request[1], "")
		missing := stranger.call(request[0], "/v1/tasks/"+uuid.NewString()+request[1], "")
		if got.status != 404 || got.problem.Code != missing.problem.Code || got.problem.Detail != missing.problem.Detail {
			t.Errorf("%s %s: %d %s; want what a missing task gives", request[0], request[1], got.status, got.body)
		}
	}
}
