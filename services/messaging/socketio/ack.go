package socketio

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

var (
	// ErrAcknowledged refuses a second acknowledgement.
	ErrAcknowledged = errors.New("the event is acknowledged already")
	// ErrTooManyAcks refuses events while too many wait to be acknowledged.
	ErrTooManyAcks = errors.New("too many events wait to be acknowledged")
	// ErrTimeout is the result of an event that was not acknowledged in time.
	ErrTimeout = errors.New("the event was not acknowledged in time")
)

// Ack answers an event that asked for it ("Acknowledgement"), at any time, from
// any goroutine, once. A nil Ack is that of an event that did not ask: it takes
// answers, and does nothing.
type Ack struct {
	socket *Socket
	id     int64
	used   atomic.Bool
}

// Send answers; see [Socket.Emit] for arguments and errors. ErrAcknowledged comes
// to that. After ErrOverflow it can be tried again.
func (a *Ack) Send(args ...any) error {
	if a == nil {
		return nil
	}
	p, err := encodeArgs(nil, args, a.socket.conn.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	return a.once(func() error { return a.socket.sendPayload(typeAck, &p, a.id) })
}

// SendRaw answers with arguments that are encoded already; see [Socket.EmitRaw].
func (a *Ack) SendRaw(list ...[]byte) error {
	if a == nil {
		return nil
	}
	header := append(packetHeader(typeAck, 0, a.socket.namespace.name, a.id), '[')
	return a.once(func() error { return a.socket.send(slices.Concat([][]byte{header}, list, [][]byte{closingBracket})) })
}

// once sends, unless that has been done. After ErrOverflow it has not.
func (a *Ack) once(send func() error) error {
	if a.used.Swap(true) {
		return ErrAcknowledged
	}
	err := send()
	if errors.Is(err, ErrOverflow) {
		a.used.Store(false)
	}
	return err
}

// acks are the acknowledgements that a socket waits for; the conn's mu guards
// them.
type acks struct {
	next    int64
	waiting map[int64]*waiting
}

type waiting struct {
	done  func(args Args, err error)
	timer *time.Timer
}

// take is who waits for an id; nil if nobody does, any more.
func (a *acks) take(id int64) *waiting {
	w := a.waiting[id]
	if w != nil {
		delete(a.waiting, id)
		w.timer.Stop()
	}
	return w
}

func (a *acks) takeAll() []*waiting {
	all := make([]*waiting, 0, len(a.waiting))
	for id := range a.waiting {
		all = append(all, a.take(id))
	}
	return all
}

// EmitAck sends an event that asks for an acknowledgement. Unless it fails, done is
// called once: with the acknowledgement's arguments, or ErrTimeout, or
// ErrDisconnected, on any goroutine, which it must not block. ErrTooManyAcks is
// one of the errors; see [Socket.Emit] for the others, and for arguments; an Offset
// is none here.
func (s *Socket) EmitAck(timeout time.Duration, done func(args Args, err error), name string, args ...any) error {
	if n := len(args); n > 0 {
		if _, ok := args[n-1].(Offset); ok {
			return errors.New("an event that asks for an acknowledgement cannot have an offset")
		}
	}
	p, err := encodeEvent(name, args, s.conn.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	if err := s.sendAwaiting(timeout, done, &p); err != nil {
		return err
	}
	s.conn.server.counters.eventsOut.Add(1)
	return nil
}

func (s *Socket) sendAwaiting(timeout time.Duration, done func(args Args, err error), p *payload) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.open() {
		return ErrDisconnected
	}
	if len(s.acks.waiting) >= c.server.options.MaxAcks {
		return ErrTooManyAcks
	}
	id := s.acks.next
	text := [][]byte{p.header(typeEvent, s.namespace.name, id), p.list, closingBracket}
	var err error
	if len(p.attachments) == 0 {
		err = c.engine.Send(engineio.Text, text...)
	} else {
		err = c.engine.SendAll(packets(text, p.attachments)...)
	}
	if err != nil {
		return disconnected(err)
	}
	if s.acks.waiting == nil {
		s.acks.waiting = make(map[int64]*waiting)
	}
	s.acks.next++
	s.acks.waiting[id] = &waiting{done: done, timer: time.AfterFunc(timeout, func() { s.settle(id, Args{}, ErrTimeout) })}
	return nil
}

// acknowledged is called for each ACK. One for which nobody waits is late.
func (s *Socket) acknowledged(id int64, args Args) { s.settle(id, args, nil) }

func (s *Socket) settle(id int64, args Args, err error) {
	s.conn.mu.Lock()
	w := s.acks.take(id)
	s.conn.mu.Unlock()
	if w != nil {
		w.done(args, err)
	}
}
