//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client"
)

// What no service can make sense of is refused by each in the same way: a
// problem (RFC 9457) with a code that stays, and nothing is written.
func TestBadInputIsRefused(t *testing.T) {
	m := start(t, "badinput", small())
	urls := m.urls(t)
	user := signUp(t, m.client(t), 1)[0]
	token, err := user.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const (
		registration = `{"email":"a@example.com","password":"correct horse battery","display_name":"A"}`
		chore        = `{"title":"Mow","description":"The lawn.","budget":{"amount_minor":1,"currency":"EUR"}}`
		message      = `{"body":{"text":"hello"}}`
	)
	register, post := urls.Auth+"/v1/auth/register", urls.Tasks+"/v1/tasks"
	send := urls.Messaging + "/v1/conversations/" + uuid.Must(uuid.NewV7()).String() + "/messages"
	withUnknown := func(body string) string { return `{"surprise":1,` + strings.TrimPrefix(body, "{") }
	oversized := `{"filler":"` + strings.Repeat("x", 128<<10) + `"}`

	tests := map[string]struct {
		url, body, token string
		wantStatus       int
		wantCode         string
	}{
		"auth: malformed":           {register, `{"email":`, "", 400, "malformed"},
		"tasks: malformed":          {post, `{"title":`, token, 400, "malformed"},
		"messaging: malformed":      {send, `[`, token, 400, "malformed"},
		"auth: unknown field":       {register, withUnknown(registration), "", 422, "invalid"},
		"tasks: unknown field":      {post, withUnknown(chore), token, 422, "invalid"},
		"messaging: unknown field":  {send, withUnknown(message), token, 422, "invalid"},
		"auth: oversized":           {register, oversized, "", 413, "too_large"},
		"tasks: oversized":          {post, oversized, token, 413, "too_large"},
		"messaging: oversized":      {send, oversized, token, 413, "too_large"},
		"tasks: no token":           {post, chore, "", 401, "token_missing"},
		"tasks: wrong token":        {post, chore, "not.a.token", 401, "token_invalid"},
		"messaging: wrong token":    {send, message, "not.a.token", 401, "token_invalid"},
		"tasks: altered token":      {post, chore, altered(token), 401, "token_invalid"},
		"messaging: altered token":  {send, message, altered(token), 401, "token_invalid"},
		"auth: wrong refresh token": {urls.Auth + "/v1/auth/refresh", `{"refresh_token":"nothing"}`, "", 401, "refresh_token_invalid"},
		"tasks: no such path":       {urls.Tasks + "/v1/chores", chore, token, 404, "no_such_route"},
	}
	api := &http.Client{Timeout: 10 * time.Second}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tt.url, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Idempotency-Key", uuid.Must(uuid.NewV7()).String())
			if tt.token != "" {
				request.Header.Set("Authorization", "Bearer "+tt.token)
			}
			response, err := api.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			var problem struct {
				Type      string `json:"type"`
				Title     string `json:"title"`
				Status    int    `json:"status"`
				Code      string `json:"code"`
				RequestID string `json:"request_id"`
			}
			if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
				t.Fatalf("status %d, and the body is not JSON: %v", response.StatusCode, err)
			}
			if response.StatusCode != tt.wantStatus || problem.Code != tt.wantCode || problem.Status != tt.wantStatus {
				t.Errorf("status %d, problem %+v; want status %d and code %q", response.StatusCode, problem, tt.wantStatus, tt.wantCode)
			}
			if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type = %q", got)
			}
			if problem.Type == "" || problem.Title == "" || problem.RequestID == "" {
				t.Errorf("the problem %+v lacks a type, a title or a request id", problem)
			}
		})
	}
	t.Run("nothing was written", func(t *testing.T) {
		_, err := m.client(t).Login(t.Context(), "a@example.com", "correct horse battery")
		if !client.IsProblem(err, "invalid_credentials") {
			t.Errorf("log in as the user that was refused: %v, want invalid_credentials", err)
		}
	})
}

// altered changes the signature of a token in one character.
func altered(token string) string {
	last := len(token) - 10 // the very last one may hold bits that do not count
	replacement := "A"
	if token[last] == 'A' {
		replacement = "B"
	}
	return token[:last] + replacement + token[last+1:]
}
