package door

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging/presence"
)

// The operations of a client.
const (
	OpAuth     = "auth"
	OpSend     = "send"
	OpRead     = "read"
	OpTyping   = "typing"
	OpPresence = "presence"
	OpHistory  = "history"
)

// field is one that an op may have.
type field int

const (
	fieldOp field = iota
	fieldID
	fieldToken
	fieldCursor
	fieldConversation
	fieldClientID
	fieldBody
	fieldSeq
	fieldBefore
	fieldLimit
	fieldStatus
	fieldCount
)

var fieldNames = [fieldCount]string{
	fieldOp: "op", fieldID: "id", fieldToken: "token", fieldCursor: "cursor", fieldConversation: "conversation_id",
	fieldClientID: "client_id", fieldBody: "body", fieldSeq: "seq", fieldBefore: "before", fieldLimit: "limit",
	fieldStatus: "status",
}

// fields names what each op must and may have, beside op and id.
var fields = map[string]struct{ required, optional []field }{
	OpAuth:     {required: []field{fieldID, fieldToken}, optional: []field{fieldCursor}},
	OpSend:     {required: []field{fieldID, fieldConversation, fieldClientID, fieldBody}},
	OpRead:     {required: []field{fieldConversation, fieldSeq}},
	OpTyping:   {required: []field{fieldConversation}},
	OpPresence: {required: []field{fieldStatus}},
	OpHistory:  {required: []field{fieldID, fieldConversation}, optional: []field{fieldBefore, fieldLimit}},
}

const (
	// maxID is the greatest id that every JSON parser holds exactly (RFC 8259,
	// section 6).
	maxID = 1<<53 - 1
	// defaultHistory and maxHistory are HTTP's, too.
	defaultHistory = 50
	maxHistory     = 100
)

// Command is one that was decoded. Fields that its op does not have are zero.
type Command struct {
	// ID is 0 where no reply is wanted.
	ID uint64
	Op string

	Token  string
	Cursor *string

	Conversation uuid.UUID
	ClientID     uuid.UUID
	// Body is part of what was decoded: whoever keeps it copies it.
	Body   json.RawMessage
	Seq    int64
	Before int64
	Limit  int
	Status presence.Status
}

// ErrMalformed ends a connection: what follows can't be trusted to be in step.
var ErrMalformed = errors.New("not a JSON object")

var (
	errUnknownOp    = fault.New(fault.Invalid, "unknown_op", "There is no such op.").At("/op")
	errNoOp         = fault.New(fault.Invalid, "unknown_op", "Say what to do in op.").At("/op")
	errUnknownField = fault.New(fault.Invalid, "unknown_field", "The object has a field that this op does not have.")
	errID           = fault.New(fault.Invalid, "invalid", "id must be an integer from 1 to 9007199254740991.").At("/id")
	errToken        = fault.New(fault.Invalid, "invalid", "token must be a string.").At("/token")
	errCursor       = fault.New(fault.Invalid, "invalid", "cursor must be a string.").At("/cursor")
	errSeq          = fault.New(fault.Invalid, "invalid", "seq must be an integer.").At("/seq")
	errStatus       = fault.New(fault.Invalid, "invalid", "status must be online or away.").At("/status")
	errBefore       = fault.New(fault.Invalid, "invalid", "before must be an integer of at least 0.").At("/before")
	errLimit        = fault.New(fault.Invalid, "invalid", "limit must be an integer from 1 to 100.").At("/limit")
)

// values are an object's members by field, as they stand in the text.
type values struct {
	of      [fieldCount][]byte
	twice   int  // a bit for each field that is there more than once
	unknown bool // there are others, too
}

// Decode reads one object strictly, with its op and its id in it. A fault concerns
// the one command, whose ID is set if it could be read; ErrMalformed concerns the
// connection.
func Decode(object []byte) (Command, error) {
	v, err := valuesOf(object)
	if err != nil {
		return Command{}, err
	}
	var c Command
	if err := v.once(fieldID); err != nil {
		return Command{}, err
	}
	if raw := v.of[fieldID]; raw != nil {
		id, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil || id == 0 || id > maxID {
			return Command{}, errID
		}
		c.ID = id
	}
	if err := v.once(fieldOp); err != nil {
		return c, err
	}
	if err := decodeString(v.of[fieldOp], &c.Op); err != nil || c.Op == "" {
		c.Op = ""
		return c, errNoOp
	}
	err = c.fillAll(v, 1<<fieldOp|1<<fieldID)
	return c, err
}

// DecodeFields reads an op's fields strictly, where the protocol says by itself
// which op it is and what it answers.
func DecodeFields(op string, object []byte) (Command, error) {
	c := Command{Op: op}
	v, err := valuesOf(object)
	if err != nil {
		return c, err
	}
	err = c.fillAll(v, 0)
	return c, err
}

func valuesOf(object []byte) (v *values, err error) {
	object = bytes.TrimLeft(object, " \t\r\n")
	if len(object) == 0 || object[0] != '{' || !json.Valid(object) {
		return nil, ErrMalformed
	}
	v = &values{}
	for name, value := range members(object) {
		v.set(name, value)
	}
	return v, nil
}

// fillAll decodes the fields of a command's op. The protocol's own are known
// already, a bit for each.
func (c *Command) fillAll(v *values, own int) error {
	allowed, ok := fields[c.Op]
	if !ok {
		return errUnknownOp
	}
	known := own
	for _, f := range allowed.required {
		if f == fieldID && own == 0 {
			continue
		}
		known |= 1 << f
		if v.of[f] == nil {
			name := fieldNames[f]
			return fault.New(fault.Invalid, "missing_field", "This op needs the field "+name+".").At("/" + name)
		}
	}
	for _, f := range allowed.optional {
		known |= 1 << f
	}
	for f := range fieldCount {
		v.unknown = v.unknown || v.of[f] != nil && known&(1<<f) == 0
	}
	if v.unknown {
		return errUnknownField
	}
	for f := range fieldCount {
		if v.of[f] == nil {
			continue
		}
		if err := v.once(f); err != nil {
			return err
		}
		if err := c.fill(f, v.of[f]); err != nil {
			return err
		}
	}
	if c.Op == OpHistory && v.of[fieldLimit] == nil {
		c.Limit = defaultHistory
	}
	return nil
}

// set notes a member.
func (v *values) set(name, value []byte) {
	for f, known := range fieldNames {
		if string(name) == known {
			if v.of[f] != nil {
				v.twice |= 1 << f
			}
			v.of[f] = value
			return
		}
	}
	v.unknown = true
}

// once refuses a field that is there more than once: which of them counts,
// readers of JSON don't agree (RFC 8259, section 4).
func (v *values) once(f field) error {
	if v.twice&(1<<f) == 0 {
		return nil
	}
	name := fieldNames[f]
	return fault.New(fault.Invalid, "duplicate_field", "The object has the field "+name+" more than once. Send it once.").At("/" + name)
}

// fill decodes a field's value.
func (c *Command) fill(f field, value []byte) error {
	switch f {
	case fieldToken:
		if decodeString(value, &c.Token) != nil {
			return errToken
		}
	case fieldCursor:
		c.Cursor = new(string)
		if decodeString(value, c.Cursor) != nil {
			return errCursor
		}
	case fieldConversation:
		return decodeUUID(f, value, &c.Conversation)
	case fieldClientID:
		return decodeUUID(f, value, &c.ClientID)
	case fieldBody:
		c.Body = value
	case fieldSeq:
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return errSeq
		}
		c.Seq = n
	case fieldBefore:
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 {
			return errBefore
		}
		c.Before = n
	case fieldLimit:
		n, err := strconv.Atoi(string(value))
		if err != nil || n < 1 || n > maxHistory {
			return errLimit
		}
		c.Limit = n
	case fieldStatus:
		var text string
		if decodeString(value, &text) != nil {
			return errStatus
		}
		var ok bool
		if c.Status, ok = presence.ParseAnnounced(text); !ok {
			return errStatus
		}
	default: // op and id, which are decoded first
	}
	return nil
}

var errNotString = errors.New("not a string")

func decodeString(raw []byte, to *string) error {
	if len(raw) == 0 || raw[0] != '"' { // null would pass otherwise
		return errNotString
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		*to = string(raw[1 : len(raw)-1])
		return nil
	}
	return json.Unmarshal(raw, to)
}

// decodeUUID takes the one usual form: uuid.Parse alone takes others, too.
func decodeUUID(f field, raw []byte, to *uuid.UUID) error {
	var err error
	if len(raw) == len(`""`)+len("00000000-0000-0000-0000-000000000000") && raw[0] == '"' {
		if *to, err = uuid.ParseBytes(raw[1 : len(raw)-1]); err == nil {
			return nil
		}
	}
	name := fieldNames[f]
	return fault.New(fault.Invalid, "invalid", name+" must be a UUID.").At("/" + name)
}

// members are the names and the values of a valid JSON object, as they stand in
// the text. Names are without their quotes. Nothing is decoded or allocated,
// unless a name has escapes.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		rest := skipSpace(object[1:])
		for rest[0] != '}' {
			name := value(rest)
			rest = skipSpace(skipSpace(rest[len(name):])[1:]) // the colon
			v := value(rest)
			rest = skipSpace(rest[len(v):])
			if rest[0] == ',' {
				rest = skipSpace(rest[1:])
			}
			if !yield(plain(name), v) {
				return
			}
		}
	}
}

// plain is a name's text.
func plain(name []byte) []byte {
	if bytes.IndexByte(name, '\\') >= 0 {
		var text string
		if json.Unmarshal(name, &text) == nil {
			return []byte(text)
		}
	}
	return name[1 : len(name)-1]
}

func skipSpace(b []byte) []byte {
	for b[0] == ' ' || b[0] == '\t' || b[0] == '\r' || b[0] == '\n' {
		b = b[1:]
	}
	return b
}

// value is the JSON value at the start of a valid text that goes on after it.
func value(b []byte) []byte {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			// A number, true, false or null: until something else follows.
			for i < len(b) && !bytes.ContainsRune([]byte(",}] \t\r\n"), rune(b[i])) {
				i++
			}
			return b[:i]
		}
		if depth == 0 {
			return b[:i+1]
		}
	}
}

// Lines are a frame's objects; ok is false if it is not UTF-8.
func Lines(frame []byte) (out iter.Seq[[]byte], ok bool) {
	return func(yield func([]byte) bool) {
		for line := range bytes.SplitSeq(frame, []byte{'\n'}) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !yield(line) {
				return
			}
		}
	}, utf8.Valid(frame)
}

// Ops are the operations of a client that is let in.
func Ops() []string {
	return []string{OpSend, OpRead, OpTyping, OpPresence, OpHistory}
}

// Fields are the names of the fields that an op must and may have.
func Fields(op string) (required, optional []string) {
	for _, f := range fields[op].required {
		required = append(required, fieldNames[f])
	}
	for _, f := range fields[op].optional {
		optional = append(optional, fieldNames[f])
	}
	return required, optional
}
