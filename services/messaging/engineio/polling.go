package engineio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

var (
	errPollOverlap  = errors.New("the client polls twice at a time")
	errPostOverlap  = errors.New("the client posts twice at a time")
	errPollCanceled = errors.New("the client has given up a poll")
	errPostCanceled = errors.New("the client has given up a POST")
	errTooLarge     = errors.New("the client sent more than the payload limit")
	errTooMany      = errors.New("the client sent too many packets at once")
)

const (
	// noopDelay is how long a poll waits for packets that began while an upgrade was
	// under way. A client that has not heard of the probe's answer polls again and
	// again; one that has said "5" should not poll, and is told so if that comes first.
	noopDelay = 50 * time.Millisecond
	// chunk is written at a time, so that the deadline is one for progress.
	chunk = 32 << 10
	// keptBuffer bounds the buffers that are reused.
	keptBuffer = 64 << 10
)

// polling is what a session needs until it is on WebSocket; under its mu.
type polling struct {
	queue   []byte // the payload of the next answer
	queued  int    // bytes that are counted
	writing int    // those of them that are not in the queue any more
	waiting *poll  // nil if no poll waits
	posting bool
	left    bool // the client has said so, and may have a poll on its way
	corked  bool // a POST is being handled, and will stir

	changed chan struct{} // closed when there may be news for Room; nil while nobody waits
	ended   chan struct{} // closed with the session

	code int // for the close frame, if a closing session is upgraded
	text string
}

// poll is a GET that waits.
type poll struct {
	wake    chan struct{}
	begun   time.Time
	late    bool   // an upgrade was under way when it began
	verdict []byte // the answer, once something else than the queue decides
	refused bool   // the answer is an error
}

// reserve counts what is going to wait, or refuses it.
func (p *polling) reserve(s *Server, size int) error {
	if p.queued > 0 && p.queued+size > s.options.MaxQueued {
		return ErrOverflow
	}
	p.count(s, size)
	return nil
}

// count counts what waits, or waits no more.
func (p *polling) count(s *Server, size int) {
	p.queued += size
	s.polled.Add(int64(size))
}

// add queues a message that is counted.
func (p *polling) add(kind Kind, parts [][]byte) {
	if kind == Text {
		p.queue = appendText(p.queue, parts)
	} else {
		p.queue = appendBinary(p.queue, parts)
	}
}

// addControl queues a packet of the protocol's own, past all bounds.
func (p *polling) addControl(s *Server, typ packetType) {
	p.count(s, len(".2"))
	p.queue = appendControl(p.queue, typ)
}

// take takes what waits; it stays counted until it is written, or dropped.
func (p *polling) take() (payload []byte, counted int) {
	payload, counted = p.queue, p.queued-p.writing
	p.queue, p.writing = nil, p.queued
	return payload, counted
}

// stir has a poll that waits look again.
func (p *polling) stir() {
	if p.waiting != nil && !p.corked {
		p.waiting.stir()
	}
}

func (g *poll) stir() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// dismiss answers a poll that waits.
func (p *polling) dismiss(typ packetType) {
	if p.waiting != nil {
		p.waiting.verdict = []byte{byte(typ)}
		p.waiting.stir()
		p.waiting = nil
	}
}

// await returns a channel that is closed when there may be more room.
func (p *polling) await() <-chan struct{} {
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

func (p *polling) notify() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// drop counts what waits no more.
func (p *polling) drop(s *Server) {
	_, counted := p.take()
	p.wrote(s, counted)
}

// wrote is told that what was taken is gone.
func (p *polling) wrote(s *Server, counted int) {
	p.writing -= counted
	p.count(s, -counted)
}

// end throws away what waits.
func (p *polling) end(s *Server) {
	p.dismiss(packetClose)
	p.drop(s)
	p.notify()
	close(p.ended)
}

// poll serves a GET (section "Receiving data").
func (s *Server) poll(w http.ResponseWriter, r *http.Request, c *Conn) {
	g := &poll{wake: make(chan struct{}, 1), begun: time.Now()}
	p, code := c.beginPoll(g)
	if p == nil {
		s.fail(w, r, code)
		return
	}
	// It may take longer than the HTTP server lets requests take, which it cannot know.
	// Where there are no deadlines, none are needed.
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	var timer *time.Timer
	var late <-chan time.Time
	for {
		answer, counted, wait := c.answer(p, g)
		if answer != nil && g.refused {
			s.fail(w, r, CodeBadRequest)
			return
		}
		if answer != nil {
			err := s.writePoll(w, r, control, answer)
			c.answered(p, counted, err)
			return
		}
		if wait > 0 && timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-g.wake:
		case <-late:
		case <-r.Context().Done():
			c.cancelPoll(g)
			return
		}
	}
}

// beginPoll lets a poll wait; nil if it must not, and why.
func (c *Conn) beginPoll(g *poll) (*polling, Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat()
	p := c.polling
	switch {
	case c.state == stateEnded && p != nil && p.left:
		c.server.forget(c)
		p.left, g.verdict = false, []byte{byte(packetNoop)}
		return p, 0
	case c.state == stateEnded:
		return nil, CodeUnknownSession
	case p == nil: // the other transport carries it
		return nil, CodeBadRequest
	case p.waiting != nil:
		c.end(TransportError, errPollOverlap)
		return nil, CodeBadRequest
	}
	g.late = c.probe != nil
	p.waiting = g
	return p, 0
}

// answer is a poll's, once there is one. Otherwise, there will be after wait, if that
// is positive.
func (c *Conn) answer(p *polling, g *poll) (payload []byte, counted int, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case g.verdict != nil: // p may be past
		return g.verdict, 0, 0
	case len(p.queue) > 0 && !p.corked:
	case c.state == stateClosing:
	case c.probe != nil && c.probe.answered:
		if early := noopDelay - time.Since(g.begun); g.late && early > 0 {
			return nil, 0, early
		}
		p.waiting = nil
		return []byte{byte(packetNoop)}, 0, 0
	default:
		return nil, 0, 0
	}
	p.waiting = nil
	if c.state == stateClosing {
		p.addControl(c.server, packetClose)
	}
	payload, counted = p.take()
	if c.state == stateClosing {
		c.end(c.reason, nil)
	}
	return payload, counted, 0
}

// answered is told how the writing of an answer went.
func (c *Conn) answered(p *polling, counted int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.wrote(c.server, counted)
	p.notify()
	// What is lost is lost on WebSocket, too.
	if err != nil && (counted > 0 || c.polling == p) {
		c.endWith(TransportError, fmt.Errorf("answer a poll: %w", err), closePolicy, string(TransportError))
	}
}

// cancelPoll ends the session whose client has given up a poll, unless that was
// over already.
func (c *Conn) cancelPoll(g *poll) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.verdict == nil {
		c.polling.waiting = nil
		c.end(TransportError, errPollCanceled)
	}
}

// writePoll writes an answer.
func (s *Server) writePoll(w http.ResponseWriter, r *http.Request, control *http.ResponseController, answer []byte) error {
	allow(w, r)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	h.Set("Cache-Control", "no-store")
	for len(answer) > 0 {
		_ = control.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)) // as above
		n, err := w.Write(answer[:min(len(answer), chunk)])
		if err != nil {
			return err //nolint:wrapcheck // for ourselves
		}
		answer = answer[n:]
	}
	if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err //nolint:wrapcheck // for ourselves
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func newBuffer() *bytes.Buffer {
	return buffers.Get().(*bytes.Buffer) //nolint:errcheck,forcetypeassert // the pool holds nothing else
}

func releaseBuffer(b *bytes.Buffer) {
	if b.Cap() <= keptBuffer {
		b.Reset()
		buffers.Put(b)
	}
}

// post serves a POST (section "Sending data").
func (s *Server) post(w http.ResponseWriter, r *http.Request, c *Conn) {
	p, code := c.beginPost()
	if p == nil {
		s.fail(w, r, code)
		return
	}
	payload := newBuffer()
	defer releaseBuffer(payload)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // as for a poll
	switch err := s.readBody(r, control, c, payload); {
	case errors.Is(err, errTooLarge):
		c.endPost(p, TransportError, err)
		s.failWith(w, r, http.StatusRequestEntityTooLarge, CodeBadRequest, "Payload too large")
		return
	case err != nil:
		c.endPost(p, TransportError, fmt.Errorf("%w: %w", errPostCanceled, err))
		s.fail(w, r, CodeBadRequest) // if anybody is there
		return
	}
	ok := c.deliverPayload(r, p, payload.Bytes())
	_ = control.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)) // as above
	if !ok {
		s.fail(w, r, CodeBadRequest)
		return
	}
	allow(w, r)
	w.Header().Set("Content-Type", "text/html") // or some browsers offer a download
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, "ok") // a client that hears nothing of it gives up by itself
}

// beginPost lets a POST begin; nil if it must not, and why.
func (c *Conn) beginPost() (*polling, Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat()
	p := c.polling
	switch {
	case c.state == stateEnded:
		return nil, CodeUnknownSession
	case p == nil: // the other transport carries it
		return nil, CodeBadRequest
	case p.posting:
		c.end(TransportError, errPostOverlap)
		return nil, CodeBadRequest
	}
	p.posting = true
	return p, 0
}

// endPost ends a POST, and the session if it was broken by that.
func (c *Conn) endPost(p *polling, reason Reason, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.posting, p.corked = false, false
	if err != nil {
		c.end(reason, err)
		return
	}
	p.stir()
	if c.probe != nil && c.probe.upgrade != nil {
		c.upgrade()
	}
}

// readBody reads a payload.
func (s *Server) readBody(r *http.Request, control *http.ResponseController, c *Conn, payload *bytes.Buffer) error {
	if r.ContentLength > int64(s.options.MaxPayload) {
		return errTooLarge
	}
	_ = control.SetReadDeadline(time.Now().Add(s.options.MessageTimeout)) // as for a poll
	n, err := payload.ReadFrom(io.LimitReader(&body{r.Body, c}, int64(s.options.MaxPayload)+1))
	_ = control.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return err //nolint:wrapcheck // for ourselves
	case n > int64(s.options.MaxPayload):
		return errTooLarge
	}
	return nil
}

// body notes that something came.
type body struct {
	io.Reader
	conn *Conn
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.conn.lastRead.Store(time.Now().UnixNano())
	}
	return n, err //nolint:wrapcheck // of the reader
}

// deliverPayload handles the packets of a POST. It is false if the session is
// broken.
func (c *Conn) deliverPayload(r *http.Request, p *polling, payload []byte) (ok bool) {
	c.deliver.Lock()
	defer c.deliver.Unlock()
	c.mu.Lock()
	p.corked = true
	c.mu.Unlock()
	err := c.handlePayload(r, p, payload)
	switch {
	case errors.Is(err, errLeft):
		c.leave(p)
		c.endPost(p, "", nil)
		return true
	case errors.Is(err, errPostCanceled):
		c.endPost(p, TransportError, err)
	default:
		c.endPost(p, ParseError, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != stateEnded
}

// errLeft is the client's packet "close".
var errLeft = errors.New("the client has left")

// leaveDelay is for how long a poll may be on its way that was sent before the client
// left.
const leaveDelay = time.Second

// leave ends the session as its client wishes. A poll ends with a noop, even if the
// POST has overtaken it.
func (c *Conn) leave(p *polling) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateEnded {
		return
	}
	if p.waiting == nil && c.state == stateOpen {
		p.left = true
	}
	p.dismiss(packetNoop)
	c.end(TransportClose, nil)
}

func (c *Conn) handlePayload(r *http.Request, p *polling, payload []byte) error {
	var text []byte
	for n, more := 1, true; more; n++ {
		if n > c.server.options.MaxPackets {
			return errTooMany
		}
		text, payload, more = cutPacket(payload)
		packet, err := decodePacket(text)
		if err != nil {
			return err
		}
		pause, err := c.received(packet)
		if err != nil {
			return err
		}
		if pause != nil {
			c.Uncork()
			select {
			case <-pause:
			case <-p.ended:
			case <-r.Context().Done():
				return errPostCanceled
			}
			c.mu.Lock()
			p.corked = true
			c.mu.Unlock()
		}
	}
	return nil
}

// received handles a packet of a session's client, whatever carried it; under
// deliver.
func (c *Conn) received(packet packet) (pause <-chan struct{}, err error) {
	switch packet.typ {
	case packetMessage:
		if packet.kind == Text {
			return c.handle(Text, packet.data), nil
		}
		return c.receivedBase64(packet.data)
	case packetPong:
		c.pong()
		return nil, nil
	case packetClose:
		return nil, errLeft
	case packetNoop:
		return nil, nil
	default: // the server's, or out of place
		return nil, fmt.Errorf("%w here: %q", errNoPacket, byte(packet.typ))
	}
}

// receivedBase64 handles a binary message that came as text.
func (c *Conn) receivedBase64(encoded []byte) (pause <-chan struct{}, err error) {
	buffer := newBuffer()
	defer releaseBuffer(buffer)
	buffer.Grow(base64Encoding.DecodedLen(len(encoded)))
	data, err := appendDecoded(buffer.AvailableBuffer(), encoded)
	if err != nil {
		return nil, err
	}
	return c.handle(Binary, data), nil
}
