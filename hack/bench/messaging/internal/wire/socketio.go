package wire

import (
	"bytes"
	"fmt"
	"strconv"
)

// SocketIO is Socket.IO (protocol version 5) in Engine.IO (version 4) over
// WebSocket, with text packets on the main namespace.
type SocketIO struct{}

// Path implements Protocol.
func (SocketIO) Path() string { return "/socket.io/?EIO=4&transport=websocket" }

// Subprotocol implements Protocol.
func (SocketIO) Subprotocol() string { return "" }

// Read implements Protocol. A frame is one packet.
func (SocketIO) Read(frame []byte, s *Session, tell func(Event)) error {
	if len(frame) == 0 {
		return fmt.Errorf("an empty packet")
	}
	switch frame[0] {
	case '0':
		tell(Event{Kind: Greeted})
	case '2':
		tell(Event{Kind: Pinged})
	case '3':
		if string(frame) != "3probe" {
			return fmt.Errorf("a pong that answers nothing: %.200s", frame)
		}
		tell(Event{Kind: Probed})
	case '4':
		e, err := readPacket(frame[1:], s)
		if err != nil {
			return err
		}
		tell(e)
	default:
		return fmt.Errorf("an unexpected Engine.IO packet: %.200s", frame)
	}
	return nil
}

var (
	messageEvent  = []byte(`["message",`)
	typingEvent   = []byte(`["typing",`)
	presenceEvent = []byte(`["presence",`)
	refusedAck    = []byte(`[{"ok":false`)
)

func readPacket(packet []byte, s *Session) (Event, error) {
	if len(packet) == 0 {
		return Event{}, fmt.Errorf("an empty Socket.IO packet")
	}
	rest := packet[1:]
	switch packet[0] {
	case '0':
		e := Event{Kind: Authenticated}
		if pid := field(rest, `"pid":"`); s.Keep && len(pid) > 0 {
			e.Recovered = bytes.Equal(pid, s.ID) // as the client of socket.io sees it
			s.ID = append(s.ID[:0], pid...)
		}
		return e, nil
	case '2':
		if bytes.HasPrefix(rest, typingEvent) || bytes.HasPrefix(rest, presenceEvent) {
			return Event{Kind: Signal}, nil
		}
		s.place(trailingString(rest))
		if !bytes.HasPrefix(rest, messageEvent) {
			return Event{Kind: Other}, nil
		}
		at, err := readSentAt(rest)
		return Event{Kind: Message, SentAt: at}, err
	case '3':
		id := uint32(digits(&rest)) //nolint:gosec // G115: it is one of ours
		if bytes.HasPrefix(rest, refusedAck) {
			return Event{Kind: Refused, ID: id, Text: string(rest)}, nil
		}
		return Event{Kind: Acked, ID: id}, nil
	case '4':
		return Event{Kind: Refused, Text: string(rest)}, nil
	default:
		return Event{}, fmt.Errorf("an unexpected Socket.IO packet: %.200s", packet)
	}
}

// trailingString returns the last argument of an event if it is a string: the
// offset, where connections can be recovered.
func trailingString(event []byte) []byte {
	rest, ok := bytes.CutSuffix(event, []byte(`"]`))
	if !ok {
		return nil
	}
	return rest[bytes.LastIndexByte(rest, '"')+1:]
}

// AppendOpen implements Protocol.
func (SocketIO) AppendOpen(dst []byte, token string, s *Session) []byte {
	dst = append(dst, `40{"token":"`...)
	dst = append(dst, token...)
	if len(s.ID) > 0 {
		dst = append(dst, `","pid":"`...)
		dst = append(dst, s.ID...)
		dst = append(dst, `","offset":"`...)
		dst = append(dst, s.Place...)
	}
	return append(dst, `"}`...)
}

// AppendSend implements Protocol.
func (SocketIO) AppendSend(dst []byte, id uint32, conversation, client string, body []byte) []byte {
	dst = append(dst, '4', '2')
	dst = strconv.AppendUint(dst, uint64(id), 10)
	dst = append(dst, `["send",{"conversation_id":"`...)
	dst = append(dst, conversation...)
	dst = append(dst, `","client_id":"`...)
	dst = append(dst, client...)
	dst = append(dst, `","body":`...)
	dst = append(dst, body...)
	return append(dst, `}]`...)
}

// AppendTyping implements Protocol.
func (SocketIO) AppendTyping(dst []byte, conversation string) []byte {
	dst = append(dst, `42["typing",{"conversation_id":"`...)
	dst = append(dst, conversation...)
	return append(dst, `"}]`...)
}

// AppendPong implements Protocol.
func (SocketIO) AppendPong(dst []byte) []byte { return append(dst, '3') }

// PollPath is requested for a session that is upgraded later (Engine.IO, section
// "Upgrade").
func (SocketIO) PollPath() string { return "/socket.io/?EIO=4&transport=polling" }

// SessionID is the id in the answer to the first poll.
func (SocketIO) SessionID(body []byte) ([]byte, error) {
	sid := field(body, `"sid":"`)
	if len(body) == 0 || body[0] != '0' || len(sid) == 0 {
		return nil, fmt.Errorf("no session: %.200s", body)
	}
	return sid, nil
}

// UpgradePath is requested for the WebSocket of a session.
func (s SocketIO) UpgradePath(sid []byte) string { return s.Path() + "&sid=" + string(sid) }

// AppendProbe appends the first frame of the WebSocket of a session. It is answered
// by Probed.
func (SocketIO) AppendProbe(dst []byte) []byte { return append(dst, "2probe"...) }

// AppendUpgrade appends the frame with which the session goes over to the WebSocket.
func (SocketIO) AppendUpgrade(dst []byte) []byte { return append(dst, '5') }
