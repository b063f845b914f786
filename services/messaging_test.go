package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/testkit"
	messagingstore "github.com/marketplane/marketplane/services/messaging/store"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

// messagingProcess is a running 'marketplane messaging'.
type messagingProcess struct {
	t                *testing.T
	database         *testkit.Database
	bus              *nats.Conn
	public, internal string
	signer           *identity.Signer
	settings         map[string]string // the environment
	terminate        context.CancelFunc
	ended            chan error
}

func startMessaging(t *testing.T, env map[string]string) *messagingProcess {
	t.Helper()
	return startMessagingThatSays(t, env, testWriter{t})
}

// startMessagingThatSays starts one whose log goes to a writer.
func startMessagingThatSays(t *testing.T, env map[string]string, log io.Writer) *messagingProcess {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	keys := contract.SigningKeys{Keys: []contract.SigningKey{key}}
	jwks, err := keys.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	database := testkit.NewDatabase(t, map[string]fs.FS{contract.ComponentMessaging: messagingstore.Migrations()})
	p := &messagingProcess{
		t: t, database: database, public: freeAddress(t), internal: freeAddress(t), ended: make(chan error, 1),
		signer: identity.NewSigner(testkit.Issuer, func() contract.SigningKeys { return keys }, time.Now),
	}
	server := testkit.NewBus(t)
	p.bus = testkit.ConnectBus(t, server)
	p.settings = map[string]string{
		contract.EnvInstallation:    database.Installation,
		contract.EnvInstance:        "messaging-0",
		contract.EnvListen:          p.public,
		contract.EnvInternalListen:  p.internal,
		contract.EnvDatabaseURLFile: write("url", []byte(database.URL(t, contract.ComponentMessaging))),
		contract.EnvJWKSFile:        write("jwks.json", jwks),
		contract.EnvIssuer:          testkit.Issuer,
		contract.EnvBusURL:          server.URL(),
		contract.EnvBusTokenFile:    write("token", []byte("unused")),
		contract.EnvLogLevel:        "warn",
	}
	for name, value := range env {
		p.settings[name] = value
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p.terminate = cancel
	go func() {
		p.ended <- run(ctx, []string{contract.ComponentMessaging}, func(name string) string { return p.settings[name] }, log, log)
	}()
	p.await("ready", func() bool { return p.get(contract.PathReady, nil) == http.StatusOK })
	return p
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// await looks again and again at what gives no signal.
func (p *messagingProcess) await(what string, f func() bool) {
	p.t.Helper()
	p.awaitFor(20*time.Second, what, f)
}

func (p *messagingProcess) awaitFor(patience time.Duration, what string, f func() bool) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case err := <-p.ended:
			p.t.Fatalf("%s: the process has ended: %v", what, err)
		case <-deadline:
			p.t.Fatalf("not %s in time", what)
		}
	}
}

// get asks the internal port, and returns the status, 0 for no answer.
func (p *messagingProcess) get(path string, out any) int {
	p.t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+p.internal+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	if out != nil {
		if err := json.NewDecoder(response.Body).Decode(out); err != nil {
			p.t.Fatal(err)
		}
	}
	return response.StatusCode
}

func (p *messagingProcess) load() contract.Load {
	p.t.Helper()
	var load contract.Load
	p.get(contract.PathLoad, &load)
	return load
}

// connect opens a socket of a session and authenticates it. What comes until
// the socket is closed ends in the channel, the close last.
func (p *messagingProcess) connect(user, session uuid.UUID) (*websocket.Conn, <-chan string) {
	p.t.Helper()
	ws, _, err := websocket.Dial(p.t.Context(), "ws://"+p.public+wsapi.Path, &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		Subprotocols: []string{wsapi.Subprotocol},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	token, _, err := p.signer.Sign(user, session)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := ws.Write(p.t.Context(), websocket.MessageText, fmt.Appendf(nil, `{"id":1,"op":"auth","token":%q}`, token)); err != nil {
		p.t.Fatal(err)
	}
	got := make(chan string, 100)
	go func() {
		defer close(got)
		for {
			_, frame, err := ws.Read(context.Background())
			if err != nil {
				got <- fmt.Sprintf("closed %d", websocket.CloseStatus(err))
				return
			}
			for line := range strings.Lines(string(frame)) {
				got <- line
			}
		}
	}()
	p.want(got, `"ok"`)
	return ws, got
}

// want reads on until something contains the text.
func (p *messagingProcess) want(from <-chan string, text string) {
	p.t.Helper()
	p.wantFor(20*time.Second, from, text)
}

// wantFor is want with a patience, and returns what came before.
func (p *messagingProcess) wantFor(patience time.Duration, from <-chan string, text string) (before []string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-from:
			if !ok {
				p.t.Fatalf("the socket ended without %q", text)
			}
			if strings.Contains(line, text) {
				return before
			}
			before = append(before, line)
		case <-deadline:
			p.t.Fatalf("no %q in time", text)
		}
	}
}

// offered waits for an offer, and returns the conversation that it begins.
func (p *messagingProcess) offered(from <-chan string) uuid.UUID {
	p.t.Helper()
	var offer struct {
		ConversationID uuid.UUID `json:"conversation_id"`
	}
	deadline := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-from:
			if !ok {
				p.t.Fatal("the socket ended without an offer")
			}
			if !strings.Contains(line, `"offer_made"`) {
				continue
			}
			if err := json.Unmarshal([]byte(line), &offer); err != nil {
				p.t.Fatal(err)
			}
			return offer.ConversationID
		case <-deadline:
			p.t.Fatal("no offer in time")
		}
	}
}

// append writes events as another service would, and returns when their commit
// began.
func (p *messagingProcess) append(event events.Event) (committing time.Time) {
	p.t.Helper()
	pool := p.database.Pool(p.t, contract.ComponentMessaging)
	if err := pgx.BeginFunc(p.t.Context(), pool, func(tx pgx.Tx) error {
		err := eventlog.Append(p.t.Context(), tx, event)
		committing = time.Now()
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	if err := p.bus.Publish(events.SubjectsOf(p.database.Installation).Wake(), nil); err != nil {
		p.t.Fatal(err)
	}
	return committing
}

// A messaging process that is told to stop goes on accepting for the floor,
// then moves its connections, and acknowledges what they send meanwhile. A
// session that ends during the drain is still noticed.
func TestMessagingDrainsWhenItIsToldToStop(t *testing.T) {
	t.Parallel()
	p := startMessaging(t, map[string]string{contract.EnvDrainFloor: "2s", contract.EnvDrainWindow: "6s"})
	client, tasker, task, session := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	mover, moverGot := p.connect(client, uuid.New())
	_, ended := p.connect(client, session)
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"}})
	conversation := p.offered(moverGot)

	start := time.Now()
	p.terminate()
	_, late := p.connect(tasker, uuid.New()) // during the floor
	if load := p.load(); load.Live != 3 || load.Draining != 0 || !load.Stopping {
		t.Errorf("during the floor: %+v", load)
	}
	p.await("draining", func() bool { return p.load().Draining > 0 })
	if p.get(contract.PathReady, nil) != http.StatusServiceUnavailable {
		t.Error("still ready after the listener is closed")
	}
	// One connection is told at once, the last one after 4.5 s; each is closed
	// 1.5 s later.
	p.append(events.Event{Subject: session, Data: events.SessionEnded{SessionID: session, UserID: client, Reason: "logged_out"}})
	p.want(ended, "closed 4001")
	send := fmt.Appendf(nil, `{"id":2,"op":"send","conversation_id":%q,"client_id":%q,"body":{"text":"bye"}}`, conversation, uuid.New())
	if err := mover.Write(t.Context(), websocket.MessageText, send); err != nil {
		t.Fatal(err)
	}
	p.want(moverGot, `"seq":1`)
	for name, got := range map[string]<-chan string{"mover": moverGot, "late": late} {
		closed := false
		for line := range got {
			closed = closed || line == "closed 4200"
		}
		if !closed {
			t.Errorf("%s was not closed with 4200", name)
		}
	}
	if err := <-p.ended; err != nil {
		t.Errorf("the process ended with %v", err)
	}
	if took := time.Since(start); took < 2*time.Second || took > 12*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = uuid.NewString()
	}
	return out
}

func TestMessagingRefusesWhatIsNoAgent(t *testing.T) {
	t.Parallel()
	const anna = "01890a5d-ac96-774b-bcce-b302099a8057"
	for name, agents := range map[string]string{
		"a name":   "anna",
		"nobody":   "00000000-0000-0000-0000-000000000000",
		"twice":    anna + "," + anna,
		"too many": strings.Join(ids(maxAgents+1), ","),
	} {
		err := run(t.Context(), []string{contract.ComponentMessaging}, func(name string) string {
			return map[string]string{contract.EnvSupportUserIDs: agents}[name]
		}, testWriter{t}, testWriter{t})
		if err == nil || !strings.Contains(err.Error(), contract.EnvSupportUserIDs+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A message for someone who is not connected ends at the webhook, signed with the
// key that the file holds by then.
func TestMessagingNotifies(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 10)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
	t.Cleanup(endpoint.Close)
	keyFile := filepath.Join(t.TempDir(), contract.FileNotificationsKey)
	p := startMessaging(t, map[string]string{
		contract.EnvNotificationsURL: endpoint.URL, contract.EnvNotificationsKeyFile: keyFile,
		contract.EnvDrainFloor: "0s", contract.EnvDrainWindow: "1s",
	})
	client, tasker, task := uuid.New(), uuid.New(), uuid.New()
	ws, got := p.connect(client, uuid.New())
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"}})
	conversation := p.offered(got)
	send := fmt.Appendf(nil, `{"id":2,"op":"send","conversation_id":%q,"client_id":%q,"body":{"text":"hello"}}`, conversation, uuid.New())
	if err := ws.Write(t.Context(), websocket.MessageText, send); err != nil {
		t.Fatal(err)
	}
	p.want(got, `"seq":1`)
	if err := os.WriteFile(keyFile, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-requests:
		if !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "v1,") || !strings.Contains(r.Header.Get("Webhook-Id"), strings.ReplaceAll(tasker.String(), "-", "")) {
			t.Errorf("headers %v", r.Header)
		}
	case err := <-p.ended:
		t.Fatalf("the process has ended: %v", err)
	case <-time.After(90 * time.Second):
		t.Fatal("no notification in time")
	}
	p.terminate()
	if err := <-p.ended; err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

func TestMessagingRefusesWhatIsNoWebhook(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{contract.ComponentMessaging}, func(name string) string {
		return map[string]string{contract.EnvNotificationsURL: "http://push.example.com"}[name]
	}, testWriter{t}, testWriter{t})
	for _, want := range []string{contract.EnvNotificationsURL + ": must be https", contract.EnvNotificationsKeyFile + ": must be set"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestMessagingRefusesWhatIsNoOrigin(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{contract.ComponentMessaging}, func(name string) string {
		return map[string]string{contract.EnvAllowedOrigins: "https://app.example.com, *"}[name]
	}, testWriter{t}, testWriter{t})
	if err == nil || !strings.Contains(err.Error(), contract.EnvAllowedOrigins+": is not an origin") {
		t.Error(errors.Join(errors.New("no such error"), err))
	}
}
