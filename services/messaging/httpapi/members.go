package httpapi

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/idempotency"
)

type openInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Required: a value of your own, up to 255 visible ASCII characters; the same request with the same key has its effect once, and gets the same answer for 24 hours."`
	Body           NewConversation
}

// NewConversation is a conversation to open.
type NewConversation struct {
	Kind    string `json:"kind" enum:"support"`
	Subject string `json:"subject" minLength:"1" maxLength:"120"`
}

type openOutput struct {
	Location string `header:"Location"`
	Replayed string `header:"Idempotency-Replayed" doc:"true if the conversation was opened by an earlier request with the same key."`
	Body     Conversation
}

func (h handlers) open(ctx context.Context, in *openInput) (*openOutput, error) {
	tell := func() {} // a replay has nothing to tell
	answer, err := idempotency.Do(ctx, h.keeper, idempotency.Request{
		Principal: actor(ctx), Route: http.MethodPost + " " + routeConversations, Key: in.IdempotencyKey, Input: in.Body,
	}, http.StatusCreated, func(ctx context.Context) (Conversation, error) {
		opened, t, err := h.service.OpenSupport(ctx, actor(ctx), in.Body.Subject)
		if err == nil {
			tell = t
		}
		return conversationOf(opened), err
	})
	if err != nil {
		return nil, err
	}
	tell()
	out := &openOutput{Location: routeConversations + "/" + answer.Body.ID.String(), Body: answer.Body}
	if answer.Replayed {
		out.Replayed = "true"
	}
	return out, nil
}

type unreadOutput struct{ Body Unread }

// Unread is the JSON of what a user has not read.
type Unread struct {
	Conversations int64 `json:"conversations" doc:"How many of your conversations have unread messages; of the newest 1,000."`
	Messages      int64 `json:"messages" doc:"How many messages are unread in them."`
}

func (h handlers) unread(ctx context.Context, _ *struct{}) (*unreadOutput, error) {
	u, err := h.service.Unread(ctx, actor(ctx))
	if err != nil {
		return nil, err
	}
	return &unreadOutput{Unread(u)}, nil
}

// MemberPath names a user in a conversation.
type MemberPath struct {
	ConversationPath
	UserID uuid.UUID `path:"user_id" format:"uuid"`
}

func (h handlers) addMember(ctx context.Context, in *MemberPath) (*getOutput, error) {
	c, err := h.service.AddMember(ctx, actor(ctx), in.ConversationID, in.UserID)
	if err != nil {
		return nil, err
	}
	return &getOutput{conversationOf(c)}, nil
}

func (h handlers) removeMember(ctx context.Context, in *MemberPath) (*struct{}, error) {
	return nil, h.service.RemoveMember(ctx, actor(ctx), in.ConversationID, in.UserID)
}
