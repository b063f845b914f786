package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/telemetry"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
)

type input struct {
	Limit int `query:"limit" minimum:"1" maximum:"10"`
	Body  struct {
		Name  string `json:"name" minLength:"1" maxLength:"10"`
		Items []struct {
			Size int `json:"size" minimum:"1"`
		} `json:"items,omitempty"`
	}
}

type output struct {
	Body struct {
		User uuid.UUID `json:"user"`
	}
}

// newServer has one operation, whose handler answers what the name asks for.
func newServer(t *testing.T, log *slog.Logger) (*httptest.Server, *testkit.Tokens) {
	t.Helper()
	router := web.NewRouter(web.Options{Log: log, Registry: prometheus.NewRegistry(), Instance: "pod-1"})
	tokens := testkit.NewTokens(t)
	api := web.NewAPI(router, "test", log, tokens)
	web.Handle(api, web.Operation{ID: "name", Method: http.MethodPost, Path: "/names/{id}", MaxBody: 256},
		func(ctx context.Context, in *input) (*output, error) {
			switch in.Body.Name {
			case "conflict":
				return nil, fault.New(fault.Conflict, "name_taken", "Choose another name.").At("/name")
			case "busy":
				return nil, fault.New(fault.Unavailable, "busy", "Try again.").After(1500 * time.Millisecond)
			case "broken":
				return nil, errors.New("password=hunter2")
			case "panic":
				panic("password=hunter2")
			}
			out := &output{}
			out.Body.User = identity.FromContext(ctx).UserID
			return out, nil
		})
	server := httptest.NewServer(router)
	t.Cleanup(server.Close)
	return server, tokens
}

func TestRefusalsAreProblems(t *testing.T) {
	t.Parallel()
	server, tokens := newServer(t, testkit.Logger(t))
	valid := "Bearer " + tokens.Issue(t, uuid.New(), uuid.New())
	ended := uuid.New()
	tokens.Revocations.Revoke(ended, time.Now())
	const sent = "sent-by-the-client"

	tests := map[string]struct {
		method, path, token, contentType, body string
		wantStatus                             int
		wantCode                               string
		wantErrors                             []web.ProblemError
		wantHeader                             map[string]string
	}{
		"malformed JSON": {body: `{"name":`, wantStatus: 400, wantCode: "malformed"},
		"unknown field": {
			body: `{"name":"a","` + sent + `":1}`, wantStatus: 422, wantCode: "invalid",
			wantErrors: []web.ProblemError{{In: "body", Pointer: "/" + sent, Detail: "unexpected property"}},
		},
		"field in another case": {
			body: `{"name":"a","Name":"` + strings.Repeat("x", 11) + `"}`, wantStatus: 422, wantCode: "invalid",
			wantErrors: []web.ProblemError{{In: "body", Pointer: "/Name", Detail: "unexpected property"}},
		},
		"missing field": {
			body: `{}`, wantStatus: 422, wantCode: "invalid",
			wantErrors: []web.ProblemError{{In: "body", Detail: "expected required property name to be present"}},
		},
		"nested field": {
			body: `{"name":"a","items":[{"size":1},{"size":0}]}`, wantStatus: 422, wantCode: "invalid",
			wantErrors: []web.ProblemError{{In: "body", Pointer: "/items/1/size", Detail: "expected number >= 1"}},
		},
		"bad parameter": {
			path: "/names/1?limit=99", body: `{"name":"a"}`, wantStatus: 422, wantCode: "invalid",
			wantErrors: []web.ProblemError{{In: "query", Name: "limit", Detail: "expected number <= 10"}},
		},
		"oversized body":     {body: `{"name":"` + strings.Repeat("x", 300) + `"}`, wantStatus: 413, wantCode: "too_large"},
		"not JSON":           {contentType: "text/plain", body: "a", wantStatus: 415, wantCode: "unsupported_media_type"},
		"no token":           {token: "-", body: `{"name":"a"}`, wantStatus: 401, wantCode: "token_missing", wantHeader: map[string]string{"WWW-Authenticate": "Bearer"}},
		"wrong token":        {token: "Bearer " + sent, body: `{"name":"a"}`, wantStatus: 401, wantCode: "token_invalid"},
		"ended session":      {token: "Bearer " + tokens.Issue(t, uuid.New(), ended), body: `{"name":"a"}`, wantStatus: 401, wantCode: "session_ended"},
		"token before body":  {token: "-", body: strings.Repeat("x", 300), wantStatus: 401, wantCode: "token_missing"},
		"domain's fault":     {body: `{"name":"conflict"}`, wantStatus: 409, wantCode: "name_taken", wantErrors: []web.ProblemError{{In: "body", Pointer: "/name", Detail: "Choose another name."}}},
		"unavailable":        {body: `{"name":"busy"}`, wantStatus: 503, wantCode: "busy", wantHeader: map[string]string{"Retry-After": "2"}},
		"internal error":     {body: `{"name":"broken"}`, wantStatus: 500, wantCode: "internal"},
		"panic":              {body: `{"name":"panic"}`, wantStatus: 500, wantCode: "internal"},
		"no such route":      {path: "/" + sent, body: `{}`, wantStatus: 404, wantCode: "no_such_route"},
		"method not allowed": {method: http.MethodDelete, body: `{}`, wantStatus: 405, wantCode: "method_not_allowed", wantHeader: map[string]string{"Allow": "POST"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			or := func(value, byDefault string) string {
				if value == "" {
					return byDefault
				}
				return value
			}
			r, err := http.NewRequestWithContext(t.Context(), or(tt.method, http.MethodPost), server.URL+or(tt.path, "/names/1"), strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", or(tt.contentType, "application/json"))
			if token := or(tt.token, valid); token != "-" {
				r.Header.Set("Authorization", token)
			}
			r.Header.Set(web.HeaderRequestID, "request-1")
			response, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			var body bytes.Buffer
			if _, err := body.ReadFrom(response.Body); err != nil {
				t.Fatal(err)
			}
			var got web.Problem
			if err := json.Unmarshal(body.Bytes(), &got); err != nil {
				t.Fatalf("not JSON: %q", body.String())
			}
			if got.Code != tt.wantCode || got.Status != tt.wantStatus || response.StatusCode != tt.wantStatus {
				t.Errorf("got %d %s, want %d %s: %s", response.StatusCode, got.Code, tt.wantStatus, tt.wantCode, body.String())
			}
			if got.RequestID != "request-1" || response.Header.Get(contract.HeaderInstance) != "pod-1" {
				t.Errorf("request id %q, instance %q", got.RequestID, response.Header.Get(contract.HeaderInstance))
			}
			if ct := response.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			if tt.wantErrors != nil {
				if diff := cmp.Diff(tt.wantErrors, got.Errors); diff != "" {
					t.Error(diff)
				}
			}
			for name, want := range tt.wantHeader {
				if got := response.Header.Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			if strings.Contains(body.String(), "hunter2") {
				t.Error("the answer holds what only the log may know")
			}
			if tt.wantErrors == nil && strings.Contains(body.String(), sent) {
				t.Error("the answer echoes a value that the client sent")
			}
		})
	}
}

func TestSuccessKnowsThePrincipal(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	log, err := telemetry.NewLogger(&logged, "info")
	if err != nil {
		t.Fatal(err)
	}
	server, tokens := newServer(t, log)
	user := uuid.New()
	token := tokens.Issue(t, user, uuid.New())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/names/1?limit=3", strings.NewReader(`{"name":"ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var got struct {
		User uuid.UUID `json:"user"`
	}
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || got.User != user {
		t.Errorf("%d, user %s, want %s", response.StatusCode, got.User, user)
	}
	server.Close() // the log line is written when the handler ends
	var line struct {
		Route     string `json:"route"`
		Status    int    `json:"status"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(logged.Bytes(), &line); err != nil {
		t.Fatalf("not one JSON line: %q", logged.String())
	}
	if line.Route != "/names/{id}" || line.Status != 200 || line.RequestID != response.Header.Get(web.HeaderRequestID) {
		t.Errorf("log line %q", logged.String())
	}
	if strings.Contains(logged.String(), token) {
		t.Error("the log holds the token")
	}
}

// Clients choose methods and paths; they must not become label values.
func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	router := web.NewRouter(web.Options{Log: testkit.Logger(t), Registry: registry, Instance: "pod-1"})
	router.Get("/known", func(http.ResponseWriter, *http.Request) {})
	for _, made := range []string{"/a", "/b"} {
		for _, method := range []string{"BREW", "WHEN", http.MethodGet} {
			router.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, made, nil))
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, metric := range families[0].GetMetric() {
		var labels []string
		for _, pair := range metric.GetLabel() {
			labels = append(labels, pair.GetName()+"="+pair.GetValue())
		}
		got[strings.Join(labels, " ")] = metric.GetHistogram().GetSampleCount()
	}
	want := map[string]uint64{
		"method=GET route=none status=404":   2,
		"method=other route=none status=405": 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Connections that become something else count with 101, and are no news.
func TestOtherProtocolsAreNotLogged(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	registry := prometheus.NewRegistry()
	router := web.NewRouter(web.Options{Log: slog.New(slog.NewJSONHandler(&logged, nil)), Registry: registry, Instance: "pod-1"})
	router.Get("/other", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
		_ = conn.Close()
	})
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		router.ServeHTTP(w, r)
	}))
	defer server.Close()
	response, err := http.Get(server.URL + "/other")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	<-done
	if logged.Len() > 0 {
		t.Errorf("the log says %s", &logged)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range families[0].GetMetric()[0].GetLabel() {
		if pair.GetName() == "status" && pair.GetValue() != "101" {
			t.Errorf("it counts with status %s", pair.GetValue())
		}
	}
}
