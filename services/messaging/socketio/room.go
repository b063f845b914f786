package socketio

import (
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// room is a set of sockets. It exists while it has members.
type room struct {
	name    string
	members []*Socket // the namespace's mu guards them
}

// ErrTooManyRooms refuses what would put a socket into more than Options.MaxRooms.
var ErrTooManyRooms = errors.New("the socket is in too many rooms")

// Join puts the socket into rooms: into all of them, or, with ErrTooManyRooms, into
// none. After OnDisconnect it is ErrDisconnected.
func (s *Socket) Join(rooms ...string) error {
	n := s.namespace
	n.mu.Lock()
	defer n.mu.Unlock()
	if !s.present {
		return ErrDisconnected
	}
	if s.rooms == nil {
		s.rooms = make(map[*room]int)
	}
	var joined []*room
	for _, name := range rooms {
		r := n.rooms[name]
		if s.isMember(r) {
			continue
		}
		if len(s.rooms) >= n.server.options.MaxRooms {
			for _, r := range joined {
				n.leave(s, r)
			}
			return ErrTooManyRooms
		}
		if r == nil {
			r = &room{name: name}
			n.rooms[name] = r
		}
		s.rooms[r] = len(r.members)
		r.members = append(r.members, s)
		joined = append(joined, r)
	}
	return nil
}

// Leave takes the socket out of rooms.
func (s *Socket) Leave(rooms ...string) {
	n := s.namespace
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range rooms {
		if r := n.rooms[name]; s.isMember(r) {
			n.leave(s, r)
		}
	}
}

// Rooms are the names of the rooms that the socket is in, sorted.
func (s *Socket) Rooms() []string {
	s.namespace.mu.RLock()
	defer s.namespace.mu.RUnlock()
	names := make([]string, 0, len(s.rooms))
	for r := range s.rooms {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// isMember says whether the socket is in a room; under the namespace's mu.
func (s *Socket) isMember(r *room) bool {
	_, ok := s.rooms[r]
	return ok
}

// leave takes a socket out of a room that it is in; under mu. The room's last member
// takes its place.
func (n *Namespace) leave(s *Socket, r *room) {
	last := len(r.members) - 1
	index, moved := s.rooms[r], r.members[last]
	r.members[index], r.members[last] = moved, nil
	r.members = r.members[:last]
	moved.rooms[r] = index
	delete(s.rooms, r) // after that: it may have been the last itself
	if last == 0 {
		delete(n.rooms, r.name)
	}
}

// Broadcast sends events to many sockets. Its methods return changed copies.
type Broadcast struct {
	namespace *Namespace
	rooms     []string // all sockets if there are none
	except    []string
	sender    *Socket
	volatile  bool
	offset    func(s *Socket) Offset
}

// All is every socket of the namespace.
func (n *Namespace) All() Broadcast { return Broadcast{namespace: n} }

// To is every socket that is in at least one of the rooms. A socket's id is a room,
// too, with it alone.
func (n *Namespace) To(rooms ...string) Broadcast { return Broadcast{namespace: n, rooms: rooms} }

// All is every other socket of the namespace.
func (s *Socket) All() Broadcast { return Broadcast{namespace: s.namespace, sender: s} }

// To is every other socket that is in at least one of the rooms; see
// [Namespace.To].
func (s *Socket) To(rooms ...string) Broadcast {
	return Broadcast{namespace: s.namespace, rooms: rooms, sender: s}
}

// Except leaves out who is in one of the rooms.
func (b Broadcast) Except(rooms ...string) Broadcast {
	b.except = slices.Concat(b.except, rooms)
	return b
}

// Volatile leaves out those for whom much waits already.
func (b Broadcast) Volatile() Broadcast {
	b.volatile = true
	return b
}

// Offset ends the event with an [Offset] for each socket. What it returns is the
// socket's, and may be of any kind of stream; if it is empty there is none. It must
// not send, nor wait for somebody who does.
func (b Broadcast) Offset(of func(s *Socket) Offset) Broadcast {
	b.offset = of
	return b
}

// Emit sends an event, encoded once for all; see [Socket.Emit] for arguments and
// for errors, which are those of the encoding alone. The sockets of a room get what
// is emitted to it in one order, and all of them do: the connections for which too
// much waits are closed. All the sockets are a room of their own in that.
func (b Broadcast) Emit(name string, args ...any) error {
	p, err := encodeEvent(name, args, b.namespace.server.options.MaxAttachments)
	if err != nil {
		return err
	}
	b.send(p.header(typeEvent, b.namespace.name, noID), p.list, p.attachments)
	return nil
}

// EmitRaw sends an event that is encoded already; see [Socket.EmitRaw].
func (b Broadcast) EmitRaw(list ...[]byte) {
	b.send(b.namespace.eventHeader, slices.Concat(list...), nil)
}

func (b Broadcast) send(header, list []byte, attachments [][]byte) {
	defer b.inOrder()()
	receivers := receiversPool.Get().(*receivers) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer receivers.release()
	b.find(receivers)
	text := [][]byte{header, list, closingBracket}
	var all []engineio.Packet
	if len(attachments) > 0 {
		all = packets(text, attachments)
	}
	var tail []byte
	var sent int64
	for _, s := range receivers.list {
		if b.volatile && !s.conn.engine.HasRoom() {
			continue
		}
		if b.offset != nil {
			tail = appendTail(tail[:0], b.offset(s))
			text[2] = tail
		}
		var err error
		if all == nil {
			err = s.send(text)
		} else {
			err = s.sendAll(all)
		}
		switch {
		case err == nil:
			sent++
		case errors.Is(err, ErrOverflow) && !b.volatile:
			s.conn.engine.Abort()
		}
	}
	b.namespace.server.counters.eventsOut.Add(sent)
}

// Sockets are those that an event would go to.
func (b Broadcast) Sockets() []*Socket {
	var r receivers
	b.find(&r)
	return r.list
}

// receivers are who gets an event.
type receivers struct{ list []*Socket }

var receiversPool = sync.Pool{New: func() any { return new(receivers) }}

func (r *receivers) release() {
	clear(r.list)
	r.list = r.list[:0]
	receiversPool.Put(r)
}

// find finds the receivers.
func (b Broadcast) find(r *receivers) {
	n := b.namespace
	n.mu.RLock()
	defer n.mu.RUnlock()
	add := func(s *Socket) {
		if s != b.sender && !slices.ContainsFunc(b.except, s.in) {
			r.list = append(r.list, s)
		}
	}
	switch len(b.rooms) {
	case 0:
		for _, s := range n.sockets {
			add(s)
		}
	case 1:
		n.members(b.rooms[0], add)
	default:
		seen := make(map[*Socket]struct{})
		for _, name := range b.rooms {
			n.members(name, func(s *Socket) {
				if _, again := seen[s]; !again {
					seen[s] = struct{}{}
					add(s)
				}
			})
		}
	}
}

// members calls f for the sockets in a room; under mu.
func (n *Namespace) members(name string, f func(s *Socket)) {
	r := n.rooms[name]
	if r != nil {
		for _, s := range r.members {
			f(s)
		}
	}
	if s := n.sockets[name]; s != nil && !s.isMember(r) {
		f(s)
	}
}

// in says whether a room has the socket; under the namespace's mu.
func (s *Socket) in(room string) bool { return s.id == room || s.isMember(s.namespace.rooms[room]) }

// orders are locks, of which each room has one by its name: a room is made anew when
// its last member has left and another comes, while its order goes on.
type orders struct {
	seed  maphash.Seed
	locks [256]sync.Mutex // before the namespace's mu
}

func newOrders() *orders { return &orders{seed: maphash.MakeSeed()} }

// of is the index of a room's lock.
func (o *orders) of(room string) int {
	return int(maphash.String(o.seed, room) % uint64(len(o.locks)))
}

// inOrder has others wait who send to the same rooms, until what it returns is
// called.
func (b Broadcast) inOrder() (unlock func()) {
	n := b.namespace
	if len(b.rooms) == 0 {
		n.order.Lock()
		return n.order.Unlock
	}
	indices := make([]int, len(b.rooms))
	for i, name := range b.rooms {
		indices[i] = n.orders.of(name)
	}
	slices.Sort(indices) // all take them in one order
	indices = slices.Compact(indices)
	for _, i := range indices {
		n.orders.locks[i].Lock()
	}
	return func() {
		for _, i := range indices {
			n.orders.locks[i].Unlock()
		}
	}
}

// appendTail appends what stands after the arguments that all receivers share.
func appendTail(b []byte, offset Offset) []byte {
	if offset != "" {
		b = append(b, ',')
		b = appendString(b, string(offset))
	}
	return append(b, ']')
}
