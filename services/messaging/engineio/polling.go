package engineio

import (
	"errors"
	"time"
)

var (
	errPollOverlap  = errors.New("the client polls twice at a time")
	errPostOverlap  = errors.New("the client posts twice at a time")
	errPollCanceled = errors.New("the client has given up a poll")
	errPostCanceled = errors.New("the client has given up a POST")
	errTooMuch      = errors.New("there are too many large messages at once")
	errTooLarge     = errors.New("the client sent more than the payload limit")
	errPanic        = errors.New("the handler has panicked")
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
