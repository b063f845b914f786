package socketio

import (
	"bytes"
	"container/list"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"
)

// Handshake is what a client brings to be let in.
type Handshake struct {
	// Namespace is the one that it wants to connect to.
	Namespace string
	// Auth is CONNECT's payload, an object; {} if there was none.
	Auth json.RawMessage
	// PID and Offset are what Auth says of an earlier socket ("" if it does not); see
	// [Namespace.Recover].
	PID, Offset string
	// SID is the id that the socket is going to have, unless it is recovered.
	SID string
	// Conn is the connection, and Facts what Options.Facts said of it.
	Conn  Conn
	Facts any
	// Data becomes the socket's.
	Data any

	abandoned []func()
}

// OnAbandon is for middleware and the Recover hook that have taken something for the
// socket: f gives it back. It is called if OnConnect is not going to be called for
// this handshake, because somebody refuses it, or fails, or the connection is gone;
// once all who are asked have returned, the last one's first. OnAbandon must be
// called before its caller returns.
func (h *Handshake) OnAbandon(f func()) { h.abandoned = append(h.abandoned, f) }

// Refusal is the error of middleware that keeps a client out. The client is told so:
// CONNECT_ERROR, after which a stock client does not come back by itself.
//
// All other errors mean that nobody could find out whether to let the client in,
// and so does Options.ConnectTimeout. The connection is closed for that, with all of
// its namespaces: a stock client comes back by itself in a moment, with what it has
// to be recovered. Options.Log is told the error, unless it is a [NotNow], the client
// nothing.
type Refusal struct { //nolint:errname // engineio calls it so, too, and so it reads
	// Message is the error's message at the client.
	Message string `json:"message"`
	// Data is the error's data at the client, as JSON; left out if it is nil.
	Data any `json:"data,omitempty"`
}

func (r *Refusal) Error() string { return r.Message }

// NotNow is the error of middleware that cannot let a client in for the moment, as
// everybody knows already. A stock client that is closed comes back within seconds,
// however often that happens; so the pace is the server's.
type NotNow struct { //nolint:errname // as Refusal
	// After is how long the connection is kept before it is closed. It is at most
	// Options.ConnectTimeout.
	After time.Duration
}

func (n *NotNow) Error() string { return "not now" }

// The messages of refusals. The first is the reference implementation's.
const (
	messageInvalidNamespace  = "Invalid namespace"
	messageTooManyNamespaces = "Too many namespaces"
)

// Recovery is what a namespace says of connection state recovery; see
// [Namespace.Recover].
type Recovery struct {
	// PID goes to the client, which brings it back when it reconnects. The socket is
	// recovered, here and at the client, if this is the one that it brought. If it is
	// empty the client brings nothing.
	PID string
	// SID, if it is not empty, is the id of the earlier socket, which this one takes
	// over.
	SID string
}

// newSID makes a socket's id: 120 random bits, in 20 characters.
func newSID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// connect begins to let the client into a namespace ("Connection to a namespace").
func (c *conn) connect(p packet) error {
	s, err := c.begin(p.namespace)
	if s == nil {
		return err
	}
	h := &Handshake{Namespace: s.namespace.name, Auth: json.RawMessage("{}"), SID: newSID(), Conn: c.engine, Facts: c.facts}
	if p.data != nil {
		h.Auth = bytes.Clone(p.data)
	}
	if s.namespace.asks() {
		h.PID, h.Offset = earlier(h.Auth)
		c.server.admitter.add(s, h)
	} else if s.admit(h, Recovery{}) {
		s.greet()
	}
	return nil
}

// begin makes the socket that a CONNECT may become; nil if it was answered already.
func (c *conn) begin(namespace []byte) (s *Socket, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.connectsTooOften() {
		c.engine.Close(closePolicy, "too many CONNECTs")
		return nil, nil
	}
	n := c.server.namespaces[string(namespace)]
	if n == nil {
		c.refuse(string(namespace), &Refusal{Message: messageInvalidNamespace})
		return nil, nil
	}
	if earlier := c.socket(namespace); earlier != nil {
		if earlier.state != left {
			return nil, malformed("CONNECT came twice")
		}
		c.forget(earlier)
	}
	if c.live() >= c.server.options.MaxNamespaces {
		c.refuse(n.name, &Refusal{Message: messageTooManyNamespaces})
		return nil, nil
	}
	s = &Socket{namespace: n, conn: c}
	c.sockets = append(c.sockets, s)
	c.limitIdleness()
	return s, nil
}

// connectsTooOften counts a CONNECT; under mu.
func (c *conn) connectsTooOften() bool {
	if now := time.Now(); now.Sub(c.minute) >= time.Minute {
		c.minute, c.connects = now, 0
	}
	c.connects++
	return c.connects > c.server.options.MaxConnects
}

// earlier is what a CONNECT says of an earlier socket. What is no string is not
// there.
func earlier(auth json.RawMessage) (pid, offset string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(auth, &fields) != nil {
		return "", ""
	}
	_ = json.Unmarshal(fields["pid"], &pid)
	_ = json.Unmarshal(fields["offset"], &offset)
	return pid, offset
}

// refuse answers a CONNECT with CONNECT_ERROR, and closes the connection if that was
// once too often; under mu.
func (c *conn) refuse(namespace string, refusal *Refusal) {
	data, err := json.Marshal(refusal)
	if err != nil {
		c.server.options.Log.Error("socketio: a refusal's data cannot be encoded", "namespace", namespace, "error", err)
		data, _ = json.Marshal(Refusal{Message: refusal.Message}) // strings can
	}
	c.server.counters.refused.Add(1)
	c.send(typeConnectError, namespace, data)
	if c.refused++; c.refused >= c.server.options.MaxRefusals {
		c.engine.Close(closePolicy, "too many CONNECTs were refused")
	}
}

// refuse ends what the client wanted, unless that has an end already.
func (s *Socket) refuse(refusal *Refusal) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state != connecting || c.closed {
		return
	}
	s.state = gone
	c.forget(s)
	c.limitIdleness()
	c.refuse(s.namespace.name, refusal)
}

// giveUp closes the connection of a client of which nobody could find out whether to
// let it in, unless what it wanted has an end already.
func (s *Socket) giveUp() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state != connecting || c.closed {
		return
	}
	s.state = gone
	c.forget(s)
	c.server.counters.undecided.Add(1)
	s.abandon()
	c.engine.Close(closeTryAgain, "try again later")
}

// answer is the payload of the server's CONNECT.
type answer struct {
	SID string `json:"sid"`
	PID string `json:"pid,omitempty"`
}

// admit lets a client in, unless what it wanted has an end already. If it is true,
// greet is to be called.
func (s *Socket) admit(h *Handshake, recovery Recovery) bool {
	s.id, s.Data = h.SID, h.Data
	if recovery.SID != "" {
		s.id = recovery.SID
	}
	s.recovered = recovery.PID != "" && recovery.PID == h.PID     // the stock client reckons so
	data, _ := json.Marshal(answer{SID: s.id, PID: recovery.PID}) // strings can be encoded
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.state != connecting || c.closed {
		return false
	}
	s.state, s.abandon = greeting, nil
	c.refused = 0
	c.engine.LimitPayload(0)
	c.send(typeConnect, s.namespace.name, data)
	return true
}

// greet makes a client known that was let in.
func (s *Socket) greet() {
	counters := &s.conn.server.counters
	counters.connected.Add(1)
	if s.recovered {
		counters.recovered.Add(1)
	}
	if before := s.namespace.add(s); before != nil && before.conn != s.conn {
		before.conn.engine.Abort() // the client has left it, and nobody noticed
	}
	s.namespace.onConnect(s)
	s.greeted()
}

// attempt is a CONNECT that middleware decides on.
type attempt struct {
	socket    *Socket
	handshake *Handshake
	ctx       context.Context //nolint:containedctx // the attempt is what it is of
	cancel    func()
	place     *list.Element // in the queue; nil once it is off it
}

// admitter runs middleware, a bounded number at once, so that those who come back
// all at the same time do not fall on what it asks all at the same time. OnConnect
// has no place there: it may have to wait for its own client, for whom no other is to
// wait.
type admitter struct {
	limit int

	mu       sync.Mutex
	queue    list.List
	deciding int
	workers  sync.WaitGroup
}

func (a *admitter) add(s *Socket, h *Handshake) {
	t := &attempt{socket: s, handshake: h}
	c := s.conn
	c.mu.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), c.server.options.ConnectTimeout)
	stop := context.AfterFunc(ctx, s.giveUp)
	t.ctx, t.cancel = ctx, func() {
		stop()
		cancel()
	}
	s.apart = true
	s.abandon = func() { a.abandon(t) }
	c.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	t.place = a.queue.PushBack(t)
	a.next()
}

// next begins with those for whom there is a place; under mu.
func (a *admitter) next() {
	for front := a.queue.Front(); front != nil && a.deciding < a.limit; front = a.queue.Front() {
		t := a.queue.Remove(front).(*attempt) //nolint:errcheck,forcetypeassert // nothing else is in it
		t.place = nil
		a.deciding++
		a.workers.Go(func() { a.run(t) })
	}
}

func (a *admitter) run(t *attempt) {
	admitted := t.decide()
	a.mu.Lock()
	a.deciding--
	a.next()
	a.mu.Unlock()
	if admitted {
		t.socket.greet()
	}
}

// abandon ends an attempt that is given up, or whose connection is gone.
func (a *admitter) abandon(t *attempt) {
	t.cancel()
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.place != nil {
		a.queue.Remove(t.place)
		t.place = nil
	}
}

// decide asks middleware, and does what it says.
func (t *attempt) decide() (admitted bool) {
	defer t.cancel()
	if t.ctx.Err() != nil { // it was given up while it waited
		return false
	}
	recovery, err := t.socket.namespace.decide(t.ctx, t.handshake)
	if err == nil && t.socket.admit(t.handshake, recovery) {
		return true
	}
	if err != nil {
		t.failed(err)
	}
	for _, f := range slices.Backward(t.handshake.abandoned) {
		f()
	}
	return false
}

// failed says to the client what an error means for it.
func (t *attempt) failed(err error) {
	s := t.socket
	var refusal *Refusal
	if errors.As(err, &refusal) {
		s.refuse(refusal)
		return
	}
	var notNow *NotNow
	if errors.As(err, &notNow) {
		time.AfterFunc(min(notNow.After, s.conn.server.options.ConnectTimeout), s.giveUp)
		return
	}
	if t.ctx.Err() == nil {
		s.conn.server.options.Log.Error("socketio: a middleware failed", "namespace", s.namespace.name, "error", err)
	}
	s.giveUp()
}

func (a *admitter) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.workers.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
