package socketio

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	// ErrReserved refuses events with names that tell of the socket itself: connect,
	// connect_error, disconnect, disconnecting, newListener, removeListener.
	ErrReserved = errors.New("the name of the event is reserved")
	// ErrTooManyAttachments refuses what the peers' decoders do not take.
	ErrTooManyAttachments = errors.New("too many attachments")
	// ErrPlaceholder refuses JSON with {"_placeholder":true} beside attachments, for one
	// of which the receivers would take it. Without attachments it is JSON like any.
	ErrPlaceholder = errors.New("JSON that looks like a placeholder cannot be sent with attachments")
)

// Offset is the place of an event in what a client can recover (see
// [Namespace.Recover]). It is the last argument of the event, where the stock
// client looks for it, and programs see it there; an event that asks for an
// acknowledgement cannot have one. The client takes any string that is an event's
// last argument for an offset: events without one must not end in a string.
type Offset string

// NewValue makes an argument with binary data within it: JSON, with
// {"_placeholder":true,"num":i} in the place of attachment i. Each attachment has
// one place. A []byte that is an argument itself needs no Value.
func NewValue(text json.RawMessage, attachments ...[]byte) (Value, error) {
	if !validText(text) {
		return Value{}, errNotJSON
	}
	if len(attachments) == 0 {
		return Value{json: text}, nil
	}
	if !matchPlaceholders(text, len(attachments)) {
		return Value{}, errors.New("the value's placeholders are not those of its attachments")
	}
	return Value{json: text, attachments: attachments}, nil
}

// payload is what is sent: a list of values, which has no brackets yet.
type payload struct {
	list        []byte
	attachments [][]byte
}

// encodeArgs encodes arguments: an Offset last, Values and Args as they are,
// []byte as attachments, a json.RawMessage as it is if it is valid, and everything
// else as encoding/json does.
func encodeArgs(list []byte, args []any, maxAttachments int) (payload, error) {
	p := payload{list: list}
	for i, arg := range args {
		var err error
		switch arg := arg.(type) {
		case Offset:
			if i != len(args)-1 {
				return payload{}, fmt.Errorf("argument %d: an offset comes last", i)
			}
			err = p.addJSON(string(arg))
		case []byte:
			p.comma()
			p.attach(arg)
		case Value:
			p.addValue(arg)
		case Args:
			for v := range arg.All() {
				p.addValue(v)
			}
		case json.RawMessage:
			err = p.addRaw(arg)
		default:
			err = p.addJSON(arg)
		}
		if err != nil {
			return payload{}, fmt.Errorf("argument %d: %w", i, err)
		}
	}
	if len(p.attachments) > maxAttachments {
		return payload{}, fmt.Errorf("%w: %d, and %d may be", ErrTooManyAttachments, len(p.attachments), maxAttachments)
	}
	if len(p.attachments) > 0 && !matchPlaceholders(p.list, len(p.attachments)) {
		return payload{}, ErrPlaceholder
	}
	return p, nil
}

// encodeEvent encodes an event's name and arguments.
func encodeEvent(name string, args []any, maxAttachments int) (payload, error) {
	if err := checkName(name); err != nil {
		return payload{}, err
	}
	list, err := json.Marshal(name)
	if err != nil {
		return payload{}, err //nolint:wrapcheck // a string cannot fail
	}
	return encodeArgs(list, args, maxAttachments)
}

func (p *payload) comma() {
	if len(p.list) > 0 {
		p.list = append(p.list, ',')
	}
}

func (p *payload) addJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // encodeArgs says which argument it is
	}
	p.comma()
	p.list = append(p.list, text...)
	return nil
}

var errNotJSON = errors.New("it is not JSON in UTF-8")

func validText(text []byte) bool { return json.Valid(text) && utf8.Valid(text) }

func (p *payload) addRaw(text []byte) error {
	if text == nil {
		text = []byte("null")
	}
	if !validText(text) {
		return errNotJSON
	}
	p.comma()
	p.list = append(p.list, text...)
	return nil
}

// attach puts a placeholder in the list ("Packet encoding").
func (p *payload) attach(data []byte) {
	p.list = fmt.Appendf(p.list, `{"_placeholder":true,"num":%d}`, len(p.attachments))
	p.attachments = append(p.attachments, data)
}

// addValue gives a value's placeholders the numbers that they have here.
func (p *payload) addValue(v Value) {
	p.comma()
	rest := 0
	if v.attachments != nil {
		_ = walk(v.json, func(start, end, num int) error {
			p.list = append(p.list, v.json[rest:start]...)
			p.attach(v.attachments[num])
			rest = end
			return nil
		}) // whoever made the value has checked the placeholders
	}
	if v.json == nil {
		p.list = append(p.list, "null"...)
	}
	p.list = append(p.list, v.json[rest:]...)
}

// header is what stands before the list in a packet of this payload.
func (p *payload) header(kind packetType, namespace string, id int64) []byte {
	if len(p.attachments) > 0 {
		switch kind {
		case typeEvent:
			kind = typeBinaryEvent
		case typeAck:
			kind = typeBinaryAck
		default:
		}
	}
	return append(packetHeader(kind, len(p.attachments), namespace, id), '[')
}

// appendString appends a string as JSON.
func appendString(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // strings can be encoded
	return append(b, text...)
}
