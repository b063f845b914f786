package socketio

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// What walks here walks over JSON that json.Valid has seen, so that it needs no
// checks of its own; and it may recurse, as json.Valid bounds the depth.

// skipSpace is where the next token begins.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString is the end of the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue is the end of the value that begins at i.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for {
			switch b[i] {
			case '"':
				i = skipString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if i++; depth == 0 {
				return i
			}
		}
	default: // a number, true, false or null
		for ; i < len(b); i++ {
			switch b[i] {
			case ' ', '\t', '\n', '\r', ',', ']', '}':
				return i
			}
		}
		return i
	}
}

// nextItem is the bounds of the item of a list that begins at or after i, and
// where the next one does. It is false at the list's end.
func nextItem(list []byte, i int) (start, end, next int, ok bool) {
	if start = skipSpace(list, i); start == len(list) {
		return 0, 0, 0, false
	}
	end = skipValue(list, start)
	if next = skipSpace(list, end); next < len(list) {
		next++ // the comma
	}
	return start, end, next, true
}

// isPlaceholderKey and isNumKey compare keys as they are meant: JSON may write any
// letter as an escape.
func isPlaceholderKey(quoted []byte) bool { return isKey(quoted, "_placeholder") }
func isNumKey(quoted []byte) bool         { return isKey(quoted, "num") }

func isKey(quoted []byte, key string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == key
	}
	var s string
	return json.Unmarshal(quoted, &s) == nil && s == key
}

var errPlaceholder = errors.New("a placeholder is malformed")

// walker finds the placeholders in JSON.
type walker struct {
	b     []byte
	found func(start, end, num int) error
}

// walk calls found for every placeholder in a value or a list of values with
// commas between them.
func walk(b []byte, found func(start, end, num int) error) error {
	w := walker{b: b, found: found}
	_, err := w.list(0)
	return err
}

// list walks over values up to the closing bracket, or the end.
func (w *walker) list(i int) (end int, err error) {
	for i = skipSpace(w.b, i); i < len(w.b) && w.b[i] != ']'; {
		if i, err = w.value(i); err != nil {
			return 0, err
		}
		if i = skipSpace(w.b, i); i < len(w.b) && w.b[i] == ',' {
			i = skipSpace(w.b, i+1)
		}
	}
	return i + 1, nil
}

func (w *walker) value(i int) (end int, err error) {
	switch w.b[i] {
	case '[':
		return w.list(i + 1)
	case '{':
		return w.object(i)
	default:
		return skipValue(w.b, i), nil
	}
}

// object walks over an object. It is a placeholder if it says so; then it has the
// attachment's number beside that and nothing else.
func (w *walker) object(start int) (end int, err error) {
	members, marked := 0, false
	var num []byte
	i := skipSpace(w.b, start+1)
	for w.b[i] != '}' {
		key := w.b[i:skipString(w.b, i)]
		i = skipSpace(w.b, skipSpace(w.b, i+len(key))+1)
		valueStart := i
		if i, err = w.value(i); err != nil {
			return 0, err
		}
		switch value := w.b[valueStart:i]; {
		case isPlaceholderKey(key):
			marked = marked || string(value) == "true"
		case isNumKey(key):
			num = value
		}
		members++
		if i = skipSpace(w.b, i); w.b[i] == ',' {
			i = skipSpace(w.b, i+1)
		}
	}
	if end = i + 1; !marked {
		return end, nil
	}
	n, err := strconv.ParseUint(string(num), 10, 31)
	if err != nil || members != 2 || len(num) > 1 && num[0] == '0' {
		return 0, errPlaceholder
	}
	return end, w.found(start, end, int(n))
}
