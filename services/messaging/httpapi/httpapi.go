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
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
)

const (
	routeConversations = "/v1/conversations"
	routeUnread        = routeConversations + "/unread"
	routeConversation  = routeConversations + "/{conversation_id}"
	routeMessages      = routeConversation + "/messages"
	routeMember        = routeConversation + "/members/{user_id}"
	routeBlocks        = "/v1/blocks"
	routeBlock         = routeBlocks + "/{user_id}"
)

// Register adds the operations to an API.
func Register(api *web.API, service *messaging.Service, keeper *idempotency.Keeper) {
	h := handlers{service: service, keeper: keeper}
	web.Handle(api, web.Operation{ID: "listConversations", Method: http.MethodGet, Path: routeConversations, Summary: "List your conversations, newest first"}, h.list)
	web.Handle(api, web.Operation{ID: "countUnread", Method: http.MethodGet, Path: routeUnread, Summary: "Count your unread messages"}, h.unread)
	web.Handle(api, web.Operation{ID: "getConversation", Method: http.MethodGet, Path: routeConversation, Summary: "Get a conversation"}, h.get)
	web.Handle(api, web.Operation{ID: "openSupportConversation", Method: http.MethodPost, Path: routeConversations, Summary: "Open a conversation with the marketplace's support", Status: http.StatusCreated}, h.open)
	web.Handle(api, web.Operation{ID: "addMember", Method: http.MethodPut, Path: routeMember, Summary: "Add a member to a support conversation (support agents)"}, h.addMember)
	web.Handle(api, web.Operation{ID: "removeMember", Method: http.MethodDelete, Path: routeMember, Summary: "Remove a member from a support conversation (support agents), or leave it"}, h.removeMember)
	web.Handle(api, web.Operation{ID: "listMessages", Method: http.MethodGet, Path: routeMessages, Summary: "List a conversation's messages, newest first"}, h.history)
	web.Handle(api, web.Operation{ID: "sendMessage", Method: http.MethodPost, Path: routeMessages, Summary: "Send a message", Status: http.StatusCreated}, h.send)
	web.Handle(api, web.Operation{ID: "listBlocks", Method: http.MethodGet, Path: routeBlocks, Summary: "List whom you block, newest first"}, h.blocks)
	web.Handle(api, web.Operation{ID: "blockUser", Method: http.MethodPut, Path: routeBlock, Summary: "Block a user"}, h.block)
	web.Handle(api, web.Operation{ID: "unblockUser", Method: http.MethodDelete, Path: routeBlock, Summary: "Unblock a user"}, h.unblock)
}

type handlers struct {
	service *messaging.Service
	keeper  *idempotency.Keeper
}

// actor is who asks; every operation here is authenticated.
func actor(ctx context.Context) uuid.UUID { return identity.FromContext(ctx).UserID }

// Conversation is the JSON of a conversation.
type Conversation struct {
	ID        uuid.UUID  `json:"id"`
	Kind      string     `json:"kind" enum:"task,support"`
	TaskID    *uuid.UUID `json:"task_id,omitempty" doc:"Absent unless the conversation is about a task."`
	Title     string     `json:"title" doc:"The task's, when the conversation began, or the subject that was given."`
	Members   []Member   `json:"members" nullable:"false"`
	LastSeq   int64      `json:"last_seq" doc:"The newest message's seq; 0 before the first."`
	Unread    int64      `json:"unread" doc:"Messages of others beyond your read_seq; of the newest 1,000 messages."`
	Blocked   bool       `json:"blocked,omitempty" doc:"true while nobody can send, since it has two members, one of whom blocks the other."`
	CreatedAt time.Time  `json:"created_at"`
}

// Member is the JSON of a conversation's member.
type Member struct {
	UserID  uuid.UUID `json:"user_id"`
	Role    string    `json:"role" enum:"client,tasker,support,user"`
	ReadSeq int64     `json:"read_seq" doc:"Messages up to this seq have been read."`
}

// Message is the JSON of a message.
type Message struct {
	ConversationID uuid.UUID       `json:"conversation_id"`
	Seq            int64           `json:"seq" doc:"Counts a conversation's messages, without a gap."`
	ID             uuid.UUID       `json:"id"`
	ClientID       *uuid.UUID      `json:"client_id,omitempty" doc:"The idempotency key that the sender chose; absent from the system's messages."`
	From           *uuid.UUID      `json:"from,omitempty" doc:"Absent from the system's messages."`
	System         bool            `json:"system,omitempty" doc:"true if the system wrote it."`
	Body           json.RawMessage `json:"body"`
	SentAt         time.Time       `json:"sent_at"`
}

func conversationOf(c messaging.Conversation) Conversation {
	out := Conversation{
		ID: c.ID, Kind: string(c.Kind), Title: c.Title, LastSeq: c.LastSeq, Unread: c.Unread, Blocked: c.Blocked,
		CreatedAt: c.CreatedAt.UTC(), Members: make([]Member, 0, len(c.Members)),
	}
	if c.TaskID != uuid.Nil {
		out.TaskID = &c.TaskID
	}
	for _, m := range c.Members {
		out.Members = append(out.Members, Member{UserID: m.UserID, Role: string(m.Role), ReadSeq: m.ReadSeq})
	}
	return out
}

func messageOf(m messaging.Message) Message {
	out := Message{
		ConversationID: m.ConversationID, Seq: m.Seq, ID: m.ID, System: m.System(), Body: m.Body, SentAt: m.SentAt.UTC(),
	}
	if !out.System {
		out.ClientID, out.From = &m.ClientID, &m.SenderID
	}
	return out
}

type listInput struct {
	TaskID string `query:"task_id" format:"uuid" doc:"Only the task's conversations."`
	Unread bool   `query:"unread" doc:"Only conversations with unread messages."`
	PageInput
}

// PageInput is which part of a list is asked for. What is embedded in an input
// is exported, or its parameters would not be read.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many to list at most."`
	Cursor string `query:"cursor" maxLength:"100" doc:"The next_cursor of the part before, under the same filter."`
}

// before returns the id after which the part begins, nil at the list's begin.
func (in PageInput) before(list cursorList) (*uuid.UUID, error) {
	if in.Cursor == "" {
		return nil, nil //nolint:nilnil // the list's begin
	}
	id, err := list.decode(in.Cursor)
	return &id, err
}

type listOutput struct{ Body ConversationList }

// ConversationList is a part of a list.
type ConversationList struct {
	Items      []Conversation `json:"items"`
	NextCursor string         `json:"next_cursor,omitempty" doc:"Absent in the last part."`
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	query := messaging.ConversationQuery{UserID: actor(ctx), Unread: in.Unread, Limit: in.Limit + 1} // one more tells whether there are more
	list := cursorList{user: query.UserID}
	if in.Unread {
		list.name = "unread"
	}
	if in.TaskID != "" {
		task, err := uuid.Parse(in.TaskID)
		if err != nil {
			return nil, errTaskID
		}
		query.TaskID, list.task = &task, task
	}
	var err error
	if query.Before, err = in.before(list); err != nil {
		return nil, err
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

// ConversationPath names a conversation.
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
	Before int64 `query:"before" minimum:"0" doc:"Only messages with a smaller seq; without before, after and around, from the newest on."`
	After  int64 `query:"after" minimum:"1" doc:"The messages that follow this seq."`
	Around int64 `query:"around" minimum:"1" doc:"The message with this seq, and those before and after it."`
	Limit  int   `query:"limit" minimum:"1" maximum:"100" default:"50" doc:"How many to list at most."`
}

type historyOutput struct{ Body MessageList }

// MessageList is a part of a conversation's history.
type MessageList struct {
	Items      []Message `json:"items" nullable:"false"`
	NextBefore int64     `json:"next_before,omitempty" doc:"The before of the part with older messages; absent at the first one."`
	NextAfter  int64     `json:"next_after,omitempty" doc:"The after of the part with newer messages; absent at the newest one."`
}

func (h handlers) history(ctx context.Context, in *historyInput) (*historyOutput, error) {
	found, err := h.service.History(ctx, actor(ctx), in.ConversationID, messaging.HistoryQuery{
		Before: in.Before, After: in.After, Around: in.Around, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := &historyOutput{Body: MessageList{
		Items: make([]Message, 0, len(found.Messages)), NextBefore: found.NextBefore, NextAfter: found.NextAfter,
	}}
	for _, m := range found.Messages {
		out.Body.Items = append(out.Body.Items, messageOf(m))
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
	Body json.RawMessage `json:"body" doc:"A JSON object of at most 32 KiB, which only clients understand but for its attachments."`
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
