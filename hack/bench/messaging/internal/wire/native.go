package wire

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/marketplane/marketplane/api/contract"
)

// Native is the protocol marketplane.v1.
type Native struct{}

// authID is the id of auth; sends have greater ones.
const authID = 1

// FirstID is the least id of a send.
const FirstID = authID + 1

// Path implements Protocol.
func (Native) Path() string { return contract.PathWebSocket }

// Subprotocol implements Protocol.
func (Native) Subprotocol() string { return "marketplane.v1" }

// Read implements Protocol.
func (Native) Read(frame []byte, s *Session, tell func(Event)) error {
	for len(frame) > 0 {
		line, rest, _ := bytes.Cut(frame, []byte{'\n'})
		frame = rest
		if len(line) == 0 {
			continue
		}
		e, err := readObject(line, s)
		if err != nil {
			return err
		}
		tell(e)
	}
	return nil
}

var (
	replyPrefix   = []byte(`{"re":`)
	okPrefix      = []byte(`,"ok":`)
	eventPrefix   = []byte(`{"op":"`)
	recoveredTrue = []byte(`"recovered":true`)
)

func readObject(line []byte, s *Session) (Event, error) {
	if rest, ok := bytes.CutPrefix(line, replyPrefix); ok {
		return readReply(rest, s), nil
	}
	rest, ok := bytes.CutPrefix(line, eventPrefix)
	if !ok {
		return Event{}, fmt.Errorf("neither a reply nor an event: %.200s", line)
	}
	op, rest, _ := bytes.Cut(rest, []byte{'"'})
	switch string(op) {
	case "hello":
		return Event{Kind: Greeted}, nil
	case "message":
		s.place(field(rest, `"cursor":"`))
		at, err := readSentAt(rest)
		return Event{Kind: Message, SentAt: at}, err
	case "typing", "presence":
		return Event{Kind: Signal}, nil
	default:
		s.place(field(rest, `"cursor":"`))
		return Event{Kind: Other}, nil
	}
}

func readReply(rest []byte, s *Session) Event {
	id := uint32(digits(&rest)) //nolint:gosec // G115: it is one of ours
	switch {
	case !bytes.HasPrefix(rest, okPrefix):
		return Event{Kind: Refused, ID: id, Text: string(field(rest, `"code":"`))}
	case id == authID:
		s.place(field(rest, `"cursor":"`))
		return Event{Kind: Authenticated, Recovered: bytes.Contains(rest, recoveredTrue)}
	default:
		return Event{Kind: Acked, ID: id}
	}
}

// place notes where the client is.
func (s *Session) place(cursor []byte) {
	if s.Keep && len(cursor) > 0 {
		s.Place = append(s.Place[:0], cursor...)
	}
}

// AppendOpen implements Protocol.
func (Native) AppendOpen(dst []byte, token string, s *Session) []byte {
	dst = append(dst, `{"id":1,"op":"auth","token":"`...)
	dst = append(dst, token...)
	if len(s.Place) > 0 {
		dst = append(dst, `","cursor":"`...)
		dst = append(dst, s.Place...)
	}
	return append(dst, `"}`...)
}

// AppendSend implements Protocol.
func (Native) AppendSend(dst []byte, id uint32, conversation, client string, body []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, uint64(id), 10)
	dst = append(dst, `,"op":"send","conversation_id":"`...)
	dst = append(dst, conversation...)
	dst = append(dst, `","client_id":"`...)
	dst = append(dst, client...)
	dst = append(dst, `","body":`...)
	dst = append(dst, body...)
	return append(dst, '}')
}

// AppendTyping implements Protocol.
func (Native) AppendTyping(dst []byte, conversation string) []byte {
	dst = append(dst, `{"op":"typing","conversation_id":"`...)
	dst = append(dst, conversation...)
	return append(dst, `"}`...)
}

// AppendPong implements Protocol. The protocol's pings are WebSocket's.
func (Native) AppendPong(dst []byte) []byte { return dst }
