package sioapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client/stockclient"
	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/seal"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// world is what pods share, and the stock clients.
type world struct {
	*podtest.World
	*stockclient.Driver
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{podtest.NewWorld(t), stockclient.Start(t, patience)}
}

// pod is one process's messaging, with Socket.IO's door.
type pod struct {
	*podtest.Pod
	w        *world
	sockets  *sioapi.Server
	server   *httptest.Server
	stopping sync.Once
}

type podOptions struct {
	hub    hub.Options
	socket sioapi.Options
	// noRecovery turns connection state recovery off.
	noRecovery bool
	// endsMeanwhile is a session that always ends just after its token is verified.
	endsMeanwhile uuid.UUID
}

// sealingKey is the installation's.
var sealingKey = make([]byte, seal.KeySize)

func (w *world) newPod(options podOptions) *pod {
	w.T.Helper()
	p := &pod{Pod: w.NewPod(options.hub), w: w}
	p.Sessions.EndsMeanwhile = options.endsMeanwhile
	rate := options.socket.Door.Rate
	options.socket.Door = p.Door
	if rate != (messaging.Rate{}) {
		options.socket.Door.Rate = rate
	}
	if !options.noRecovery {
		places, err := seal.New(sealingKey, "recovery")
		if err != nil {
			w.T.Fatal(err)
		}
		options.socket.Places = places
	}
	p.sockets = sioapi.NewServer(p.Service, p.Hub, p.Sessions, options.socket, testkit.Logger(w.T), p.Registry)
	if err := p.sockets.Start(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(sioapi.Path, p.sockets)
	p.server = httptest.NewServer(mux)
	w.T.Cleanup(p.stop)
	return p
}

// stop stops the pod as its process would.
func (p *pod) stop() {
	p.w.T.Helper()
	p.stopping.Do(p.end)
}

func (p *pod) end() {
	p.w.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx, p.sockets.Stop); err != nil {
		p.w.T.Errorf("stop the pod: %v", err)
	}
	p.server.Close()
}

// service stands before pods, as a Service does: new requests go to the one that is
// chosen.
type service struct {
	*httptest.Server
	to atomic.Pointer[pod]
}

func (w *world) newService(to *pod) *service {
	w.T.Helper()
	s := &service{}
	s.to.Store(to)
	s.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			target, _ := url.Parse(s.to.Load().server.URL) // httptest's
			r.SetURL(target)
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) },
	})
	w.T.Cleanup(s.Close)
	return s
}

// options are a stock client's, of a user with a session of his own.
func (w *world) options(user uuid.UUID, more ...map[string]any) map[string]any {
	w.T.Helper()
	return w.optionsIn(user, uuid.New(), more...)
}

func (w *world) optionsIn(user, session uuid.UUID, more ...map[string]any) map[string]any {
	w.T.Helper()
	o := map[string]any{"auth": map[string]any{"token": w.Tokens.Issue(w.T, user, session)}}
	for _, m := range more {
		for k, v := range m {
			o[k] = v
		}
	}
	return o
}

// webSocket is a stock client's option.
var webSocket = map[string]any{"transports": []string{"websocket"}}

// ask sends a command, and returns its answer.
func (w *world) ask(client, op string, fields any) answer {
	w.T.Helper()
	w.Emit(client, op, fields)
	h := w.Find(func(h stockclient.Happening) bool { return h.Client == client && h.What == "ack" })
	if h.Event != op || h.Error != "" || len(h.Args) != 1 {
		w.T.Fatalf("%s: %s", op, h)
	}
	return decode[answer](w.T, h.Args[0])
}

// answer is an acknowledgement.
type answer struct {
	OK         bool      `json:"ok"`
	ID         uuid.UUID `json:"id"`
	Seq        int64     `json:"seq"`
	Duplicate  bool      `json:"duplicate"`
	Messages   []event   `json:"messages"`
	NextBefore int64     `json:"next_before"`
	Error      *problem  `json:"error"`
}

type problem struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Pointer   string `json:"pointer"`
	Temporary bool   `json:"temporary"`
	RetryMS   int64  `json:"retry_ms"`
}

// event is the first argument of what the server emits.
type event struct {
	ConversationID uuid.UUID       `json:"conversation_id"`
	Seq            int64           `json:"seq"`
	ID             uuid.UUID       `json:"id"`
	ClientID       uuid.UUID       `json:"client_id"`
	From           uuid.UUID       `json:"from"`
	UserID         uuid.UUID       `json:"user_id"`
	Body           json.RawMessage `json:"body"`
	Event          string          `json:"event"`
	Status         string          `json:"status"`
	AfterMS        *int64          `json:"after_ms"`
	DeadlineMS     int64           `json:"deadline_ms"`
}

func decode[T any](t testing.TB, from any) (to T) {
	t.Helper()
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, &to)
	}
	if err != nil {
		t.Fatalf("%v: %v", from, err)
	}
	return to
}

// hears waits for a client's next event of a name.
func (w *world) hears(client, name string) event {
	w.T.Helper()
	h := w.Find(func(h stockclient.Happening) bool { return h.Client == client && h.What == "event" && h.Event == name })
	return decode[event](w.T, h.Args[0])
}

// happens waits for something else to happen to a client.
func (w *world) happens(client, what string) stockclient.Happening {
	w.T.Helper()
	return w.Find(func(h stockclient.Happening) bool { return h.Client == client && h.What == what })
}

func sendFields(conversation uuid.UUID, body any) map[string]any {
	return map[string]any{"conversation_id": conversation, "client_id": uuid.New(), "body": body}
}
