// Package httpapi serves the messaging domain over HTTP: lists, history, and
// sending for whoever has no socket.
package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
)

const (
	routeConversations = "/v1/conversations"
	routeConversation  = routeConversations + "/{conversation_id}"
	routeMessages      = routeConversation + "/messages"
)

// Register adds the operations to an API.
func Register(api *web.API, service *messaging.Service) {
	h := handlers{service}
	web.Handle(api, web.Operation{ID: "listConversations", Method: http.MethodGet, Path: routeConversations, Summary: "List your conversations, newest first"}, h.list)
	web.Handle(api, web.Operation{ID: "getConversation", Method: http.MethodGet, Path: routeConversation, Summary: "Get a conversation"}, h.get)
	web.Handle(api, web.Operation{ID: "listMessages", Method: http.MethodGet, Path: routeMessages, Summary: "List a conversation's messages, newest first"}, h.history)
	web.Handle(api, web.Operation{ID: "sendMessage", Method: http.MethodPost, Path: routeMessages, Summary: "Send a message", Status: http.StatusCreated}, h.send)
}

type handlers struct{ service *messaging.Service }

// actor is who asks; every operation here is authenticated.
func actor(ctx context.Context) uuid.UUID { return identity.FromContext(ctx).UserID }

// Conversation is the JSON of a conversation.
type Conversation struct {
	ID        uuid.UUID `json:"id"`
	TaskID    uuid.UUID `json:"task_id"`
	Title     string    `json:"title" doc:"The task's, when the conversation began."`
	Members   []Member  `json:"members"`
	LastSeq   int64     `json:"last_seq" doc:"The newest message's seq; 0 before the first."`
	CreatedAt time.Time `json:"created_at"`
}

// Member is the JSON of a conversation's member.
type Member struct {
	UserID  uuid.UUID `json:"user_id"`
	Role    string    `json:"role" enum:"client,tasker"`
	ReadSeq int64     `json:"read_seq" doc:"Messages up to this seq have been read."`
}

// Message is the JSON of a message.
type Message struct {
	ConversationID uuid.UUID       `json:"conversation_id"`
	Seq            int64           `json:"seq" doc:"Counts a conversation's messages, without a gap."`
	ID             uuid.UUID       `json:"id"`
	ClientID       uuid.UUID       `json:"client_id" doc:"The idempotency key that the sender chose."`
	From           uuid.UUID       `json:"from"`
	Body           json.RawMessage `json:"body"`
	SentAt         time.Time       `json:"sent_at"`
}

func conversationOf(c messaging.Conversation) Conversation {
	out := Conversation{
		ID: c.ID, TaskID: c.TaskID, Title: c.Title, LastSeq: c.LastSeq, CreatedAt: c.CreatedAt.UTC(),
		Members: make([]Member, 0, len(c.Members)),
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, Member{UserID: m.UserID, Role: string(m.Role), ReadSeq: m.ReadSeq})
	}
	return out
}

type listInput struct {
	TaskID string `query:"task_id" format:"uuid" doc:"Only the task's conversations."`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many to list at most."`
	Cursor string `query:"cursor" maxLength:"100" doc:"The next_cursor of the part before, under the same filter."`
}

type listOutput struct{ Body ConversationList }

// ConversationList is a part of a list.
type ConversationList struct {
	Items      []Conversation `json:"items"`
	NextCursor string         `json:"next_cursor,omitempty" doc:"Absent in the last part."`
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	query := messaging.ConversationQuery{UserID: actor(ctx), Limit: in.Limit + 1} // one more tells whether there are more
	list := cursorList{user: query.UserID}
	if in.TaskID != "" {
		task, err := uuid.Parse(in.TaskID)
		if err != nil {
			return nil, errTaskID
		}
		query.TaskID, list.task = &task, task
	}
	if in.Cursor != "" {
		before, err := list.decode(in.Cursor)
		if err != nil {
			return nil, err
		}
		query.Before = &before
	}
	found, err := h.service.Conversations(ctx, query)
	if err != nil {
		return nil, err
	}
	out := &listOutput{Body: ConversationList{Items: []Conversation{}}}
	if len(found) > in.Limit {
		found = found[:in.Limit]
		out.Body.NextCursor = list.encode(found[in.Limit-1].ID)
	}
	for _, c := range found {
		out.Body.Items = append(out.Body.Items, conversationOf(c))
	}
	return out, nil
}

var errTaskID = fault.New(fault.Invalid, "task_id_invalid", "task_id must be a UUID.")

// ConversationPath names a conversation. It is exported because embedded structs
// that are not are passed over when a request is read.
type ConversationPath struct {
	ConversationID uuid.UUID `path:"conversation_id" format:"uuid"`
}

type getOutput struct{ Body Conversation }

func (h handlers) get(ctx context.Context, in *ConversationPath) (*getOutput, error) {
	c, err := h.service.Conversation(ctx, actor(ctx), in.ConversationID)
	if err != nil {
		return nil, err
	}
	return &getOutput{conversationOf(c)}, nil
}

type historyInput struct {
	ConversationPath
	Before int64 `query:"before" minimum:"0" doc:"Only messages with a smaller seq; without it, from the newest on."`
	Limit  int   `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"How many to list at most."`
}

type historyOutput struct{ Body MessageList }

// MessageList is a part of a conversation's history.
type MessageList struct {
	Items      []Message `json:"items"`
	NextBefore int64     `json:"next_before,omitempty" doc:"The before of the next part; absent in the last one."`
}

func (h handlers) history(ctx context.Context, in *historyInput) (*historyOutput, error) {
	found, err := h.service.History(ctx, actor(ctx), in.ConversationID, in.Before, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &historyOutput{Body: MessageList{Items: make([]Message, 0, len(found))}}
	for _, m := range found {
		out.Body.Items = append(out.Body.Items, Message{
			ConversationID: m.ConversationID, Seq: m.Seq, ID: m.ID, ClientID: m.ClientID,
			From: m.SenderID, Body: m.Body, SentAt: m.SentAt.UTC(),
		})
	}
	// Seqs have no gap and begin with 1, so the last one tells whether there
	// are more.
	if n := len(found); n > 0 && found[n-1].Seq > 1 {
		out.Body.NextBefore = found[n-1].Seq
	}
	return out, nil
}

type sendInput struct {
	ConversationPath
	IdempotencyKey string `header:"Idempotency-Key" doc:"Required: a new UUID for every message. A message that is sent again with the same key is the same message, also when it was sent over a socket."`
	Body           NewMessage
}

// NewMessage is a message to send.
type NewMessage struct {
	Body json.RawMessage `json:"body" doc:"A JSON object of at most 32 KiB, which only clients understand."`
}

type sendOutput struct{ Body Sent }

// Sent says that a message is written, for good.
type Sent struct {
	ID        uuid.UUID `json:"id"`
	Seq       int64     `json:"seq"`
	Duplicate bool      `json:"duplicate" doc:"true if the message was written before, with the same key."`
}

var (
	errNoKey  = fault.New(fault.Malformed, "idempotency_key_missing", "Send a new UUID in the header Idempotency-Key.")
	errKey    = fault.New(fault.Malformed, "idempotency_key_invalid", "The Idempotency-Key of a message is a UUID.")
	errReused = fault.New(fault.Invalid, "idempotency_key_reused", "You sent another message with this Idempotency-Key.")
)

func (h handlers) send(ctx context.Context, in *sendInput) (*sendOutput, error) {
	if in.IdempotencyKey == "" {
		return nil, errNoKey
	}
	key, err := uuid.Parse(in.IdempotencyKey)
	if err != nil || key == uuid.Nil {
		return nil, errKey
	}
	sent, err := h.service.Send(ctx, messaging.Draft{
		ConversationID: in.ConversationID, SenderID: actor(ctx), ClientID: key, Body: in.Body.Body,
	})
	if f := fault.From(err); err != nil && f.Is(messaging.ErrClientIDReused) {
		return nil, errReused
	}
	if err != nil {
		return nil, err
	}
	return &sendOutput{Sent{ID: sent.ID, Seq: sent.Seq, Duplicate: sent.Duplicate}}, nil
}
