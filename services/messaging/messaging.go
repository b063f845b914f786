// Package messaging is the domain of conversations: who may read and write
// them, what a message is, and the durable stream in which every user gets
// what is new. It knows no wire, no database and no bus; the adapters beside
// it do.
package messaging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Role is a member's part in a conversation.
type Role string

// The roles. A task's conversation has a client and a tasker, the others have
// support agents and users.
const (
	RoleClient  Role = "client"
	RoleTasker  Role = "tasker"
	RoleSupport Role = "support"
	RoleUser    Role = "user"
)

// Member is one of a conversation's members.
type Member struct {
	UserID uuid.UUID
	Role   Role
	// ReadSeq says that everything up to this seq has been read.
	ReadSeq int64
}

// ConversationKind is what a conversation is for.
type ConversationKind string

// The kinds of conversations.
const (
	// ConversationTask is about one task, between its client and one tasker.
	ConversationTask ConversationKind = "task"
	// ConversationSupport is between a user and the marketplace's support agents,
	// and whom these bring in.
	ConversationSupport ConversationKind = "support"
)

// Conversation is a place where its members, and they alone, write and read.
type Conversation struct {
	// ID is a UUIDv7: newer conversations have greater ones.
	ID   uuid.UUID
	Kind ConversationKind
	// TaskID is uuid.Nil unless the conversation is about a task.
	TaskID uuid.UUID
	// Title is the task's, when the conversation began, or the subject that its
	// user gave.
	Title   string
	Members []Member
	// LastSeq is the newest message's seq, 0 before the first.
	LastSeq int64
	// Unread is how many messages of others are beyond the read position of the
	// member who asks: of the newest MaxUnread messages, so at most as many.
	Unread int64
	// Blocked says that it has two members, one of whom blocks the other.
	Blocked   bool
	CreatedAt time.Time
}

// Message is one that was written.
type Message struct {
	ConversationID uuid.UUID
	// Seq counts a conversation's messages from 1 on, without a gap.
	Seq int64
	ID  uuid.UUID
	// ClientID is the idempotency key that the sender chose. The system's is the
	// id of the event that the message tells of.
	ClientID uuid.UUID
	// SenderID is uuid.Nil if the system wrote it.
	SenderID uuid.UUID
	// Body is a JSON object. But for its attachments only clients understand it.
	Body   json.RawMessage
	SentAt time.Time
}

// System says whether the message is the system's, and nobody's.
func (m Message) System() bool { return m.SenderID == uuid.Nil }

// Draft is a message to write.
type Draft struct {
	ConversationID uuid.UUID
	SenderID       uuid.UUID
	ClientID       uuid.UUID
	Body           json.RawMessage
}

// Sent says that a message is written, for good.
type Sent struct {
	ID     uuid.UUID
	Seq    int64
	SentAt time.Time
	// Duplicate says that an earlier draft with the same ClientID wrote it.
	Duplicate bool
}

// Kind is what a stream item tells of.
type Kind string

// The kinds. Adapters pass on kinds that they don't know.
const (
	KindMessage Kind = "message"
	// KindSystemMessage is a message that is nobody's. It has a kind of its own,
	// which clients of v0.1.0 pass over: their messages all have senders.
	KindSystemMessage Kind = "system_message"
	KindTask          Kind = "task"
	KindReceipt       Kind = "receipt"
	KindSession       Kind = "session"
	KindConversation  Kind = "conversation"
)

// The kinds of signals.
const (
	KindTyping   Kind = "typing"
	KindPresence Kind = "presence"
)

// Item is one entry of a user's durable stream.
type Item struct {
	UserID uuid.UUID
	// Offset counts a user's items from 1 on, without a gap. A store gives it.
	Offset int64
	Kind   Kind
	// Payload is a JSON object: the event's fields on every wire.
	Payload json.RawMessage
}

// SharesPayload says whether two items have one payload, not only equal ones:
// then they can be sent together.
func (i Item) SharesPayload(other Item) bool {
	return len(i.Payload) > 0 && len(i.Payload) == len(other.Payload) && &i.Payload[0] == &other.Payload[0]
}

// Position is where a user's stream is.
type Position struct {
	// Head is the newest item's offset, 0 before the first.
	Head int64
	// Tail is the newest offset that is no longer kept, 0 if all are.
	Tail int64
}

// Place is one in a user's stream: after the item with this offset.
type Place struct {
	UserID uuid.UUID
	// Offset is negative for nowhere: nothing follows it.
	Offset int64
}

// Resumption is what a place leads to.
type Resumption struct {
	// Position is where the place's stream is.
	Position Position
	// Items are the first of those that follow the place, in order; none if
	// they are not all kept.
	Items []Item
}

// Signal is ephemeral: it may be dropped, and is never kept.
type Signal struct {
	// Kind is KindTyping or KindPresence.
	Kind Kind
	// Payload is a JSON object: the signal's fields on every wire.
	Payload json.RawMessage
}

// The payloads of stream items, by kind and event.

type typingPayload struct {
	ConversationID uuid.UUID `json:"conversation_id"`
	From           uuid.UUID `json:"from"`
}

type receiptPayload struct {
	ConversationID uuid.UUID `json:"conversation_id"`
	UserID         uuid.UUID `json:"user_id"`
	Seq            int64     `json:"seq"`
}

// OfferMade is the payload of a task item: a tasker offered to do a task, and
// the two can talk about it.
type OfferMade struct {
	TaskID         uuid.UUID
	OfferID        uuid.UUID
	ClientID       uuid.UUID
	TaskerID       uuid.UUID
	Title          string
	ConversationID uuid.UUID
}

type offerPayload struct {
	Event          string    `json:"event"`
	TaskID         uuid.UUID `json:"task_id"`
	OfferID        uuid.UUID `json:"offer_id"`
	ClientUserID   uuid.UUID `json:"client_user_id"`
	TaskerUserID   uuid.UUID `json:"tasker_user_id"`
	Title          string    `json:"title"`
	ConversationID uuid.UUID `json:"conversation_id"`
}

// TaskChanged is the payload of a task item: a task's status changed.
type TaskChanged struct {
	TaskID   uuid.UUID
	ClientID uuid.UUID
	// TaskerID is nil before a task is assigned.
	TaskerID *uuid.UUID
	ActorID  uuid.UUID
	From, To string
	Title    string
	Version  int64
	// ConversationID is the client's and the tasker's, nil if there is none.
	ConversationID *uuid.UUID
}

type changePayload struct {
	Event          string     `json:"event"`
	TaskID         uuid.UUID  `json:"task_id"`
	ActorID        uuid.UUID  `json:"actor_id"`
	From           string     `json:"from"`
	To             string     `json:"to"`
	Title          string     `json:"title"`
	Version        int64      `json:"version"`
	ConversationID *uuid.UUID `json:"conversation_id,omitempty"`
}

type sessionPayload struct {
	Event     string    `json:"event"`
	SessionID uuid.UUID `json:"session_id"`
	Reason    string    `json:"reason,omitempty"`
}

// MessageItems are the items that tell every member of a message.
func MessageItems(m Message, members []uuid.UUID) []Item {
	kind := KindMessage
	if m.System() {
		kind = KindSystemMessage
	}
	return itemsOf(kind, members, MessagePayload(m))
}

// MessagePayload is the payload of the items that tell of a message.
func MessagePayload(m Message) json.RawMessage {
	// By hand, since every message passes here, at its writing and at each
	// replay: reflection takes ten times as long.
	out := make([]byte, 0, len(m.Body)+320)
	out = append(out, `{"conversation_id":"`...)
	out = AppendUUID(out, m.ConversationID)
	out = append(out, `","seq":`...)
	out = strconv.AppendInt(out, m.Seq, 10)
	out = append(out, `,"id":"`...)
	out = AppendUUID(out, m.ID)
	if m.System() { // no client chose its client_id
		out = append(out, `","system":true,"body":`...)
	} else {
		out = append(out, `","client_id":"`...)
		out = AppendUUID(out, m.ClientID)
		out = append(out, `","from":"`...)
		out = AppendUUID(out, m.SenderID)
		out = append(out, `","body":`...)
	}
	out = append(out, m.Body...)
	out = append(out, `,"sent_at":"`...)
	out = m.SentAt.UTC().AppendFormat(out, time.RFC3339Nano)
	return append(out, `"}`...)
}

// TypingSignal tells that a member is writing in a conversation.
func TypingSignal(conversation, from uuid.UUID) (Signal, error) {
	payload, err := EncodeJSON(typingPayload{ConversationID: conversation, From: from})
	if err != nil {
		return Signal{}, fmt.Errorf("encode a typing signal: %w", err)
	}
	return Signal{Kind: KindTyping, Payload: payload}, nil
}

// ReceiptItems are the items that tell every member how far reader has read.
func ReceiptItems(conversation, reader uuid.UUID, seq int64, members []uuid.UUID) ([]Item, error) {
	return items(KindReceipt, members, receiptPayload{ConversationID: conversation, UserID: reader, Seq: seq})
}

// OfferItems are the items that tell both sides of an offer, and where to talk
// about it.
func OfferItems(o OfferMade) ([]Item, error) {
	return items(KindTask, []uuid.UUID{o.ClientID, o.TaskerID}, offerPayload{
		Event: "offer_made", TaskID: o.TaskID, OfferID: o.OfferID,
		ClientUserID: o.ClientID, TaskerUserID: o.TaskerID, Title: o.Title, ConversationID: o.ConversationID,
	})
}

// ChangeItems are the items that tell a task's client, and its tasker if it
// has one, of its new status.
func ChangeItems(c TaskChanged) ([]Item, error) {
	users := []uuid.UUID{c.ClientID}
	if c.TaskerID != nil && *c.TaskerID != c.ClientID {
		users = append(users, *c.TaskerID)
	}
	return items(KindTask, users, changePayload{
		Event: "task_changed", TaskID: c.TaskID, ActorID: c.ActorID, From: c.From, To: c.To,
		Title: c.Title, Version: c.Version, ConversationID: c.ConversationID,
	})
}

type changeBody struct {
	Type    string    `json:"type"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	TaskID  uuid.UUID `json:"task_id"`
	Version int64     `json:"version"`
}

// ChangeBody is what the system writes into the conversation of a task's client
// and tasker when the task's status changed.
func ChangeBody(c TaskChanged) (json.RawMessage, error) {
	body, err := EncodeJSON(changeBody{Type: "task_changed", From: c.From, To: c.To, TaskID: c.TaskID, Version: c.Version})
	if err != nil {
		return nil, fmt.Errorf("encode a system message: %w", err)
	}
	return body, nil
}

// SessionItems is the item that tells a user of the end of a session.
func SessionItems(user, session uuid.UUID, reason string) ([]Item, error) {
	return items(KindSession, []uuid.UUID{user}, sessionPayload{Event: "ended", SessionID: session, Reason: reason})
}

// SessionEndedPayload is what a socket is told of the end of its own session,
// outside of the stream.
func SessionEndedPayload(session uuid.UUID) json.RawMessage {
	payload, err := json.Marshal(sessionPayload{Event: "ended", SessionID: session})
	if err != nil {
		return json.RawMessage(`{"event":"ended"}`) // ids and constants always encode
	}
	return payload
}

func items(kind Kind, users []uuid.UUID, payload any) ([]Item, error) {
	encoded, err := EncodeJSON(payload)
	if err != nil {
		return nil, fmt.Errorf("encode a %s item: %w", kind, err)
	}
	return itemsOf(kind, users, encoded), nil
}

// itemsOf gives the users one payload, which they share.
func itemsOf(kind Kind, users []uuid.UUID, payload json.RawMessage) []Item {
	out := make([]Item, 0, len(users))
	for _, user := range users {
		out = append(out, Item{UserID: user, Kind: kind, Payload: payload})
	}
	return out
}

// EncodeJSON is json.Marshal without the escapes that only matter inside of
// HTML pages: a body of "<" would grow to six times the size that was checked.
func EncodeJSON(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte{'\n'}), nil
}
