package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// packetType is a packet's type (Socket.IO protocol v5, "Exchange protocol").
type packetType byte

const (
	typeConnect packetType = iota
	typeDisconnect
	typeEvent
	typeAck
	typeConnectError
	typeBinaryEvent
	typeBinaryAck
)

const (
	// mainNamespace is the one whose name is left out of packets.
	mainNamespace = "/"
	// maxNamespace is how long a namespace's name may be, in bytes.
	maxNamespace = 255
	// noID is the id of a packet that has none.
	noID = -1
	// maxID is the largest id: the peers' numbers are those of JavaScript.
	maxID = 1<<53 - 1
)

// packet is a packet without its attachments.
type packet struct {
	kind        packetType
	attachments int    // how many follow
	namespace   []byte // "/" is the main one
	id          int64  // noID if there is none
	data        []byte // JSON; nil if there is none

	name []byte // of an event
	args []byte // what stands between the brackets of data, without the name
}

// malformed says why a packet is refused. The connection is closed for it.
type malformed string

func (m malformed) Error() string { return "malformed packet: " + string(m) }

// decodePacket decodes a packet's text, of which the packet's parts remain parts. It
// is UTF-8: the engine sees to that. The placeholders are checked, too: each of the attachments stands at one place.
func decodePacket(text []byte, maxAttachments int) (packet, error) {
	p := packet{namespace: []byte(mainNamespace), id: noID}
	if len(text) == 0 || text[0] < '0' || text[0] > '6' {
		return p, malformed("its type is unknown")
	}
	p.kind = packetType(text[0] - '0')
	rest := text[1:]
	var err error
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		if p.attachments, rest, err = decodeAttachments(rest, maxAttachments); err != nil {
			return p, err
		}
	}
	if len(rest) > 0 && rest[0] == '/' {
		p.namespace, rest, _ = bytes.Cut(rest, []byte{','})
		if err := checkNamespace(p.namespace); err != nil {
			return p, err
		}
	}
	if p.id, rest, err = decodeID(rest); err != nil {
		return p, err
	}
	if len(rest) > 0 {
		p.data = rest
	}
	return p, p.check()
}

func decodeAttachments(text []byte, limit int) (n int, rest []byte, err error) {
	digits, rest, found := bytes.Cut(text, []byte{'-'})
	number, err := decodeNumber(digits)
	switch {
	case err != nil || !found || number == 0:
		return 0, nil, malformed("the number of attachments")
	case number > int64(limit):
		return 0, nil, malformed("too many attachments")
	}
	return int(number), rest, nil
}

func decodeID(text []byte) (id int64, rest []byte, err error) {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	if n == 0 {
		return noID, text, nil
	}
	if id, err = decodeNumber(text[:n]); err != nil {
		return noID, nil, malformed("the id")
	}
	return id, text[n:], nil
}

var errNumber = errors.New("not a number")

// decodeNumber takes the one way in which a number is written, only.
func decodeNumber(digits []byte) (int64, error) {
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' {
		return 0, errNumber
	}
	n, err := strconv.ParseUint(string(digits), 10, 53)
	if err != nil {
		return 0, errNumber
	}
	return int64(n), nil
}

// checkNamespace refuses what would not come back as it went.
func checkNamespace(name []byte) error {
	if len(name) == 0 || len(name) > maxNamespace || name[0] != '/' {
		return malformed("the namespace")
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f || c == ',' {
			return malformed("the namespace")
		}
	}
	return nil
}

// check is about what packets of each type have to hold and must not ("Exchange
// protocol").
func (p *packet) check() error {
	if p.data != nil && !json.Valid(p.data) {
		return malformed("its payload is not JSON")
	}
	var opens byte
	if p.data != nil {
		opens = p.data[0]
	}
	switch p.kind {
	case typeConnect:
		if p.data != nil && opens != '{' {
			return malformed("the payload of CONNECT is no object")
		}
	case typeDisconnect:
		if p.data != nil {
			return malformed("DISCONNECT has a payload")
		}
	case typeConnectError:
		if opens != '{' {
			return malformed("the payload of CONNECT_ERROR is no object")
		}
	case typeEvent, typeBinaryEvent:
		if opens != '[' {
			return malformed("the payload of an event is no array")
		}
		p.args = p.list()
		if err := p.takeName(); err != nil {
			return err
		}
	case typeAck, typeBinaryAck:
		if opens != '[' {
			return malformed("the payload of an acknowledgement is no array")
		}
		if p.id == noID {
			return malformed("an acknowledgement has no id")
		}
		p.args = p.list()
	}
	if p.id != noID && (p.kind == typeConnect || p.kind == typeDisconnect || p.kind == typeConnectError) {
		return malformed("only events and acknowledgements have an id")
	}
	if p.attachments > 0 && !matchPlaceholders(p.list(), p.attachments) {
		return malformed("its placeholders are not those of its attachments")
	}
	return nil
}

// matchPlaceholders says whether each of the attachments has one place in a list.
func matchPlaceholders(list []byte, attachments int) bool {
	seen := make([]bool, attachments)
	left := attachments
	err := walk(list, func(_, _, num int) error {
		if num >= len(seen) || seen[num] {
			return errPlaceholder
		}
		seen[num] = true
		left--
		return nil
	})
	return err == nil && left == 0
}

// list is what stands between the brackets of a payload that is an array.
func (p *packet) list() []byte {
	return p.data[1:bytes.LastIndexByte(p.data, ']')]
}

// takeName takes an event's name off the list of its arguments.
func (p *packet) takeName() error {
	start, end, next, ok := nextItem(p.args, 0)
	if !ok {
		return malformed("an event has no name")
	}
	name := p.args[start:end]
	switch {
	case name[0] == '"' && bytes.IndexByte(name, '\\') < 0:
		name = name[1 : len(name)-1]
	case name[0] == '"':
		var s string
		if err := json.Unmarshal(name, &s); err != nil {
			return malformed("the name of an event")
		}
		name = []byte(s)
	case name[0] != '-' && (name[0] < '0' || name[0] > '9'): // numbers are names, too
		return malformed("the name of an event is no string")
	}
	if reserved(string(name)) {
		return malformed("the name of an event is reserved")
	}
	p.name, p.args = name, p.args[next:]
	return nil
}

// reserved says whether no event may have a name: such events tell the program of
// things that happened to the socket.
func reserved(name string) bool {
	switch name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	default:
		return false
	}
}

// checkName refuses what is not the name of an event.
func checkName(name string) error {
	if reserved(name) {
		return fmt.Errorf("%w: %q", ErrReserved, name)
	}
	return nil
}

// packetHeader is what stands before the payload ("Packet encoding").
func packetHeader(kind packetType, attachments int, namespace string, id int64) []byte {
	b := append(make([]byte, 0, 32), '0'+byte(kind))
	if kind == typeBinaryEvent || kind == typeBinaryAck {
		b = append(strconv.AppendInt(b, int64(attachments), 10), '-')
	}
	if namespace != mainNamespace {
		b = append(append(b, namespace...), ',')
	}
	if id != noID {
		b = strconv.AppendInt(b, id, 10)
	}
	return b
}
