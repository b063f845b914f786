package socketio

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
)

// Value is one argument of an event or an acknowledgement: JSON, in which
// placeholders may stand for attachments. It is valid as long as the [Args] that
// it is of.
type Value struct {
	json        []byte
	attachments [][]byte // the packet's; nil if it has none, and then nothing is a placeholder
}

// JSON is the value as it came. Where binary data stood there is a placeholder,
// {"_placeholder":true,"num":0}.
func (v Value) JSON() json.RawMessage { return v.json }

// Binary is the value's bytes, if it is binary itself. What is within an object
// or an array is for Decode.
func (v Value) Binary() (data []byte, ok bool) {
	if v.attachments == nil || v.json[0] != '{' {
		return nil, false
	}
	// An object that holds a placeholder is longer than it.
	_ = walk(v.json, func(start, end, num int) error {
		if start == 0 && end == len(v.json) {
			data, ok = v.attachments[num], true
		}
		return nil
	}) // the decoder has checked the placeholders
	return data, ok
}

// Decode stores the value in what into points to, as json.Unmarshal does. Binary
// data goes into a []byte, at any depth; into an any goes its base64.
func (v Value) Decode(into any) error {
	if bytes, ok := into.(*[]byte); ok {
		if data, ok := v.Binary(); ok {
			*bytes = append([]byte(nil), data...)
			return nil
		}
	}
	return json.Unmarshal(v.resolved(), into) //nolint:wrapcheck // the caller knows which argument it is
}

// resolved is the JSON with base64 in the placeholders' places, which is how
// encoding/json reads bytes.
func (v Value) resolved() []byte {
	if v.attachments == nil {
		return v.json
	}
	var b []byte
	rest := 0
	_ = walk(v.json, func(start, end, num int) error {
		b = append(append(b, v.json[rest:start]...), '"')
		b = append(base64.StdEncoding.AppendEncode(b, v.attachments[num]), '"')
		rest = end
		return nil
	}) // the decoder has checked the placeholders
	return append(b, v.json[rest:]...)
}

// Args are the arguments of an event or an acknowledgement, as they came. They
// are valid until the function returns that was given them; see Clone. Given to
// an Emit or a Send, they stand for the values in them.
type Args struct {
	list        []byte // JSON values with commas between them
	attachments [][]byte
}

// All goes over the values. An offset (see [Offset]) is one of them.
func (a Args) All() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		for i := 0; ; {
			start, end, next, ok := nextItem(a.list, i)
			if !ok || !yield(Value{json: a.list[start:end], attachments: a.attachments}) {
				return
			}
			i = next
		}
	}
}

// Len is how many values there are.
func (a Args) Len() int {
	n := 0
	for range a.All() {
		n++
	}
	return n
}

// At is the value with an index from 0; null if there are not so many, as in the
// peers' language.
func (a Args) At(index int) Value {
	for v := range a.All() {
		if index == 0 {
			return v
		}
		index--
	}
	return Value{json: []byte("null")}
}

// Decode decodes the first values; see [Value.Decode]. It is an error if there
// are fewer, and none if there are more.
func (a Args) Decode(into ...any) error {
	n := 0
	for v := range a.All() {
		if n == len(into) {
			return nil
		}
		if err := v.Decode(into[n]); err != nil {
			return fmt.Errorf("argument %d: %w", n, err)
		}
		n++
	}
	if n < len(into) {
		return fmt.Errorf("there are %d arguments, and %d are wanted", n, len(into))
	}
	return nil
}

// Attachments is how many attachments there are in the values.
func (a Args) Attachments() int { return len(a.attachments) }

// Clone is a copy that stays valid.
func (a Args) Clone() Args {
	c := Args{list: bytes.Clone(a.list)}
	if a.attachments != nil {
		c.attachments = make([][]byte, len(a.attachments))
		for i, data := range a.attachments {
			c.attachments[i] = bytes.Clone(data)
		}
	}
	return c
}
