package hub

import (
	"encoding/binary"
	"errors"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// What goes to many users at once is one message, on a subject that every
// process is subscribed to (docs/decisions/0007):
//
//	what it is    1 byte: manyItems or manySignal; readers pass over others
//	kind          1 byte of length, and text
//	payload       4 bytes of length, and a JSON object
//	receivers     up to the end: 16 bytes of user id; for items, 8 of offset
//
// Numbers are big-endian.

const (
	// manyFrom is from how many receivers on one message for all costs less than
	// one for each.
	manyFrom = 16
	// maxMany bounds the receivers of one message: together with the largest
	// payload they are far below the bus's limit.
	maxMany = 4096

	manyItems  byte = 1
	manySignal byte = 2

	manyHeader = 1 + 1 + 4
)

var errMany = errors.New("not a message to many")

// receiver is one of the users that a message is for.
type receiver struct {
	id     uuid.UUID
	offset int64 // 0 for a signal
	user   *user // nil unless it has connections here
}

// appendMany encodes a message to many.
func appendMany(out []byte, what byte, kind messaging.Kind, payload []byte, receivers []receiver) []byte {
	out = append(out, what, byte(len(kind))) //nolint:gosec // G115: kinds are short
	out = append(out, kind...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(payload))) //nolint:gosec // G115: payloads are far smaller
	out = append(out, payload...)
	for _, r := range receivers {
		out = append(out, r.id[:]...)
		if what == manyItems {
			out = binary.BigEndian.AppendUint64(out, uint64(r.offset)) //nolint:gosec // G115: offsets are never negative
		}
	}
	return out
}

// decodeMany reads a message to many; receivers is used again. An unknown what
// is no error: later releases may have more.
func decodeMany(data []byte, receivers []receiver) (what byte, kind messaging.Kind, payload []byte, _ []receiver, err error) {
	if len(data) < manyHeader {
		return 0, "", nil, nil, errMany
	}
	what = data[0]
	size := 16
	switch what {
	case manyItems:
		size += 8
	case manySignal:
	default:
		return what, "", nil, nil, nil
	}
	n, data := int(data[1]), data[2:]
	if len(data) < n+4 {
		return 0, "", nil, nil, errMany
	}
	kind, data = kindOf(data[:n]), data[n:]
	length, data := uint64(binary.BigEndian.Uint32(data)), data[4:]
	if uint64(len(data)) < length {
		return 0, "", nil, nil, errMany
	}
	payload, data = data[:length:length], data[length:]
	if !isObject(payload) || len(data)%size != 0 {
		return 0, "", nil, nil, errMany
	}
	receivers = receivers[:0]
	for ; len(data) > 0; data = data[size:] {
		r := receiver{id: uuid.UUID(data[:16])}
		if what == manyItems {
			r.offset = int64(binary.BigEndian.Uint64(data[16:])) //nolint:gosec // G115: checked on the next line
			if r.offset <= 0 {
				return 0, "", nil, nil, errMany
			}
		}
		receivers = append(receivers, r)
	}
	return what, kind, payload, receivers, nil
}

// find looks the receivers up, all under one lock, and returns how many are
// here.
func (h *Hub) find(receivers []receiver) (here int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for i := range receivers {
		if receivers[i].user = h.users[receivers[i].id]; receivers[i].user != nil {
			here++
		}
	}
	return here
}

// spread gives one item to those of its receivers that are here, each at its own
// offset, and calls behind with those who now have a gap.
func (h *Hub) spread(kind messaging.Kind, payload []byte, receivers []receiver, behind func(*user)) {
	if h.find(receivers) == 0 {
		return
	}
	var given tally
	one := make([]messaging.Item, 1)
	for _, r := range receivers {
		if r.user == nil {
			continue
		}
		one[0] = messaging.Item{UserID: r.id, Offset: r.offset, Kind: kind, Payload: payload}
		if r.user.accept(one, 0, &given) {
			behind(r.user)
		}
	}
	h.metrics.countLive(&given, kind, payload)
}

// spreadSignal gives a signal to those of its receivers that are here.
func (h *Hub) spreadSignal(signal messaging.Signal, receivers []receiver) {
	if h.find(receivers) == 0 {
		return
	}
	for _, r := range receivers {
		if r.user != nil {
			r.user.signal(signal)
		}
	}
}
