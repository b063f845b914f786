package engineio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/internal/wheel"
	"github.com/marketplane/marketplane/services/internal/wsconn"
)

// Server holds sessions. Start it before it serves.
type Server struct {
	options Options
	open    func(c *Conn, r *http.Request) Handler
	group   *wsconn.Group
	reading *budget.Budget // of Options.MaxReading
	wheel   *wheel.Wheel
	epoch   time.Time
	started atomic.Bool
	running sync.WaitGroup // sessions until their handlers know of the end, and handshakes of WebSockets

	mu       sync.Mutex
	conns    map[string]*Conn
	admitted int // sessions, and those that are about to begin
	draining bool

	polled    atomic.Int64 // bytes that wait for polls
	upgrading atomic.Int64
	upgraded  atomic.Int64
	sessions  byTransport
	opened    byTransport
	refused   [CodeUnsupportedVersion + 1]atomic.Int64
	closed    map[Reason]*atomic.Int64 // not written to
}

type byTransport struct{ polling, webSocket atomic.Int64 }

func (b *byTransport) of(t Transport) *atomic.Int64 {
	if t == WebSocket {
		return &b.webSocket
	}
	return &b.polling
}

func (b *byTransport) load() map[Transport]int64 {
	return map[Transport]int64{Polling: b.polling.Load(), WebSocket: b.webSocket.Load()}
}

// controlRoom lets an upgrade take over a full queue behind the answer to its probe.
const controlRoom = 16

// NewServer makes a server. open is told of each new session, before anything is
// read of it; what it sends comes right after the handshake. It may block, and must
// not return nil.
func NewServer(options Options, open func(c *Conn, r *http.Request) Handler) *Server {
	options = options.withDefaults()
	reading := budget.New(options.MaxReading)
	s := &Server{
		options: options,
		open:    open,
		reading: reading,
		group: wsconn.NewGroup(wsconn.Options{
			MaxMessage:     options.MaxPayload,
			Reading:        reading,
			MaxQueued:      options.MaxQueued + controlRoom,
			WriteTimeout:   options.WriteTimeout,
			MessageTimeout: options.MessageTimeout,
			CloseTimeout:   options.CloseTimeout,
		}),
		wheel:  wheel.New(max(min(wheel.DefaultTick, options.PingTimeout/10), time.Millisecond), time.Now),
		epoch:  time.Now(),
		conns:  map[string]*Conn{},
		closed: map[Reason]*atomic.Int64{},
	}
	for _, reason := range []Reason{TransportClose, TransportError, ParseError, PingTimeout, ForcedClose, ServerShutdown} {
		s.closed[reason] = new(atomic.Int64)
	}
	return s
}

// Start begins to watch for what clients send, and for time.
func (s *Server) Start() error {
	if err := s.group.Start(); err != nil {
		return err //nolint:wrapcheck // it says what
	}
	s.started.Store(true)
	return s.wheel.Start(context.Background()) //nolint:wrapcheck // it never fails
}

// Shutdown closes all sessions in order, takes no new ones, and returns when all of
// them have ended, and their handlers know. When ctx is done, the rest is aborted,
// and its error returned. All are closed at once: the pace of a drain is the
// program's, by Refuse and Conn.Close. A server is not started again.
func (s *Server) Shutdown(ctx context.Context) error {
	for _, c := range s.drain() {
		c.close(ServerShutdown, closeRestart, string(ServerShutdown))
	}
	ended := make(chan struct{})
	go func() { //nolint:gosec // G118: it goes on when ctx is done
		defer close(ended)
		s.running.Wait() // there may be handshakes, whatever ctx says
		_ = s.group.Wait(context.Background())
		if s.started.Load() {
			_ = s.wheel.Stop(context.Background()) // which takes no time
		}
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		for _, c := range s.drain() {
			c.Abort()
		}
		return ctx.Err()
	}
}

// drain takes no new sessions, and returns those that there are.
func (s *Server) drain() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	conns := make([]*Conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// enter counts a handshake as running; false if there must be none any more.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.running.Add(1)
	return true
}

// What refuses sessions when the server takes none, and a POST when others take too
// much.
var (
	shuttingDown = Refusal{Status: http.StatusServiceUnavailable, Message: "Server shutting down", RetryAfter: time.Second}
	full         = Refusal{Status: http.StatusServiceUnavailable, Message: "Too many sessions", RetryAfter: 10 * time.Second}
	crowded      = Refusal{Status: http.StatusServiceUnavailable, Message: "Too many large messages at once", RetryAfter: time.Second}
)

// admit counts a session that is about to begin, or answers that it must not.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	var refusal *Refusal
	if s.options.Refuse != nil {
		refusal = s.options.Refuse(r)
	}
	if refusal == nil {
		refusal = s.take()
	}
	if refusal != nil {
		s.refuse(w, r, refusal)
		return false
	}
	return true
}

func (s *Server) take() *Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return &shuttingDown
	case s.admitted >= s.options.MaxSessions:
		return &full
	}
	s.admitted++
	s.running.Add(1)
	return nil
}

// release takes back that a session is about to begin.
func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted--
	s.running.Done()
}

// newConn makes a session, which is admitted. Its handler is not called before begin
// has made it.
func (s *Server) newConn() *Conn {
	c := &Conn{server: s, id: s.options.NewID(), admitted: true}
	c.timer.Init(c.tick)
	c.lastRead.Store(time.Now().UnixNano())
	c.deliver.Lock()
	return c
}

// begin lets a session begin, whose transport stands.
func (s *Server) begin(c *Conn, r *http.Request) {
	transport := c.Transport()
	s.opened.of(transport).Add(1)
	s.sessions.of(transport).Add(1)
	defer func() {
		if c.handler == nil { // open has panicked
			c.handler = nobody{}
			c.deliver.Unlock()
			c.Abort()
		}
	}()
	c.handler = s.open(c, r)
	c.deliver.Unlock()
	if s.publish(c) {
		c.close(ServerShutdown, closeRestart, string(ServerShutdown))
	}
}

// nobody handles a session that has not begun.
type nobody struct{}

func (nobody) Message(Kind, []byte) <-chan struct{} { return nil }
func (nobody) Closed(Reason, error)                 {}

// publish lets requests find a session. It says whether the server is shutting down.
func (s *Server) publish(c *Conn) (draining bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateOpen {
		c.schedule(s.options.PingInterval)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state != stateEnded {
		s.conns[c.id] = c
	}
	return s.draining
}

// find returns the session with an id, or nil.
func (s *Server) find(id string) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[id]
}

// count counts a session that has ended; under its mu.
func (s *Server) count(c *Conn, reason Reason) {
	s.sessions.of(c.transport()).Add(-1)
	s.closed[reason].Add(1)
}

// forget lets no request find a session any more; under its mu.
func (s *Server) forget(c *Conn) {
	if !c.admitted {
		return
	}
	c.admitted = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted--
	if s.conns[c.id] == c {
		delete(s.conns, c.id)
	}
}

// openPacket is what a session begins with (section "Handshake").
func (s *Server) openPacket(id string, transport Transport) []byte {
	upgrades := []Transport{}
	if transport == Polling && s.upgrades() {
		upgrades = append(upgrades, WebSocket)
	}
	packet, err := json.Marshal(struct {
		SID          string      `json:"sid"`
		Upgrades     []Transport `json:"upgrades"`
		PingInterval int64       `json:"pingInterval"`
		PingTimeout  int64       `json:"pingTimeout"`
		MaxPayload   int         `json:"maxPayload"`
	}{id, upgrades, s.options.PingInterval.Milliseconds(), s.options.PingTimeout.Milliseconds(), s.options.MaxPayload})
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return append([]byte{byte(packetOpen)}, packet...)
}

// upgrades says whether sessions that poll may go over to WebSocket.
func (s *Server) upgrades() bool {
	return !s.options.NoUpgrades && slices.Contains(s.options.Transports, WebSocket)
}

// randomID is 20 random bytes.
func randomID() string {
	var id [20]byte
	_, _ = rand.Read(id[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Stats counts, since the server was made unless it says otherwise.
type Stats struct {
	// Sessions are those at this moment.
	Sessions map[Transport]int64
	// Upgrading are the polling sessions that have a WebSocket to upgrade to at this
	// moment.
	Upgrading int64
	// Queued is how many bytes wait for clients at this moment.
	Queued int64
	// Opened are the sessions that began, by their first transport.
	Opened map[Transport]int64
	// Upgraded are those that went from polling to WebSocket.
	Upgraded int64
	// Closed are the sessions that ended.
	Closed map[Reason]int64
	// Refused are the requests that were answered with an error.
	Refused map[Code]int64
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	stats := Stats{
		Sessions:  s.sessions.load(),
		Upgrading: s.upgrading.Load(),
		Queued:    s.group.Queued() + s.polled.Load(),
		Opened:    s.opened.load(),
		Upgraded:  s.upgraded.Load(),
		Closed:    map[Reason]int64{},
		Refused:   map[Code]int64{},
	}
	for reason, n := range s.closed {
		stats.Closed[reason] = n.Load()
	}
	for code := range s.refused {
		stats.Refused[Code(code)] = s.refused[code].Load()
	}
	return stats
}
