package wsapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
)

// What the server sends. Every object ends with a newline. What is sent once a
// connection is encoded by reflection; what is sent for every message is
// appended, around a payload that is encoded once for all receivers.

type hello struct {
	Op         string `json:"op"`
	PingMS     int64  `json:"ping_ms"`
	MaxPayload int64  `json:"max_payload"`
	ResumeTTL  int64  `json:"resume_ttl_s"`
}

type reply struct {
	Re    uint64        `json:"re,omitempty"`
	OK    any           `json:"ok,omitempty"`
	Error *door.Problem `json:"error,omitempty"`
}

type authenticated struct {
	Session uuid.UUID `json:"session"`
	User    uuid.UUID `json:"user"`
	// Cursor and Recovered are absent when a live socket renews its token.
	Cursor    string `json:"cursor,omitempty"`
	Recovered *bool  `json:"recovered,omitempty"`
}

type reconnect struct {
	Op         string `json:"op"`
	AfterMS    int64  `json:"after_ms"`
	DeadlineMS int64  `json:"deadline_ms"`
}

func encode(object any) ([]byte, error) {
	line, err := messaging.EncodeJSON(object)
	if err != nil {
		return nil, fmt.Errorf("encode a frame: %w", err)
	}
	return append(line, '\n'), nil
}

// appendSent appends the reply to a send.
func appendSent(b []byte, re uint64, sent messaging.Sent) []byte {
	b = append(b, `{"re":`...)
	b = strconv.AppendUint(b, re, 10)
	b = append(b, `,"ok":{"id":"`...)
	b = messaging.AppendUUID(b, sent.ID)
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, sent.Seq, 10)
	b = append(b, `,"duplicate":`...)
	b = strconv.AppendBool(b, sent.Duplicate)
	return append(b, "}}\n"...)
}

// eventHead begins an event that is in no stream. The payload's own fields
// follow, without their opening brace, and a newline.
func eventHead(b []byte, kind messaging.Kind, payload json.RawMessage) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, kind...)
	return endHead(b, payload)
}

// itemHead is eventHead for an item of a stream, which has a cursor.
func itemHead(b []byte, item messaging.Item) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, item.Kind...)
	b = append(b, `","cursor":"`...)
	b = messaging.AppendCursor(b, item.UserID, item.Offset)
	return endHead(b, item.Payload)
}

func endHead(b []byte, payload json.RawMessage) []byte {
	b = append(b, '"')
	if rest := bytes.TrimLeft(payload[1:], " \t\r\n"); len(rest) > 0 && rest[0] != '}' {
		b = append(b, ',')
	}
	return b
}
