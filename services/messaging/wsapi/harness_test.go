package wsapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/internal/podtest"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// patience is how long a test waits for what must happen.
const patience = podtest.Patience

// world is what pods share.
type world struct{ *podtest.World }

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{podtest.NewWorld(t)}
}

// pair is a conversation and its members.
type pair = podtest.Pair

// pod is one process's messaging.
type pod struct {
	*podtest.Pod
	w       *world
	sockets *wsapi.Server
	server  *httptest.Server
	url     string
	stopped bool
}

type podOptions struct {
	hub    hub.Options
	socket wsapi.Options
	// endsMeanwhile is a session that always ends just after its token is verified.
	endsMeanwhile uuid.UUID
}

// fast lets tests send as fast as they can.
var fast = podtest.Fast

func (w *world) newPod(options podOptions) *pod {
	w.T.Helper()
	p := &pod{Pod: w.NewPod(options.hub), w: w}
	p.Sessions.EndsMeanwhile = options.endsMeanwhile
	rate := options.socket.Door.Rate
	options.socket.Door = p.Door
	if rate != (messaging.Rate{}) {
		options.socket.Door.Rate = rate
	}
	log := testkit.Logger(w.T)
	p.sockets = wsapi.NewServer(p.Service, p.Hub, p.Sessions, options.socket, log, p.Registry)
	if err := p.sockets.Start(w.T.Context()); err != nil {
		w.T.Fatal(err)
	}
	router := web.NewRouter(web.Options{Log: log, Registry: p.Registry, Instance: "pod"})
	router.Get(wsapi.Path, p.sockets.ServeHTTP)
	p.server = httptest.NewServer(router)
	p.url = "ws" + strings.TrimPrefix(p.server.URL, "http") + wsapi.Path
	w.T.Cleanup(p.stop)
	return p
}

// stop stops the pod as its process would.
func (p *pod) stop() {
	p.w.T.Helper()
	if p.stopped {
		return
	}
	p.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.server.Config.SetKeepAlivesEnabled(false)
	if err := p.Stop(ctx, p.sockets.Stop); err != nil {
		p.w.T.Errorf("stop the pod: %v", err)
	}
	p.server.Close()
}

// closes is how many sockets the pod closed, or is closing, with a code.
func (p *pod) closes(code int) int {
	return int(p.Metric("marketplane_messaging_ws_closes_total", "code", strconv.Itoa(code)))
}

// object is anything that the server sends.
type object struct {
	Op             string          `json:"op"`
	Re             uint64          `json:"re"`
	Cursor         string          `json:"cursor"`
	Seq            int64           `json:"seq"`
	ID             uuid.UUID       `json:"id"`
	ClientID       uuid.UUID       `json:"client_id"`
	ConversationID uuid.UUID       `json:"conversation_id"`
	UserID         uuid.UUID       `json:"user_id"`
	From           string          `json:"from"`
	Body           json.RawMessage `json:"body"`
	Event          string          `json:"event"`
	Status         string          `json:"status"`
	AfterMS        int64           `json:"after_ms"`
	DeadlineMS     int64           `json:"deadline_ms"`
	PingMS         int64           `json:"ping_ms"`
	MaxPayload     int64           `json:"max_payload"`
	ResumeTTLS     int64           `json:"resume_ttl_s"`
	OK             *struct {
		ID        uuid.UUID `json:"id"`
		Seq       int64     `json:"seq"`
		Duplicate bool      `json:"duplicate"`
		Cursor    string    `json:"cursor"`
		Recovered *bool     `json:"recovered"`
		User      uuid.UUID `json:"user"`
		Session   uuid.UUID `json:"session"`

		Messages   []object `json:"messages"`
		NextBefore int64    `json:"next_before"`
	} `json:"ok"`
	Error *struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		Pointer   string `json:"pointer"`
		Temporary bool   `json:"temporary"`
		RetryMS   int64  `json:"retry_ms"`
	} `json:"error"`
}

// peer is a small client: it reads everything, and sorts replies from events.
type peer struct {
	t      testing.TB
	ws     *websocket.Conn
	nextID uint64
	cursor string // of the auth's reply

	mu      sync.Mutex
	changed *sync.Cond
	events  []object
	replies map[uint64]object
	closed  error // why reading ended
}

// dial opens a socket that is not authenticated.
func (p *pod) dial(t testing.TB) *peer {
	t.Helper()
	return p.dialBy(t, http.DefaultClient)
}

func (p *pod) dialBy(t testing.TB, client *http.Client) *peer {
	t.Helper()
	c, err := dial(t, p.url, client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial is for any goroutine.
func dial(t testing.TB, url string, client *http.Client) (*peer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		HTTPClient: client, Subprotocols: []string{wsapi.Subprotocol},
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { _ = ws.CloseNow() })
	c := &peer{t: t, ws: ws, replies: map[uint64]object{}}
	c.changed = sync.NewCond(&c.mu)
	return c, nil
}

// connect opens a socket and authenticates it as the user, in a session of its
// own, from the cursor on if there is one.
func (p *pod) connect(t testing.TB, user uuid.UUID, cursor string) *peer {
	t.Helper()
	c, err := connect(t, p.url, p.w.Tokens.Issue(t, user, uuid.New()), cursor)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect opens a socket and authenticates it, from the cursor on if there is
// one. It is for any goroutine.
func connect(t testing.TB, url, token, cursor string) (*peer, error) {
	t.Helper()
	c, err := dial(t, url, http.DefaultClient)
	if err != nil {
		return nil, err
	}
	go c.read()
	r, ok := c.try(authFields(token, cursor))
	switch {
	case !ok:
		return nil, errors.Join(errors.New("no reply to auth"), c.closeError())
	case r.OK == nil:
		return nil, fmt.Errorf("auth: %+v", r.Error)
	case cursor != "" && !*r.OK.Recovered:
		return nil, errors.New("not recovered")
	}
	c.cursor = r.OK.Cursor
	return c, nil
}

func (c *peer) read() {
	for {
		_, frame, err := c.ws.Read(context.Background())
		c.mu.Lock()
		if err != nil {
			c.closed = err
			c.changed.Broadcast()
			c.mu.Unlock()
			return
		}
		for line := range strings.SplitSeq(string(frame), "\n") {
			if line == "" {
				continue
			}
			var o object
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				c.t.Errorf("the server sent %q: %v", line, err)
			}
			schema := o.Op
			if o.Op == "" {
				schema = "reply"
			}
			conforms(c.t, schema, []byte(line))
			if o.Re != 0 {
				c.replies[o.Re] = o
			} else {
				c.events = append(c.events, o)
			}
		}
		c.changed.Broadcast()
		c.mu.Unlock()
	}
}

// await waits until f is true; f runs under the lock. It is false when the
// socket closed, or patience ended, before.
func (c *peer) await(f func() bool) bool {
	timer := time.AfterFunc(patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer timer.Stop()
	start := time.Now()
	for !f() {
		if c.closed != nil || time.Since(start) >= patience {
			return f()
		}
		c.changed.Wait()
	}
	return true
}

func (c *peer) write(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(text))
}

// try sends a command and waits for its reply; ok is false if the socket
// closed before.
func (c *peer) try(fields map[string]any) (o object, ok bool) {
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	c.mu.Unlock()
	fields["id"] = id
	encoded, err := json.Marshal(fields)
	if err != nil {
		c.t.Error(err)
		return object{}, false
	}
	if c.write(string(encoded)+"\n") != nil {
		return object{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ok = c.await(func() bool {
		o, ok = c.replies[id]
		return ok
	})
	if o.OK != nil {
		schema, _ := fields["op"].(string)
		switch schema { // the server's events have the names
		case "typing":
			schema = "startTyping"
		case "presence":
			schema = "announcePresence"
		}
		conforms(c.t, schema, encoded)
	}
	return o, ok
}

func (c *peer) call(fields map[string]any) object {
	c.t.Helper()
	o, ok := c.try(fields)
	if !ok {
		c.t.Fatalf("no reply to %v: %v", fields["op"], c.closeError())
	}
	return o
}

func (c *peer) auth(token, cursor string) object {
	c.t.Helper()
	return c.call(authFields(token, cursor))
}

func authFields(token, cursor string) map[string]any {
	fields := map[string]any{"op": "auth", "token": token}
	if cursor != "" {
		fields["cursor"] = cursor
	}
	return fields
}

func sendFields(p pair, clientID uuid.UUID, text string) map[string]any {
	return map[string]any{"op": "send", "conversation_id": p.Conversation, "client_id": clientID, "body": map[string]string{"text": text}}
}

// send sends a message that must be acknowledged.
func (c *peer) send(p pair, text string) object {
	c.t.Helper()
	r := c.call(sendFields(p, uuid.New(), text))
	if r.OK == nil {
		c.t.Fatalf("send: %+v", r.Error)
	}
	return r
}

// wantRefused fails unless a command is refused with the code.
func (c *peer) wantRefused(fields map[string]any, code string) object {
	c.t.Helper()
	r := c.call(fields)
	if r.Error == nil || r.Error.Code != code {
		c.t.Fatalf("%v: %+v %+v, want the error %s", fields["op"], r.OK, r.Error, code)
	}
	return r
}

// waitEvents waits for n events of the op, and returns them.
func (c *peer) waitEvents(op string, n int) []object {
	c.t.Helper()
	var found []object
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.await(func() bool {
		found = found[:0]
		for _, e := range c.events {
			if e.Op == op {
				found = append(found, e)
			}
		}
		return len(found) >= n
	}) {
		c.t.Fatalf("%d %s events, want %d (closed: %v)", len(found), op, n, c.closed)
	}
	return found
}

func (c *peer) closeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// wantClose waits until the server closes the socket with a code.
func (c *peer) wantClose(code int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.await(func() bool { return c.closed != nil })
	if got := int(websocket.CloseStatus(c.closed)); got != code {
		c.t.Fatalf("closed with %v, want code %d", c.closed, code)
	}
}

// durable returns the events that have a cursor.
func (c *peer) durable() []object {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []object
	for _, e := range c.events {
		if e.Cursor != "" {
			out = append(out, e)
		}
	}
	return out
}

// lastCursor is where a client resumes.
func (c *peer) lastCursor() string {
	if events := c.durable(); len(events) > 0 {
		return events[len(events)-1].Cursor
	}
	return c.cursor
}

// status is the HTTP status and the problem's code of a refused upgrade.
func (p *pod) status(t testing.TB, change func(*http.Request)) string {
	t.Helper()
	r := testkit.Upgrade(t, p.server.URL+wsapi.Path, wsapi.Subprotocol)
	change(r)
	response, err := p.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.NewDecoder(response.Body).Decode(&problem)
	return fmt.Sprintf("%d %s", response.StatusCode, problem.Code)
}
