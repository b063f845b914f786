package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/auth"
	"github.com/marketplane/marketplane/services/auth/httpapi"
	"github.com/marketplane/marketplane/services/auth/keys"
	"github.com/marketplane/marketplane/services/auth/metrics"
	"github.com/marketplane/marketplane/services/auth/password"
	"github.com/marketplane/marketplane/services/auth/store"
	"github.com/marketplane/marketplane/services/auth/throttle"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	issuer  = "https://market.test"
	secret  = "correct horse battery staple"
	another = "incorrect horse battery staple"
)

// clock is the test's time: it stands still until it is moved.
type clock struct {
	start  time.Time
	offset atomic.Int64
}

func (c *clock) now() time.Time          { return c.start.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

type world struct {
	t           *testing.T
	url         string
	pool        *pgxpool.Pool
	clock       *clock
	revocations *identity.Revocations
	registry    *prometheus.Registry
	router      chi.Router
	woken       atomic.Int64
	logs        *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: &clock{start: time.Now()}, registry: prometheus.NewRegistry(), logs: &lockedBuffer{}}
	log := slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))

	dir := t.TempDir()
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	document, err := contract.SigningKeys{Keys: []contract.SigningKey{key}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	refresh := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, keys.MinRefreshKey))
	for name, content := range map[string][]byte{contract.FileSigningKeys: document, contract.FileRefreshKey: []byte(refresh)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := keys.Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.ParseKeySet(folder.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	w.revocations = identity.NewRevocations(w.clock.now)

	db := testkit.NewDatabase(t, map[string]fs.FS{"auth": store.Migrations()})
	w.pool = db.Pool(t, "auth")
	meter := metrics.New(w.registry)
	hasher := password.New(meter.Hashed)
	meter.HashQueue(hasher.Waiting)
	svc := auth.NewService(auth.Options{
		Store: store.New(w.pool), Hasher: hasher,
		AccessTokens: identity.NewSigner(issuer, folder.SigningKeys, w.clock.now),
		RefreshKey:   folder.RefreshKey,
		Accounts:     throttle.New(5, 30*time.Second, w.clock.now),
		Addresses:    throttle.New(20, time.Second, w.clock.now),
		Wake:         func() { w.woken.Add(1) },
		Meter:        meter, Now: w.clock.now,
	})
	w.router = web.NewRouter(web.Options{Log: log, Registry: w.registry, Instance: "test-0"})
	httpapi.Register(w.router, svc, httpapi.Options{
		Log: log, Issuer: issuer, JWKS: folder.JWKS,
		Verifier: identity.NewVerifier(issuer, set, w.revocations, w.clock.now),
	})
	server := httptest.NewServer(w.router)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

type answer struct {
	status int
	header http.Header
	raw    []byte
	body   struct {
		User struct {
			ID          uuid.UUID `json:"id"`
			Email       string    `json:"email"`
			DisplayName string    `json:"display_name"`
			CreatedAt   time.Time `json:"created_at"`
		} `json:"user"`
		AccessToken  string    `json:"access_token"`
		TokenType    string    `json:"token_type"`
		ExpiresIn    int       `json:"expires_in"`
		RefreshToken string    `json:"refresh_token"`
		SessionID    uuid.UUID `json:"session_id"`
		UserID       uuid.UUID `json:"user_id"`
		Code         string    `json:"code"`
		Errors       []struct {
			Pointer string `json:"pointer"`
		} `json:"errors"`
	}
}

// try sends a request; it may be called from any goroutine.
func (w *world) try(method, path, token, body string) (*answer, error) {
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	a := &answer{status: response.StatusCode, header: response.Header}
	if a.raw, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	if len(a.raw) > 0 {
		err = json.Unmarshal(a.raw, &a.body)
	}
	return a, err
}

func (w *world) do(method, path, token, body string) *answer {
	w.t.Helper()
	a, err := w.try(method, path, token, body)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) post(path string, fields map[string]string) *answer {
	w.t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(http.MethodPost, path, "", string(body))
}

func (w *world) register(email string) *answer {
	w.t.Helper()
	a := w.post("/v1/auth/register", map[string]string{"email": email, "password": secret, "display_name": "Ann"})
	if a.status != http.StatusCreated {
		w.t.Fatalf("register %s: %d %s", email, a.status, a.raw)
	}
	return a
}

func (w *world) refresh(token string) *answer {
	w.t.Helper()
	return w.post("/v1/auth/refresh", map[string]string{"refresh_token": token})
}

// want checks status and, of a refusal, code.
func (a *answer) want(t *testing.T, what string, status int, code string) {
	t.Helper()
	if a.status != status || a.body.Code != code {
		t.Fatalf("%s: %d %q, want %d %q: %s", what, a.status, a.body.Code, status, code, a.raw)
	}
	if code != "" && a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: a refusal that is no problem: %s", what, a.header.Get("Content-Type"))
	}
}

// sessionEnds are the reasons of the ends that were told of, in order.
func (w *world) sessionEnds() []string {
	w.t.Helper()
	var reasons []string
	err := w.pool.QueryRow(w.t.Context(),
		"SELECT array_agg(data->>'reason' ORDER BY xid, position) FROM events WHERE type = $1", events.TypeSessionEnded).Scan(&reasons)
	if err != nil {
		w.t.Fatal(err)
	}
	return reasons
}

func TestJourney(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	registered := w.register(" Ann@Example.com ")
	r := registered.body
	if r.User.ID != r.UserID || r.User.Email != "Ann@Example.com" || r.User.DisplayName != "Ann" ||
		r.TokenType != "Bearer" || r.ExpiresIn < 299 || r.ExpiresIn > 300 || r.SessionID == uuid.Nil {
		t.Errorf("registration: %s", registered.raw)
	}
	if got := registered.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("tokens may be cached: %q", got)
	}
	if w.woken.Load() != 1 {
		t.Error("readers were not woken by the registration")
	}

	me := w.do(http.MethodGet, "/v1/auth/me", r.AccessToken, "")
	me.want(t, "me", http.StatusOK, "")
	var user struct {
		ID        uuid.UUID `json:"id"`
		CreatedAt time.Time `json:"created_at"`
	}
	if err := json.Unmarshal(me.raw, &user); err != nil || user.ID != r.UserID || !user.CreatedAt.Equal(r.User.CreatedAt) {
		t.Errorf("me: %s (%v)", me.raw, err)
	}

	in := w.post("/v1/auth/login", map[string]string{"email": "ann@EXAMPLE.com", "password": secret})
	in.want(t, "log in", http.StatusOK, "")
	if in.body.UserID != r.UserID || in.body.SessionID == r.SessionID {
		t.Errorf("log-in: %s", in.raw)
	}

	w.clock.advance(10 * time.Minute)
	w.do(http.MethodGet, "/v1/auth/me", in.body.AccessToken, "").want(t, "me with an old token", http.StatusUnauthorized, "token_expired")
	next := w.refresh(in.body.RefreshToken)
	next.want(t, "refresh", http.StatusOK, "")
	if next.body.SessionID != in.body.SessionID || next.body.RefreshToken == in.body.RefreshToken {
		t.Errorf("refresh: %s", next.raw)
	}
	w.do(http.MethodGet, "/v1/auth/me", next.body.AccessToken, "").want(t, "me with a new token", http.StatusOK, "")

	// Logging out needs no access token, and may be said twice.
	w.clock.advance(time.Hour)
	for range 2 {
		out := w.post("/v1/auth/logout", map[string]string{"refresh_token": next.body.RefreshToken})
		out.want(t, "log out", http.StatusNoContent, "")
	}
	w.refresh(next.body.RefreshToken).want(t, "refresh after the log-out", http.StatusUnauthorized, "session_ended")
	if diff := cmp.Diff([]string{"logged_out"}, w.sessionEnds()); diff != "" {
		t.Errorf("session ends (-want +got):\n%s", diff)
	}
	if w.woken.Load() != 2 {
		t.Errorf("readers were woken %d times, want 2", w.woken.Load())
	}
	// The other session goes on; a revoked one's access tokens don't.
	w.refresh(r.RefreshToken).want(t, "refresh of the other session", http.StatusOK, "")
	last := w.refresh(r.RefreshToken)
	w.revocations.Revoke(r.SessionID, w.clock.now())
	w.do(http.MethodGet, "/v1/auth/me", last.body.AccessToken, "").want(t, "me in an ended session", http.StatusUnauthorized, "session_ended")

	for _, hidden := range []string{secret, r.RefreshToken, r.AccessToken, next.body.RefreshToken} {
		if strings.Contains(w.logs.String(), hidden) {
			t.Errorf("the log holds a secret: %.12s…", hidden)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann := w.register("ann@example.com")
	foreign := testkit.NewTokens(t).Issue(t, ann.body.UserID, ann.body.SessionID)
	registration := func(email, password, name string) string {
		body, err := json.Marshal(map[string]string{"email": email, "password": password, "display_name": name})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	const registerPath, logInPath, refreshPath, logOutPath = "/v1/auth/register", "/v1/auth/login", "/v1/auth/refresh", "/v1/auth/logout"
	tests := map[string]struct {
		method, path, token, body string
		wantStatus                int
		wantCode, wantPointer     string
	}{
		"email taken":         {http.MethodPost, registerPath, "", registration("ANN@example.com", secret, "Ann"), 409, "email_taken", "/email"},
		"email invalid":       {http.MethodPost, registerPath, "", registration("ann", secret, "Ann"), 422, "email_invalid", "/email"},
		"short password":      {http.MethodPost, registerPath, "", registration("b@example.com", "fourteen chars", "B"), 422, "invalid", "/password"},
		"long password":       {http.MethodPost, registerPath, "", registration("b@example.com", strings.Repeat("x", 129), "B"), 422, "invalid", "/password"},
		"decomposed password": {http.MethodPost, registerPath, "", registration("b@example.com", strings.Repeat("a\u0308", 10), "B"), 422, "password_length", "/password"},
		"blank name":          {http.MethodPost, registerPath, "", registration("b@example.com", secret, "  "), 422, "display_name_invalid", "/display_name"},
		"missing field":       {http.MethodPost, registerPath, "", `{"email":"b@example.com","password":"` + secret + `"}`, 422, "invalid", ""},
		"unknown field":       {http.MethodPost, logInPath, "", `{"email":"ann@example.com","password":"x","admin":true}`, 422, "invalid", "/admin"},
		"wrong type":          {http.MethodPost, logInPath, "", `{"email":7,"password":"x"}`, 422, "invalid", "/email"},
		"malformed JSON":      {http.MethodPost, logInPath, "", `{"email":`, 400, "malformed", ""},
		"no body":             {http.MethodPost, logInPath, "", "", 400, "malformed", ""},
		"oversized body":      {http.MethodPost, logInPath, "", `{"email":"` + strings.Repeat("x", 10<<10) + `"}`, 413, "too_large", ""},
		"wrong password":      {http.MethodPost, logInPath, "", `{"email":"ann@example.com","password":"` + another + `"}`, 401, "invalid_credentials", ""},
		"unknown email":       {http.MethodPost, logInPath, "", `{"email":"bob@example.com","password":"` + secret + `"}`, 401, "invalid_credentials", ""},
		"email with a zero":   {http.MethodPost, logInPath, "", `{"email":"ann\u0000@example.com","password":"` + secret + `"}`, 401, "invalid_credentials", ""},
		"refresh nonsense":    {http.MethodPost, refreshPath, "", `{"refresh_token":"mpr_nonsense"}`, 401, "refresh_token_invalid", ""},
		"refresh with access": {http.MethodPost, refreshPath, "", `{"refresh_token":"` + ann.body.AccessToken[:150] + `"}`, 401, "refresh_token_invalid", ""},
		"log out of nonsense": {http.MethodPost, logOutPath, "", `{"refresh_token":"mpr_nonsense"}`, 204, "", ""},
		"no token":            {http.MethodGet, "/v1/auth/me", "", "", 401, "token_missing", ""},
		"not a token":         {http.MethodGet, "/v1/auth/me", "x", "", 401, "token_invalid", ""},
		"a foreign token":     {http.MethodGet, "/v1/auth/me", foreign, "", 401, "token_invalid", ""},
		"wrong method":        {http.MethodGet, logInPath, "", "", 405, "method_not_allowed", ""},
		"no such path":        {http.MethodGet, "/v1/auth/nothing", "", "", 404, "no_such_route", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := w.try(tt.method, tt.path, tt.token, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			got.want(t, name, tt.wantStatus, tt.wantCode)
			if tt.wantPointer != "" && (len(got.body.Errors) == 0 || got.body.Errors[0].Pointer != tt.wantPointer) {
				t.Errorf("no error at %s: %s", tt.wantPointer, got.raw)
			}
			if strings.Contains(string(got.raw), secret) || strings.Contains(string(got.raw), another) {
				t.Errorf("the answer echoes a password: %s", got.raw)
			}
		})
	}
	// A token that is well made, of a session that is not there, or by another hand.
	forged := []byte(ann.body.RefreshToken)
	if at := len(forged) - 5; forged[at] == 'A' {
		forged[at] = 'B'
	} else {
		forged[at] = 'A'
	}
	w.refresh(string(forged)).want(t, "forged", http.StatusUnauthorized, "refresh_token_invalid")
	w.post(logOutPath, map[string]string{"refresh_token": string(forged)}).want(t, "log out, forged", http.StatusNoContent, "")
	if ends := w.sessionEnds(); len(ends) != 0 {
		t.Errorf("a forged token ended a session: %v", ends)
	}
	w.refresh(ann.body.RefreshToken).want(t, "the real one", http.StatusOK, "")
	if strings.Contains(w.logs.String(), secret) || strings.Contains(w.logs.String(), another) {
		t.Error("the log holds a password")
	}
}

// However many refresh with one token at once, there is one next token.
func TestConcurrentRefreshes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.register("ann@example.com").body.RefreshToken
	for round := range 3 {
		const n = 24
		answers, errs := make([]*answer, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				answers[i], errs[i] = w.try(http.MethodPost, "/v1/auth/refresh", "", `{"refresh_token":"`+token+`"}`)
			})
		}
		wg.Wait()
		next := ""
		for i, a := range answers {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			a.want(t, "refresh at once", http.StatusOK, "")
			if next == "" {
				next = a.body.RefreshToken
			}
			if a.body.RefreshToken != next || next == token {
				t.Fatalf("round %d: the refreshes did not agree on one new token", round)
			}
		}
		token = next
	}
	if ends := w.sessionEnds(); len(ends) != 0 {
		t.Errorf("sessions ended: %v", ends)
	}
}

// A log-out and refreshes at once: whatever the order, the session is over
// afterwards, once.
func TestLogOutRacesRefreshes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.register("ann@example.com").body.RefreshToken
	var wg sync.WaitGroup
	for range 8 {
		for _, path := range []string{"/v1/auth/refresh", "/v1/auth/logout"} {
			wg.Go(func() {
				if _, err := w.try(http.MethodPost, path, "", `{"refresh_token":"`+token+`"}`); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	w.refresh(token).want(t, "refresh afterwards", http.StatusUnauthorized, "session_ended")
	if diff := cmp.Diff([]string{"logged_out"}, w.sessionEnds()); diff != "" {
		t.Errorf("session ends (-want +got):\n%s", diff)
	}
}

func TestLostAnswerAndTheft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.register("ann@example.com").body.RefreshToken
	second := w.refresh(first).body.RefreshToken // its answer is lost
	w.clock.advance(3 * 24 * time.Hour)
	again := w.refresh(first)
	again.want(t, "the token before, days later", http.StatusOK, "")
	if again.body.RefreshToken != second {
		t.Error("the lost token is not given out again")
	}
	third := w.refresh(second).body.RefreshToken
	w.refresh(first).want(t, "an old token", http.StatusUnauthorized, "refresh_token_reused")
	w.refresh(third).want(t, "the newest token after that", http.StatusUnauthorized, "session_ended")
	if diff := cmp.Diff([]string{"refresh_token_reused"}, w.sessionEnds()); diff != "" {
		t.Errorf("session ends (-want +got):\n%s", diff)
	}

	idle := w.register("bob@example.com").body.RefreshToken
	w.clock.advance(auth.SessionIdle)
	w.refresh(idle).want(t, "after two idle weeks", http.StatusUnauthorized, "session_expired")
}

func TestFailedLogInsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("ann@example.com")
	logIn := func(email, password string) *answer {
		t.Helper()
		return w.post("/v1/auth/login", map[string]string{"email": email, "password": password})
	}
	for range 10 { // those that succeed don't count
		logIn("ann@example.com", secret).want(t, "log in", http.StatusOK, "")
	}
	// Wrong passwords for an account that is there and for one that is not are
	// told apart by nothing, the bound included.
	for _, email := range []string{"ann@example.com", "nobody@example.com"} {
		for range 5 {
			logIn(email, another).want(t, "wrong "+email, http.StatusUnauthorized, "invalid_credentials")
		}
		over := logIn(" "+strings.ToUpper(email), another)
		over.want(t, "one too many "+email, http.StatusTooManyRequests, "too_many_attempts")
		if after := over.header.Get("Retry-After"); after != "30" {
			t.Errorf("Retry-After = %q, want 30", after)
		}
	}
	logIn("ann@example.com", secret).want(t, "the right one, while bounded", http.StatusTooManyRequests, "too_many_attempts")
	w.clock.advance(30 * time.Second)
	logIn("ann@example.com", secret).want(t, "the right one, after the wait", http.StatusOK, "")

	// The address runs out too, whatever the account.
	codes := map[string]int{}
	for i := range 25 {
		codes[logIn(string(rune('a'+i))+"@example.org", another).body.Code]++
	}
	if diff := cmp.Diff(map[string]int{"invalid_credentials": 20, "too_many_attempts": 5}, codes); diff != "" {
		t.Errorf("25 failures from one address (-want +got):\n%s", diff)
	}
}

// Whoever asks for many emails learns of few, whether they are taken or not.
func TestRegistrationsTellOfFewEmails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	register := func(email string) string {
		return w.post("/v1/auth/register", map[string]string{"email": email, "password": secret, "display_name": "Ann"}).body.Code
	}
	w.register("ann@example.com")
	codes := map[string]int{}
	for range 25 {
		codes[register("ann@example.com")]++
	}
	if diff := cmp.Diff(map[string]int{"email_taken": 20, "too_many_attempts": 5}, codes); diff != "" {
		t.Errorf("25 questions from one address (-want +got):\n%s", diff)
	}
	if code := register("new@example.com"); code != "too_many_attempts" {
		t.Errorf("an email that is free is told apart: %q", code)
	}
	w.clock.advance(time.Second)
	if code := register("new@example.com"); code != "" {
		t.Errorf("after the wait: %q", code)
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jwks := w.do(http.MethodGet, "/.well-known/jwks.json", "", "")
	jwks.want(t, "jwks", http.StatusOK, "")
	for name, want := range map[string]string{"Cache-Control": "public, max-age=60", "Content-Type": "application/jwk-set+json"} {
		if got := jwks.header.Get(name); got != want || len(jwks.header.Values(name)) != 1 {
			t.Errorf("%s = %q, want %q", name, jwks.header.Values(name), want)
		}
	}
	set, err := identity.ParseKeySet(jwks.raw)
	if err != nil {
		t.Fatal(err)
	}
	token := w.register("ann@example.com").body
	verifier := identity.NewVerifier(issuer, set, identity.NewRevocations(time.Now), time.Now)
	if p, err := verifier.Verify(t.Context(), token.AccessToken); err != nil || p.UserID != token.UserID || p.SessionID != token.SessionID {
		t.Errorf("the published keys don't verify a token: %+v, %v", p, err)
	}

	metadata := w.do(http.MethodGet, "/.well-known/oauth-authorization-server", "", "")
	var got map[string]any
	if err := json.Unmarshal(metadata.raw, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"issuer": issuer, "jwks_uri": issuer + "/.well-known/jwks.json",
		"response_types_supported": []any{}, "grant_types_supported": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.register("ann@example.com").body.RefreshToken
	w.post("/v1/auth/login", map[string]string{"email": "ann@example.com", "password": another})
	w.refresh(token)
	w.refresh(token)
	w.refresh("nonsense")
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "marketplane_auth_") {
			continue
		}
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "marketplane_auth_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				got[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				got[name] = m.GetGauge().GetValue()
			case m.GetHistogram() != nil:
				got[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	want := map[string]float64{
		"registrations_total ok": 1, "logins_total invalid_credentials": 1,
		"refreshes_total rotated": 1, "refreshes_total repeated": 1, "refreshes_total refresh_token_invalid": 1,
		"password_hash_duration_seconds": 2, "password_hash_queue_length": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
