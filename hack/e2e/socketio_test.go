//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
	"github.com/marketplane/marketplane/services/client/stockclient"
)

// An app that spoke Socket.IO changes a URL, and its stock clients work: with three
// pods behind a Service that sends each request where it likes.
func TestStockSocketIOClientsNeedNoStickySessions(t *testing.T) {
	pages := newPages(t)
	spec := small()
	spec.Messaging.Replicas = new(int32(3))
	spec.Messaging.AllowedOrigins = []v1alpha1.Origin{v1alpha1.Origin(pages.allowed.URL)}
	m := start(t, "socketio", spec)

	for name, transports := range map[string]options{"default options": {}, "polling": polling, "websocket": webSocket} {
		t.Run("chat with "+name, func(t *testing.T) { m.chatBySocketIO(t, transports) })
	}
	t.Run("a session ends", m.endSocketIOSession)
	t.Run("pages of two origins", func(t *testing.T) { m.browseSocketIO(t, pages) })
	t.Run("nothing is lost", m.shakeSocketIO)
	// That is how many it left.
	t.Run("chat on two pods", func(t *testing.T) { m.chatBySocketIO(t, options{}) })
	t.Run("pages on two pods", func(t *testing.T) { m.browseSocketIO(t, pages) })
}

// options are a stock client's.
type options map[string]any

var (
	polling   = options{"transports": []string{"polling"}}
	webSocket = options{"transports": []string{"websocket"}}
)

// stockPatience is how long anything may take to happen to stock clients.
const stockPatience = time.Minute

// stockClients are stock clients of a Marketplace's users, each by its name.
type stockClients struct {
	*stockclient.Driver
	t   *testing.T
	api *client.Client
	url string // of messaging's Service
}

func (m marketplace) stockClients(t *testing.T) *stockClients {
	t.Helper()
	return &stockClients{stockclient.Start(t, stockPatience), t, m.client(t), m.urls(t).Messaging}
}

// account is a user who can log in again.
type account struct {
	*client.Session
	email, password string
}

func (s *stockClients) signUp() account {
	s.t.Helper()
	a := account{email: fmt.Sprintf("%s@example.com", uuid.Must(uuid.NewV7())), password: rand.Text()}
	var err error
	if a.Session, err = s.api.Register(s.t.Context(), a.email, a.password, "User"); err != nil {
		s.t.Fatalf("sign up: %v", err)
	}
	return a
}

func (s *stockClients) logIn(a account) *client.Session {
	s.t.Helper()
	session, err := s.api.Login(s.t.Context(), a.email, a.password)
	if err != nil {
		s.t.Fatalf("log in: %v", err)
	}
	return session
}

// enter connects a client, and returns when it is let in.
func (s *stockClients) enter(name, url string, session *client.Session, more ...options) {
	s.t.Helper()
	token, err := session.AccessToken(s.t.Context())
	if err != nil {
		s.t.Fatalf("a token for %s: %v", name, err)
	}
	all := options{"auth": options{"token": token}}
	for _, o := range more {
		for k, v := range o {
			all[k] = v
		}
	}
	s.Enter(name, url, all)
}

// happens waits for something to happen to a client.
func (s *stockClients) happens(name, what string) stockclient.Happening {
	s.t.Helper()
	return s.Find(func(h stockclient.Happening) bool { return h.Client == name && h.What == what })
}

// stockEvent is what the server tells stock clients, of any kind.
type stockEvent struct {
	ID             uuid.UUID `json:"id"`
	ConversationID uuid.UUID `json:"conversation_id"`
	TaskID         uuid.UUID `json:"task_id"`
	Seq            int64     `json:"seq"`
	Event          string    `json:"event"`
}

// hears waits for a client's next event of a kind.
func (s *stockClients) hears(name, kind string) stockEvent {
	s.t.Helper()
	h := s.Find(func(h stockclient.Happening) bool { return h.Client == name && h.What == "event" && h.Event == kind })
	return readStock[stockEvent](s.t, h)
}

// stockAnswer is what stock clients' acknowledgements hold.
type stockAnswer struct {
	OK       bool              `json:"ok"`
	ID       uuid.UUID         `json:"id"`
	Seq      int64             `json:"seq"`
	Messages []stockEvent      `json:"messages"`
	Error    *client.WireError `json:"error"`
}

// ask sends a command, and returns its answer.
func (s *stockClients) ask(name, command string, fields options) stockAnswer {
	s.t.Helper()
	s.Emit(name, command, fields)
	return readStock[stockAnswer](s.t, s.happens(name, "ack"))
}

// readStock reads the first argument of an event or an acknowledgement.
func readStock[T any](t *testing.T, h stockclient.Happening) (read T) {
	t.Helper()
	if h.Error != "" || len(h.Args) == 0 {
		t.Fatalf("%s", h)
	}
	text, err := json.Marshal(h.Args[0])
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil {
		t.Fatalf("%s: %v", h, err)
	}
	return read
}

// message is what a client sends in a conversation.
func message(conversation uuid.UUID, text string) options {
	return options{"conversation_id": conversation, "client_id": uuid.Must(uuid.NewV7()), "body": options{"text": text}}
}

// agree has one user post a chore and the other one offer to do it, and returns
// their conversation, of which the named client of each hears.
func (s *stockClients) agree(one, other *client.Session, names ...string) uuid.UUID {
	s.t.Helper()
	ctx := s.t.Context()
	price := client.Money{AmountMinor: 2500, Currency: "EUR"}
	task, err := one.PostTask(ctx, "Mow the lawn", "It is 200 square metres.", price)
	if err == nil {
		_, err = other.MakeOffer(ctx, task.ID, price, "I have a mower.")
	}
	if err != nil {
		s.t.Fatalf("agree on a chore: %v", err)
	}
	var conversation uuid.UUID
	for _, name := range names {
		conversation = uuid.Nil
		for conversation == uuid.Nil {
			if e := s.hears(name, "task"); e.TaskID == task.ID {
				conversation = e.ConversationID
			}
		}
	}
	return conversation
}

// chatBySocketIO has pairs of users, more than could all be where their sessions
// are by luck, write to each other and read their history.
func (m marketplace) chatBySocketIO(t *testing.T, transports options) {
	t.Helper()
	const pairs = 4
	s := m.stockClients(t)
	before := m.forwarded(t)
	for i := range pairs {
		one, other := s.signUp(), s.signUp()
		names := []string{fmt.Sprintf("client-%d", i), fmt.Sprintf("tasker-%d", i)}
		s.enter(names[0], s.url, one.Session, transports)
		s.enter(names[1], s.url, other.Session, transports)
		if len(transports) == 0 {
			s.UntilUpgraded(names[0])
			s.UntilUpgraded(names[1])
		}
		conversation := s.agree(one.Session, other.Session, names...)
		var sent []uuid.UUID
		for n := range 6 {
			from, to := names[n%2], names[(n+1)%2]
			a := s.ask(from, "send", message(conversation, fmt.Sprintf("Message %d.", n)))
			if !a.OK || a.Seq != int64(n+1) {
				t.Fatalf("message %d: %+v %v", n, a, a.Error)
			}
			sent = append(sent, a.ID)
			for _, name := range []string{to, from} { // senders hear themselves
				if e := s.hears(name, "message"); e.ID != a.ID || e.ConversationID != conversation {
					t.Fatalf("message %d: %s hears %+v", n, name, e)
				}
			}
		}
		history := s.ask(names[1], "history", options{"conversation_id": conversation, "limit": 50})
		var told []uuid.UUID
		for _, e := range history.Messages {
			told = append(told, e.ID)
		}
		slices.Reverse(told)
		if !slices.Equal(told, sent) {
			t.Errorf("the history tells of %v, want %v; %v", told, sent, history.Error)
		}
	}
	after := m.forwarded(t)
	t.Logf("pods forwarded %v before and %v after that", before, after)
	if after.requests == before.requests && !reflect.DeepEqual(transports, webSocket) {
		t.Errorf("pods forwarded no request of %d clients: the Service is sticky", 2*pairs)
	}
	if after.sockets == 0 && len(transports) == 0 {
		t.Errorf("pods forward no socket of %d clients: the Service is sticky", 2*pairs)
	}
}

// forwards is what pods do for sessions of others.
type forwards struct{ requests, sockets int }

// forwarded asks messaging's pods.
func (m marketplace) forwarded(t *testing.T) (sum forwards) {
	t.Helper()
	pods, err := m.pods(t.Context(), contract.ComponentMessaging)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		url := fmt.Sprintf("http://%s:%d%s", p.Status.PodIP, contract.InternalPort, contract.PathMetrics)
		metrics, err := fetchText(t.Context(), url)
		if err != nil {
			t.Fatalf("metrics of %s: %v", p.Name, err)
		}
		for line := range strings.Lines(metrics) {
			var n float64
			if _, err := fmt.Sscanf(line, `marketplane_messaging_forwarded_requests_total{result="forwarded"} %g`, &n); err == nil {
				sum.requests += int(n)
			}
			if _, err := fmt.Sscanf(line, "marketplane_messaging_forwarded_sockets %g", &n); err == nil {
				sum.sockets += int(n)
			}
		}
	}
	return sum
}

func fetchText(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	return string(text), err
}

// endSocketIOSession logs a user out who has two connections in that session, and one in
// another.
func (m marketplace) endSocketIOSession(t *testing.T) {
	s := m.stockClients(t)
	user := s.signUp()
	other := s.logIn(user)
	ended := []string{"upgraded", "polling", "websocket"}
	s.enter("upgraded", s.url, user.Session)
	s.UntilUpgraded("upgraded")
	s.enter("polling", s.url, user.Session, polling)
	s.enter("websocket", s.url, user.Session, webSocket)
	s.enter("another session", s.url, other)
	if err := user.Logout(t.Context()); err != nil {
		t.Fatalf("log out: %v", err)
	}
	for _, name := range ended {
		if e := s.hears(name, "session"); e.Event != "ended" {
			t.Errorf("%s: %+v", name, e)
		}
		// After that stock clients stay away by themselves.
		if h := s.happens(name, "disconnect"); h.Reason != "io server disconnect" {
			t.Errorf("%s", h)
		}
		s.Say("open", name)
		if h := s.happens(name, "connect_error"); h.Data == nil || readData(t, h).Code != "session_ended" {
			t.Errorf("with an ended session's token: %s", h)
		}
	}
	// There is no such conversation: the refusal is the answer.
	if a := s.ask("another session", "typing", options{"conversation_id": uuid.Must(uuid.NewV7())}); a.Error == nil {
		t.Errorf("in another session: %+v", a)
	}
}

// readData reads why a client was refused.
func readData(t *testing.T, h stockclient.Happening) client.WireError {
	t.Helper()
	return readStock[client.WireError](t, stockclient.Happening{Client: h.Client, What: h.What, Args: []any{h.Data}})
}
