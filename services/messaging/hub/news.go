package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// What goes over the bus to one user's subject is JSON, which the release
// before reads, too: unknown fields are nothing to it. It is written by hand,
// around a payload that was encoded once, and read by hand where it begins as
// one that holds a single item or signal does; encoding/json reads the rest.

// news is what one message to one user holds: items, a head, or a signal.
type news struct {
	Items []busItem `json:"items,omitempty"`
	// Head says up to which offset items exist; readers find them in the store.
	Head int64 `json:"head,omitempty"`
	// Typing is the payload of a typing signal.
	Typing json.RawMessage `json:"typing,omitempty"`
	// Presence is the payload of a presence signal.
	Presence json.RawMessage `json:"presence,omitempty"`
}

type busItem struct {
	Offset  int64           `json:"offset"`
	Kind    messaging.Kind  `json:"kind"`
	Payload json.RawMessage `json:"payload"`
}

// One item is oneHead, the offset, oneKind, the kind, onePayload, the payload,
// oneEnd. Its "n" says that there is one, so that all up to the end is its
// payload.
const (
	oneHead    = `{"n":1,"items":[{"offset":`
	oneKind    = `,"kind":"`
	onePayload = `","payload":`
	oneEnd     = `}]}`
)

// appendItem encodes a message with one item.
func appendItem(out []byte, item messaging.Item) []byte {
	out = append(out, oneHead...)
	out = strconv.AppendInt(out, item.Offset, 10)
	out = append(out, oneKind...)
	out = append(out, item.Kind...)
	out = append(out, onePayload...)
	out = append(out, item.Payload...)
	return append(out, oneEnd...)
}

// encodeHead encodes a message with a head.
func encodeHead(head int64) []byte {
	out := []byte(`{"head":`)
	out = strconv.AppendInt(out, head, 10)
	return append(out, '}')
}

// encodeSignal encodes a message with a signal: an object whose only field is
// named like the kind.
func encodeSignal(signal messaging.Signal) []byte {
	out := []byte(`{"`)
	out = append(out, signal.Kind...)
	out = append(out, `":`...)
	out = append(out, signal.Payload...)
	return append(out, '}')
}

// received is what a message told.
type received struct {
	items  []messaging.Item
	head   int64
	signal messaging.Signal // its Kind is empty if there is none
}

// decodeNews reads a message to a user.
func decodeNews(user uuid.UUID, data []byte) (received, error) {
	if item, ok := decodeOne(user, data); ok {
		return received{items: []messaging.Item{item}}, nil
	}
	var n news
	if err := json.Unmarshal(data, &n); err != nil {
		return received{}, fmt.Errorf("decode news of the bus: %w", err)
	}
	out := received{head: n.Head}
	for _, i := range n.Items {
		if !isObject(i.Payload) {
			return received{}, fmt.Errorf("decode news of the bus: item %d has no object for a payload", i.Offset)
		}
		out.items = append(out.items, messaging.Item{UserID: user, Offset: i.Offset, Kind: i.Kind, Payload: i.Payload})
	}
	switch {
	case isObject(n.Typing):
		out.signal = messaging.Signal{Kind: messaging.KindTyping, Payload: n.Typing}
	case isObject(n.Presence):
		out.signal = messaging.Signal{Kind: messaging.KindPresence, Payload: n.Presence}
	}
	return out, nil
}

// decodeOne reads what appendItem wrote.
func decodeOne(user uuid.UUID, data []byte) (item messaging.Item, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(oneHead))
	if !ok {
		return item, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte(oneEnd))
	if !ok {
		return item, false
	}
	digits, rest, ok := bytes.Cut(rest, []byte(oneKind))
	if !ok {
		return item, false
	}
	kind, payload, ok := bytes.Cut(rest, []byte(onePayload))
	if !ok || !isObject(payload) {
		return item, false
	}
	offset, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return item, false
	}
	return messaging.Item{UserID: user, Offset: offset, Kind: kindOf(kind), Payload: payload}, true
}

func isObject(payload []byte) bool {
	return len(payload) >= 2 && payload[0] == '{' && payload[len(payload)-1] == '}'
}

// kindOf returns the kind without copying a known one's text.
func kindOf(text []byte) messaging.Kind {
	for _, kind := range kinds {
		if string(text) == string(kind) {
			return kind
		}
	}
	return messaging.Kind(text)
}

// userOf returns the user whose subject it is: the last token.
func userOf(subject string) (uuid.UUID, error) {
	return uuid.Parse(subject[strings.LastIndexByte(subject, '.')+1:])
}
