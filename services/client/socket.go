package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
)

// Subprotocol is the native protocol's name.
const Subprotocol = "marketplane.v1"

// Event is something that the server tells: a message, a task that changed, …
// Fields that an op does not have are zero.
type Event struct {
	Op             string          `json:"op"`
	Cursor         string          `json:"cursor"`
	ConversationID uuid.UUID       `json:"conversation_id"`
	Seq            int64           `json:"seq"`
	ID             uuid.UUID       `json:"id"`
	ClientID       uuid.UUID       `json:"client_id"`
	From           json.RawMessage `json:"from"` // a user's id in messages, a status in task events
	To             string          `json:"to"`
	Body           json.RawMessage `json:"body"`
	TaskID         uuid.UUID       `json:"task_id"`
}

// Ack says that a message is committed.
type Ack struct {
	ID        uuid.UUID `json:"id"`
	Seq       int64     `json:"seq"`
	Duplicate bool      `json:"duplicate"`
}

// WireError is the server's refusal of one operation.
type WireError struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Temporary bool   `json:"temporary"`
	RetryMS   int64  `json:"retry_ms"`
}

// Error says what the server said.
func (e *WireError) Error() string { return e.Code + ": " + e.Message }

// Stats tell what a socket went through.
type Stats struct {
	// Connects counts connections that were made and authenticated, the first
	// one too.
	Connects int
	// Moves counts those of them that followed a reconnect hint.
	Moves int
	// NotRecovered counts resumes at which the server no longer had what was
	// missed.
	NotRecovered int
	// Instance is the process that the socket is connected to.
	Instance string
}

// Socket is a WebSocket that stays: it reconnects, resumes where it was, sends
// again what was not acknowledged, and moves when the server asks it to.
type Socket struct {
	session *Session
	events  chan Event
	cancel  context.CancelFunc
	done    chan struct{}

	// delivery is held while an event is handed over: when a link is muted, what
	// it has read is before what the next one brings.
	delivery sync.Mutex

	mu      sync.Mutex
	link    *link // nil while disconnected
	next    *link // connected, to take over when link ends
	cursor  string
	stats   Stats
	lastID  uint64
	pending map[uint64]*call
	err     error
}

// link is one connection.
type link struct {
	conn     *websocket.Conn
	instance string
	// muted links still answer calls, but their events come over another link
	// by now.
	muted bool
}

// call waits for the reply to an operation.
type call struct {
	encoded []byte
	reply   chan frame // of one
}

// frame is any object that the server sends.
type frame struct {
	Re         uint64          `json:"re"`
	OK         json.RawMessage `json:"ok"`
	Err        *WireError      `json:"error"`
	Op         string          `json:"op"`
	AfterMS    int64           `json:"after_ms"`
	DeadlineMS int64           `json:"deadline_ms"`
}

const (
	// eventBuffer is how many events may wait for their reader; then the socket
	// stops reading, and the server will close it as too slow.
	eventBuffer    = 1024
	maxFrame       = 1 << 20
	writeTimeout   = 10 * time.Second
	connectTimeout = 10 * time.Second
)

// Dial connects, and returns once the socket is authenticated. It tries on
// until ctx ends; ctx does not bound the socket's life.
func (s *Session) Dial(ctx context.Context) (*Socket, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	socket := &Socket{
		session: s, events: make(chan Event, eventBuffer), cancel: cancel, done: make(chan struct{}),
		pending: map[uint64]*call{},
	}
	first, err := socket.connectUntil(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect the socket: %w", err)
	}
	socket.link = first // before run takes it on, so that Stats knows the instance
	go socket.run(life, first)
	return socket, nil
}

// Events are in order, each once. The channel is closed when the socket ends.
func (s *Socket) Events() <-chan Event { return s.events }

// Stats returns what the socket went through so far.
func (s *Socket) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	if s.link != nil {
		stats.Instance = s.link.instance
	}
	return stats
}

// Err says why the socket ended; nil while it lives and after Close.
func (s *Socket) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the socket and waits for it.
func (s *Socket) Close() {
	s.cancel()
	<-s.done
}

// Send sends a message, again and again until the server has committed it, or
// refuses it for good, or ctx ends. clientID makes repeats harmless.
func (s *Socket) Send(ctx context.Context, conversation, clientID uuid.UUID, body any) (Ack, error) {
	for attempt := 0; ; attempt++ {
		var ack Ack
		err := s.call(ctx, map[string]any{
			"op": "send", "conversation_id": conversation, "client_id": clientID, "body": body,
		}, &ack)
		var refused *WireError
		if !errors.As(err, &refused) || !refused.Temporary {
			return ack, err
		}
		pause := max(delay(attempt, nil), time.Duration(refused.RetryMS)*time.Millisecond)
		if wait(ctx, pause) != nil {
			return Ack{}, fmt.Errorf("send: gave up after %d tries: %w", attempt+1, err)
		}
	}
}

// call sends one operation and waits for its reply, over as many connections
// as it takes. Operations are idempotent.
func (s *Socket) call(ctx context.Context, op map[string]any, out any) error {
	c := &call{reply: make(chan frame, 1)}
	s.mu.Lock()
	s.lastID++
	id := s.lastID
	op["id"] = id
	encoded, err := json.Marshal(op)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("encode %v: %w", op["op"], err)
	}
	encoded = append(encoded, '\n')
	c.encoded = encoded
	s.pending[id] = c
	current := s.link
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pending, id)
		s.mu.Unlock()
	}()
	if current != nil {
		current.write(c.encoded) // if it fails, the next link sends it
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return fmt.Errorf("the socket has ended: %w", s.Err())
	case f := <-c.reply:
		if f.Err != nil {
			return f.Err
		}
		return json.Unmarshal(f.OK, out)
	}
}

func (l *link) write(data []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	_ = l.conn.Write(ctx, websocket.MessageText, data) // a broken link shows in its reader
}

// run serves one link after the other.
func (s *Socket) run(ctx context.Context, current *link) {
	defer close(s.done)
	defer close(s.events)
	for {
		err := s.serve(ctx, current)
		s.mu.Lock()
		next := s.next
		s.link, s.next = nil, nil
		s.mu.Unlock()
		if ctx.Err() == nil && next == nil {
			if isFatal(err) {
				s.fail(err)
				return
			}
			next, err = s.connectUntil(ctx)
			if err != nil && ctx.Err() == nil {
				s.fail(err)
				return
			}
		}
		if ctx.Err() != nil {
			if next != nil {
				_ = next.conn.CloseNow()
			}
			return
		}
		current = next
	}
}

func (s *Socket) fail(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

// serve adopts a link and reads it until it ends.
func (s *Socket) serve(ctx context.Context, l *link) error {
	moves := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	moving := false
	defer func() {
		cancel()
		_ = l.conn.CloseNow()
		if moving {
			<-moves
		}
	}()
	s.mu.Lock()
	s.link = l
	again := make([][]byte, 0, len(s.pending))
	for _, c := range s.pending {
		again = append(again, c.encoded)
	}
	s.mu.Unlock()
	for _, encoded := range again {
		l.write(encoded)
	}
	for {
		_, data, err := l.conn.Read(ctx)
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if line == "" {
				continue
			}
			f, err := s.dispatch(ctx, l, []byte(line))
			if err != nil {
				return err
			}
			if f.Op == "reconnect" && !moving {
				moving = true
				go func() {
					defer close(moves)
					s.move(ctx, l, time.Duration(f.AfterMS)*time.Millisecond)
				}()
			}
		}
	}
}

// dispatch hands an object to whoever waits for it.
func (s *Socket) dispatch(ctx context.Context, l *link, line []byte) (frame, error) {
	var f frame
	if err := json.Unmarshal(line, &f); err != nil {
		return f, fmt.Errorf("the server sent what is not JSON: %w", err)
	}
	if f.Re != 0 {
		s.mu.Lock()
		c := s.pending[f.Re]
		delete(s.pending, f.Re)
		s.mu.Unlock()
		if c != nil {
			c.reply <- f
		}
		return f, nil
	}
	if f.Op == "reconnect" {
		return f, nil
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return f, fmt.Errorf("the server sent an event of another shape: %w", err)
	}
	s.delivery.Lock()
	defer s.delivery.Unlock()
	s.mu.Lock()
	muted := l.muted
	if !muted && e.Cursor != "" {
		s.cursor = e.Cursor
	}
	s.mu.Unlock()
	if muted {
		return f, nil
	}
	select {
	case s.events <- e:
		return f, nil
	case <-ctx.Done():
		return f, ctx.Err()
	}
}

// move opens the next link, as the server asked, while the old one is in use.
func (s *Socket) move(ctx context.Context, old *link, after time.Duration) {
	if wait(ctx, after) != nil {
		return
	}
	next, err := s.connect(ctx, old)
	if err != nil {
		// Its cursor may have been taken: come back in the ordinary way.
		s.mu.Lock()
		old.muted = false
		s.mu.Unlock()
		_ = old.conn.CloseNow()
		return
	}
	s.mu.Lock()
	s.next = next
	s.stats.Moves++
	s.mu.Unlock()
	_ = old.conn.Close(websocket.StatusNormalClosure, "moved")
}

// connectUntil tries until a link is there, the server refuses for good, or
// ctx ends.
func (s *Socket) connectUntil(ctx context.Context) (*link, error) {
	for attempt := 0; ; attempt++ {
		l, err := s.connect(ctx, nil)
		if err == nil {
			return l, nil
		}
		if isFatal(err) {
			return nil, err
		}
		if wait(ctx, delay(attempt, nil)) != nil {
			return nil, err
		}
	}
}

// connect opens and authenticates a link. When it takes over from another, it
// mutes that one at the moment in which it takes the cursor from it: what
// follows comes over the new link, and nothing comes twice.
func (s *Socket) connect(ctx context.Context, old *link) (*link, error) {
	token, err := s.session.AccessToken(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	url := "ws" + strings.TrimPrefix(s.session.client.urls.Messaging, "http") + "/v1/ws"
	conn, response, err := websocket.Dial(ctx, url, &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		Subprotocols: []string{Subprotocol}, HTTPClient: s.session.client.http,
	})
	if err != nil {
		if response != nil && response.StatusCode == http.StatusForbidden {
			return nil, &fatalError{err}
		}
		return nil, err
	}
	conn.SetReadLimit(maxFrame)
	l := &link{conn: conn, instance: response.Header.Get(contract.HeaderInstance)}
	if err := s.authenticate(ctx, l, old, token); err != nil {
		_ = conn.CloseNow()
		return nil, err
	}
	return l, nil
}

func (s *Socket) authenticate(ctx context.Context, l, old *link, token string) error {
	auth := map[string]any{"id": rand.Uint64N(1<<32) + 1<<32, "op": "auth", "token": token} //nolint:gosec // G404: an id, not a secret
	s.delivery.Lock()
	s.mu.Lock()
	if s.cursor != "" {
		auth["cursor"] = s.cursor
	}
	if old != nil {
		old.muted = true
	}
	s.mu.Unlock()
	s.delivery.Unlock()
	encoded, err := json.Marshal(auth)
	if err != nil {
		return err
	}
	if err := l.conn.Write(ctx, websocket.MessageText, append(encoded, '\n')); err != nil {
		return err
	}
	for {
		_, data, err := l.conn.Read(ctx)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		for i, line := range lines {
			var f frame
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				return fmt.Errorf("the server sent what is not JSON: %w", err)
			}
			if f.Re == 0 {
				continue // hello
			}
			if f.Err != nil {
				if f.Err.Temporary {
					return f.Err
				}
				return &fatalError{f.Err}
			}
			if err := s.authenticated(f.OK); err != nil {
				return err
			}
			// Missed events may follow in the same frame.
			for _, line := range lines[i+1:] {
				if _, err := s.dispatch(ctx, l, []byte(line)); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func (s *Socket) authenticated(reply json.RawMessage) error {
	var ok struct {
		Cursor    string `json:"cursor"`
		Recovered bool   `json:"recovered"`
	}
	if err := json.Unmarshal(reply, &ok); err != nil {
		return fmt.Errorf("the server answered auth in another shape: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Connects++
	if s.cursor == "" || !ok.Recovered {
		if s.cursor != "" {
			s.stats.NotRecovered++
		}
		s.cursor = ok.Cursor
	}
	return nil
}

// fatalError is one that another try can't cure.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// isFatal follows the protocol's classes: 4000 to 4099 means "do not come
// back".
func isFatal(err error) bool {
	var fatal *fatalError
	if errors.As(err, &fatal) {
		return true
	}
	var p *Problem
	if errors.As(err, &p) {
		return !isTemporary(p) // the session is over
	}
	code := websocket.CloseStatus(err)
	return code >= 4000 && code < 4100
}
