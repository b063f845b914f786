package engineio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/marketplane/marketplane/services/internal/budget"
	"github.com/marketplane/marketplane/services/internal/wsconn"
)

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
	came := &body{Reader: r.Body, conn: c, hold: s.reading.Hold(wsconn.HeldFreely)}
	defer came.hold.Release()
	switch err := readBody(r, came, payload); {
	case errors.Is(err, errTooMuch):
		c.endPost(p, TransportError, err)
		s.refuse(w, r, &crowded)
		return
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
func readBody(r *http.Request, came *body, payload *bytes.Buffer) error {
	limit := came.conn.maxPayload()
	// The stock client reckons with a little less than base64 takes, when it decides
	// what fits.
	most := int64(limit + limit/256)
	if r.ContentLength > most {
		return errTooLarge
	}
	n, err := payload.ReadFrom(io.LimitReader(came, most+1))
	switch {
	case err != nil:
		return err //nolint:wrapcheck // for ourselves
	case n > most, n > int64(limit) && !holdsBase64(payload.Bytes()):
		return errTooLarge
	}
	return nil
}

// holdsBase64 says whether there is a binary message in a payload.
func holdsBase64(payload []byte) bool {
	return payload[0] == binaryPrefix || bytes.Contains(payload, []byte{separator, binaryPrefix})
}

// body notes that something came, and counts it for Options.MaxReading.
type body struct {
	io.Reader
	conn *Conn
	came int // bytes
	hold budget.Hold
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.conn.lastRead.Store(time.Now().UnixNano())
	}
	if b.came += n; !b.hold.Grow(b.came) {
		return 0, errTooMuch
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
	err := errPanic
	defer func() {
		if errors.Is(err, errPanic) {
			c.endPost(p, TransportError, err)
		}
	}()
	err = c.handlePayload(r, p, payload)
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
