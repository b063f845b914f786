package wsapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// The operations of a client.
const (
	opAuth   = "auth"
	opSend   = "send"
	opRead   = "read"
	opTyping = "typing"
)

// maxID is the greatest id that every JSON parser holds exactly (RFC 8259,
// section 6).
const maxID = 1<<53 - 1

// command is one that was decoded. Fields that its op does not have are zero.
type command struct {
	id uint64 // 0: no reply is wanted
	op string

	token  string
	cursor *string

	conversation uuid.UUID
	clientID     uuid.UUID
	body         json.RawMessage
	seq          int64
}

// errMalformed ends a connection: what follows can't be trusted to be in step.
var errMalformed = errors.New("not a JSON object")

var (
	errUnknownOp = fault.New(fault.Invalid, "unknown_op", "There is no such op.").At("/op")
	errNoOp      = fault.New(fault.Invalid, "unknown_op", "Say what to do in op.").At("/op")
	errID        = fault.New(fault.Invalid, "invalid", "id must be an integer from 1 to 9007199254740991.").At("/id")
	errToken     = fault.New(fault.Invalid, "invalid", "token must be a string.").At("/token")
	errCursor    = fault.New(fault.Invalid, "invalid", "cursor must be a string.").At("/cursor")
	errSeq       = fault.New(fault.Invalid, "invalid", "seq must be an integer.").At("/seq")
)

// fields names what each op may and must have, beside op and id.
var fields = map[string]struct{ required, optional []string }{
	opAuth:   {required: []string{"id", "token"}, optional: []string{"cursor"}},
	opSend:   {required: []string{"id", "conversation_id", "client_id", "body"}},
	opRead:   {required: []string{"conversation_id", "seq"}},
	opTyping: {required: []string{"conversation_id"}},
}

// decode reads one object strictly. A fault concerns the one command, whose id
// is set if it could be read; errMalformed concerns the connection.
func decode(line []byte) (command, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil || raw == nil {
		return command{}, errMalformed
	}
	var c command
	if id, ok := raw["id"]; ok {
		n, err := strconv.ParseUint(string(id), 10, 64)
		if err != nil || n == 0 || n > maxID {
			return command{}, errID
		}
		c.id = n
	}
	if err := json.Unmarshal(raw["op"], &c.op); err != nil || c.op == "" {
		return c, errNoOp
	}
	allowed, ok := fields[c.op]
	if !ok {
		return c, errUnknownOp
	}
	for _, name := range allowed.required {
		if _, ok := raw[name]; !ok {
			return c, fault.New(fault.Invalid, "missing_field", "This op needs the field "+name+".").At("/" + name)
		}
	}
	for name := range raw {
		if name != "op" && name != "id" && !slices.Contains(allowed.required, name) && !slices.Contains(allowed.optional, name) {
			return c, fault.New(fault.Invalid, "unknown_field", "The object has a field that this op does not have.")
		}
	}
	return c, c.fill(raw)
}

func (c *command) fill(raw map[string]json.RawMessage) error {
	for name, value := range raw {
		switch name {
		case "token":
			if decodeString(value, &c.token) != nil {
				return errToken
			}
		case "cursor":
			c.cursor = new(string)
			if decodeString(value, c.cursor) != nil {
				return errCursor
			}
		case "conversation_id":
			if err := decodeUUID(value, &c.conversation); err != nil {
				return notUUID(name)
			}
		case "client_id":
			if err := decodeUUID(value, &c.clientID); err != nil {
				return notUUID(name)
			}
		case "seq":
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				return errSeq
			}
			c.seq = n
		case "body":
			c.body = value
		}
	}
	return nil
}

func notUUID(name string) error {
	return fault.New(fault.Invalid, "invalid", name+" must be a UUID.").At("/" + name)
}

var errNotString = errors.New("not a string")

func decodeString(raw json.RawMessage, to *string) error {
	if len(raw) == 0 || raw[0] != '"' { // null would pass otherwise
		return errNotString
	}
	return json.Unmarshal(raw, to)
}

// decodeUUID takes the one usual form: uuid.Parse alone takes others, too.
func decodeUUID(raw json.RawMessage, to *uuid.UUID) error {
	var text string
	if err := decodeString(raw, &text); err != nil {
		return err
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return err
	}
	if len(text) != len(uuid.Nil.String()) {
		return errors.New("not the usual form of a UUID")
	}
	*to = id
	return nil
}

// lines returns a frame's objects; ok is false if it is not UTF-8.
func lines(frame []byte) (out [][]byte, ok bool) {
	if !utf8.Valid(frame) {
		return nil, false
	}
	for line := range bytes.SplitSeq(frame, []byte{'\n'}) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, line)
		}
	}
	return out, true
}

// What the server sends. Every encoder ends its object with a newline.

type hello struct {
	Op         string `json:"op"`
	PingMS     int64  `json:"ping_ms"`
	MaxPayload int64  `json:"max_payload"`
	ResumeTTL  int64  `json:"resume_ttl_s"`
}

type reply struct {
	Re    uint64     `json:"re,omitempty"`
	OK    any        `json:"ok,omitempty"`
	Error *wireError `json:"error,omitempty"`
}

type wireError struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Pointer   string `json:"pointer,omitempty"`
	Temporary bool   `json:"temporary"`
	RetryMS   int64  `json:"retry_ms,omitempty"`
}

type authenticated struct {
	Session uuid.UUID `json:"session"`
	User    uuid.UUID `json:"user"`
	// Cursor and Recovered are absent when a live socket renews its token.
	Cursor    string `json:"cursor,omitempty"`
	Recovered *bool  `json:"recovered,omitempty"`
}

type sent struct {
	ID        uuid.UUID `json:"id"`
	Seq       int64     `json:"seq"`
	Duplicate bool      `json:"duplicate"`
}

type done struct{}

type reconnect struct {
	Op         string `json:"op"`
	AfterMS    int64  `json:"after_ms"`
	DeadlineMS int64  `json:"deadline_ms"`
}

func errorOf(f *fault.Error) *wireError {
	return &wireError{
		Code: f.Code, Message: f.Message, Pointer: f.Pointer,
		Temporary: f.Kind == fault.Unavailable || f.Kind == fault.TooMany,
		RetryMS:   (f.RetryAfter + time.Millisecond - 1).Milliseconds(),
	}
}

func encode(object any) ([]byte, error) {
	line, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode a frame: %w", err)
	}
	return append(line, '\n'), nil
}

// encodeEvent puts op, and the cursor if there is one, before a payload's own
// fields.
func encodeEvent(op, cursor string, payload json.RawMessage) []byte {
	line := make([]byte, 0, len(payload)+len(op)+len(cursor)+32)
	line = append(line, `{"op":"`...)
	line = append(line, op...)
	if cursor != "" {
		line = append(line, `","cursor":"`...)
		line = append(line, cursor...)
	}
	line = append(line, '"')
	if rest := bytes.TrimSpace(payload[1:]); len(rest) > 0 && rest[0] != '}' {
		line = append(line, ',')
	}
	line = append(line, payload[1:]...)
	return append(line, '\n')
}
