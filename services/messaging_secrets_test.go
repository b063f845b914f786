package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

// said is what a process says.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// ask sends a request to the public port, and returns the status and the body.
func (p *messagingProcess) ask(method, path, token, body string, headers ...string) (int, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.public+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, text.String()
}

// rareWord stands in everything that users, and the webhook, tell the process.
// It is the same however it is quoted.
const rareWord = "quokkafugleberry"

// Whatever goes wrong, and however much is logged, no log of messaging's holds
// what users write, or what opens a door.
func TestMessagingLogsNeitherWordsNorSecrets(t *testing.T) {
	t.Parallel()
	const webhookKey, busToken = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "bus-token-that-is-rare"
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, rareWord, http.StatusBadRequest)
	}))
	t.Cleanup(endpoint.Close)
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var log said
	agent := uuid.New()
	p := startMessagingThatSays(t, map[string]string{
		contract.EnvLogLevel: "debug", contract.EnvSupportUserIDs: agent.String(),
		contract.EnvBusTokenFile: file("token", busToken),
		// A URL may be a secret in itself.
		contract.EnvNotificationsURL: endpoint.URL + "/" + rareWord, contract.EnvNotificationsKeyFile: file("key", webhookKey),
		contract.EnvDrainFloor: "0s", contract.EnvDrainWindow: "1s",
	}, &log)
	defer func() {
		if t.Failed() {
			t.Logf("the process said:\n%s", &log)
		}
	}()

	client, tasker, task := uuid.New(), uuid.New(), uuid.New()
	token, _, err := p.signer.Sign(client, uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	ws, got := p.connect(client, uuid.New())
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: rareWord}})
	conversation := p.offered(got)
	frame := func(ws *websocket.Conn, format string, args ...any) {
		t.Helper()
		if err := ws.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	const send = `{"id":2,"op":"send","conversation_id":%q,"client_id":%q,"body":%s}`
	body := func(url string) string {
		return fmt.Sprintf(`{"text":%q,"attachments":[{"url":"%s/%s","name":"%s.pdf","content_type":"application/pdf","size":1}]}`, rareWord, url, rareWord, rareWord)
	}

	// Over a socket: what is taken, and what is refused.
	key := uuid.New()
	frame(ws, send, conversation, key, body("https://files.example.com"))
	p.want(got, `"ok":{"id"`)
	for _, tt := range []struct{ frame, want string }{
		{fmt.Sprintf(send, conversation, uuid.New(), body("http://files.example.com")), "attachment_invalid"},
		{fmt.Sprintf(send, conversation, uuid.New(), `{"text":"\u0000`+rareWord+`"}`), "body_invalid"},
		{fmt.Sprintf(send, conversation, uuid.New(), `{"text":"`+strings.Repeat(rareWord, 2500)+`"}`), "body_too_large"},
		{fmt.Sprintf(send, conversation, key, `{"text":"another `+rareWord+`"}`), "client_id_reused"},
		{fmt.Sprintf(send, uuid.New(), uuid.New(), body("https://files.example.com")), "conversation_not_found"},
		{`{"id":2,"op":"` + rareWord + `"}`, "unknown_op"},
		{`{"id":2,"op":"typing","conversation_id":"` + rareWord + `"}`, `"code":"invalid"`},
		{`{"id":2,"op":"typing","conversation_id":"` + conversation.String() + `","` + rareWord + `":1}`, "unknown_field"},
		{`{"id":2,"op":"auth","token":"` + rareWord + `"}`, "token_invalid"},
		{`{"id":2,"op":"auth","token":"` + token[:strings.LastIndexByte(token, '.')+1] + rareWord + `"}`, "token_invalid"},
		{`{"id":2,"op":"auth","token":"` + token + `","cursor":"` + rareWord + `"}`, "cursor_not_wanted"},
	} {
		frame(ws, "%s", tt.frame)
		p.want(got, tt.want)
	}
	torn, tornGot := p.connect(client, uuid.New())
	frame(torn, `{"op":"send","body":{"text":"%s"`, rareWord)
	p.want(tornGot, "closed 4000")
	broken, _ := p.connect(client, uuid.New())
	_ = broken.CloseNow()
	p.await("one ends out of order", func() bool { return strings.Contains(log.String(), "connection not closed in order") })

	// Through Socket.IO's door.
	stock := p.connectStock(token)
	for i, tt := range []struct{ event, want string }{
		{`"send",{"conversation_id":"` + conversation.String() + `","client_id":"` + uuid.NewString() + `","body":` + body("https://files.example.com") + `}`, `"ok":true`},
		{`"send",{"conversation_id":"` + conversation.String() + `","client_id":"` + uuid.NewString() + `","body":` + body("http://files.example.com") + `}`, "attachment_invalid"},
		{`"` + rareWord + `",{"` + rareWord + `":1}`, "unknown_op"},
		{`"typing","` + rareWord + `"`, "arguments_invalid"},
	} {
		stock.say(fmt.Sprintf("42%d[%s]", i, tt.event))
		if answer := stock.next(fmt.Sprintf("43%d", i)); !strings.Contains(answer, tt.want) {
			t.Errorf("%s: %s", tt.event, answer)
		}
	}
	stock.say(`42["send",` + rareWord)
	if closed := stock.next("closed"); closed == "" {
		t.Error("what cannot be read is taken")
	}
	for _, auth := range []string{`{"token":"` + rareWord + `"}`, `{"token":"` + token + `","pid":"` + rareWord + `","offset":"` + rareWord + `"}`} {
		p.dialStock().say("40" + auth)
	}

	// Over HTTP.
	const conversations = "/v1/conversations"
	subject := `{"kind":"support","subject":"` + rareWord + `"}`
	messages := conversations + "/" + conversation.String() + "/messages"
	for _, tt := range []struct {
		method, path, token, body, key string
		want                           int
	}{
		{"POST", conversations, token, subject, rareWord, 201},
		{"POST", conversations, token, strings.Replace(subject, rareWord, strings.Repeat(rareWord, 10), 1), rareWord, 422},
		{"POST", conversations, token, strings.Replace(subject, rareWord, "another "+rareWord, 1), rareWord, 422},
		{"POST", conversations, token, `{"` + rareWord, rareWord + "2", 400},
		{"POST", messages, token, `{"body":` + body("https://files.example.com") + `}`, uuid.NewString(), 201},
		{"POST", messages, token, `{"body":` + body("ftp://files.example.com") + `}`, uuid.NewString(), 422},
		{"POST", messages, token, `{"body":` + body("https://files.example.com") + `}`, rareWord, 400},
		{"GET", conversations + "?cursor=" + rareWord, token, "", "", 400},
		{"GET", "/v1/" + rareWord + "?token=" + token, token, "", "", 404},
		{"GET", conversations, rareWord, "", "", 401},
		{"GET", wsapi.Path + "?token=" + token, token, "", "", 400},
	} {
		if status, answer := p.ask(tt.method, tt.path, tt.token, tt.body, "Idempotency-Key", tt.key); status != tt.want {
			t.Errorf("%s %s: %d, want %d: %s", tt.method, tt.path, status, tt.want, answer)
		}
	}
	if status, answer := p.ask("GET", wsapi.Path, token, "", "Connection", "Upgrade", "Upgrade", "websocket",
		"Origin", "https://"+rareWord+".example.com"); status != http.StatusForbidden {
		t.Errorf("a foreign origin: %d %s", status, answer)
	}

	// The webhook, which refuses what is told for the tasker, until it is given up.
	p.awaitFor(90*time.Second, "a notification is given up", func() bool { return strings.Contains(log.String(), "a notification is given up") })

	// The database: first it can't write, then nobody may sign in to it.
	admin := p.admin()
	execute := func(statement string, args ...any) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"messages", "conversations"} {
		execute("ALTER TABLE " + table + " ADD CONSTRAINT refused CHECK (false) NOT VALID")
	}
	fails := func(answer string) {
		t.Helper()
		frame(ws, send, conversation, uuid.New(), body("https://files.example.com"))
		p.want(got, answer)
		if status, text := p.ask("POST", conversations, token, subject, "Idempotency-Key", uuid.NewString()); status < http.StatusInternalServerError {
			t.Errorf("a support conversation that can't be written: %d %s", status, text)
		}
	}
	fails(`"code":"internal"`)
	role := contract.DatabaseRole(p.database.Installation, contract.ComponentMessaging)
	execute("ALTER ROLE " + pgx.Identifier{role}.Sanitize() + " NOLOGIN")
	execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
	p.await("signed out", func() bool { return strings.Contains(log.String(), "not permitted to log in") })
	fails(`"error"`) // of one kind or another: connections of the pool are broken
	execute("ALTER ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN")

	p.terminate()
	if err := <-p.ended; err != nil {
		fmt.Fprintln(&log, err) // main would print it
	}

	for _, want := range []string{`"level":"DEBUG"`, "messages not written", "command failed", "request failed", "violates check constraint"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("nothing says %q: this does not show much", want)
		}
	}
	databaseURL, err := url.Parse(p.database.URL(t, contract.ComponentMessaging))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := databaseURL.User.Password()
	for what, secret := range map[string]string{
		"what a user wrote": rareWord, "the database's password": password, "the bus's token": busToken,
		"the webhook's key": strings.TrimPrefix(webhookKey, contract.WebhookKeyPrefix),
		"an access token":   token, "the header of a token": token[:strings.IndexByte(token, '.')],
		"the signature of a token": token[strings.LastIndexByte(token, '.')+1:],
	} {
		for line := range strings.Lines(log.String()) {
			if secret == "" || strings.Contains(line, secret) {
				t.Errorf("%s is logged: %s", what, line)
			}
		}
	}
}

// admin connects as the role that migrates, to messaging's tables.
func (p *messagingProcess) admin() *pgx.Conn {
	p.t.Helper()
	config, err := pgx.ParseConfig(p.database.AdminURL)
	if err != nil {
		p.t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = pgx.Identifier{contract.DatabaseSchema(p.database.Installation, contract.ComponentMessaging)}.Sanitize()
	conn, err := pgx.ConnectConfig(p.t.Context(), config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(p.t.Context())) })
	return conn
}
