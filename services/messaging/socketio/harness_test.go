package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// session is an Engine.IO session that a test plays, and its client.
type session struct {
	t       *testing.T
	handler *conn

	mu       sync.Mutex
	sent     []string // binary messages begin with "bin:"
	closing  string   // why the server closed it
	aborted  bool
	overflow bool // refuses what is sent
	full     bool // has no room
}

// connect begins a session.
func connect(t *testing.T, s *Server) *session {
	t.Helper()
	c := &session{t: t}
	c.handler = s.open(c, httptestRequest(t))
	return c
}

func httptestRequest(t *testing.T) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/socket.io/?EIO=4", nil)
}

func (c *session) ID() string                    { return "engine" }
func (c *session) Transport() engineio.Transport { return engineio.WebSocket }
func (c *session) LastRead() time.Time           { return time.Now() }
func (c *session) Room(context.Context) error    { return nil }

func (c *session) LimitPayload(int) {}

func (c *session) HasRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.full
}

func (c *session) Send(kind engineio.Kind, parts ...[]byte) error {
	return c.SendAll(engineio.Packet{Kind: kind, Parts: parts})
}

func (c *session) Gather(_ engineio.Urgency, parts ...[]byte) error {
	return c.Send(engineio.Text, parts...)
}

func (c *session) SendAll(packets ...engineio.Packet) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing != "" || c.aborted:
		return engineio.ErrClosed
	case c.overflow:
		return engineio.ErrOverflow
	}
	for _, p := range packets {
		text := string(slices.Concat(p.Parts...))
		if p.Kind == engineio.Binary {
			text = "bin:" + text
		}
		c.sent = append(c.sent, text)
	}
	return nil
}

func (c *session) Close(code int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing == "" {
		c.closing = fmt.Sprintf("%d %s", code, reason)
	}
}

func (c *session) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
}

// say has the client send packets; those that begin with "bin:" are attachments.
// It returns the last one's pause. What a handler keeps of a message is spoilt.
func (c *session) say(messages ...string) (pause <-chan struct{}) {
	for _, m := range messages {
		kind := engineio.Text
		if strings.HasPrefix(m, "bin:") {
			kind, m = engineio.Binary, m[4:]
		}
		b := []byte(m)
		pause = c.handler.Message(kind, b)
		for i := range b {
			b[i] = '?'
		}
	}
	return pause
}

// end ends the session.
func (c *session) end(reason engineio.Reason) {
	c.mu.Lock()
	if c.closing == "" {
		c.closing = "ended"
	}
	c.mu.Unlock()
	c.handler.Closed(reason, nil)
}

// heard is what the server has sent since the last time.
func (c *session) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

// want compares what the server has sent; * stands for what is random.
func (c *session) want(messages ...string) {
	c.t.Helper()
	heard := c.heard()
	if !slices.EqualFunc(heard, messages, match) {
		c.t.Errorf("heard %q, want %q", heard, messages)
	}
}

func match(text, pattern string) bool {
	parts := strings.Split(pattern, "*")
	for i, part := range parts {
		at := strings.Index(text, part)
		if at < 0 || i == 0 && at > 0 || i > 0 && at == 0 && part != "" {
			return false
		}
		text = text[at+len(part):]
	}
	return text == "" || parts[len(parts)-1] == ""
}

// wantClosed says that the server has closed the session.
func (c *session) wantClosed(code int) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !strings.HasPrefix(c.closing, strconv.Itoa(code)) {
		c.t.Errorf("closed: %q, want %d", c.closing, code)
	}
}

// wantClosedAfter says that the server closes the session after a time, and not
// before.
func (c *session) wantClosedAfter(d time.Duration, code int) {
	c.t.Helper()
	time.Sleep(d - 1)
	synctest.Wait()
	c.wantOpen()
	time.Sleep(time.Nanosecond)
	synctest.Wait()
	c.wantClosed(code)
}

func (c *session) wantOpen() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing != "" || c.aborted {
		c.t.Errorf("it is closed: %s, aborted: %v", c.closing, c.aborted)
	}
}

func (c *session) wantAborted() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.aborted {
		c.t.Error("it is not aborted")
	}
}

// answered is the payload of the CONNECT that the server has sent.
func (c *session) answered() (a answer) {
	c.t.Helper()
	heard := c.heard()
	if len(heard) == 0 || heard[0][0] != '0' {
		c.t.Fatalf("heard %q, want CONNECT", heard)
	}
	if err := json.Unmarshal([]byte(heard[0][strings.IndexByte(heard[0], '{'):]), &a); err != nil {
		c.t.Fatal(err)
	}
	return a
}

// enter connects a session to the main namespace, and returns its socket.
func enter(t *testing.T, s *Server) (*session, *Socket) {
	t.Helper()
	c := connect(t, s)
	c.say("0")
	synctest.Wait()
	socket := s.Of("/").Socket(c.answered().SID)
	if socket == nil {
		t.Fatal("there is no socket")
	}
	return c, socket
}

// journal is what the handlers of a namespace were told.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, fmt.Sprintf(format, args...))
}

func (j *journal) want(t *testing.T, entries ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.EqualFunc(j.entries, entries, match) {
		t.Errorf("the journal has %q, want %q", j.entries, entries)
	}
	j.entries = nil
}

// keep writes a namespace's journal.
func keep(n *Namespace) *journal {
	j := new(journal)
	n.OnConnect(func(*Socket) { j.add("connect") })
	n.OnDisconnect(func(_ *Socket, reason Reason) { j.add("disconnect: %s", reason) })
	n.OnAny(func(_ *Socket, e Event) <-chan struct{} {
		j.add("%s(%s)", e.Name, e.Args.list)
		return nil
	})
	return j
}
