package messaging

import (
	"context"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

const (
	// MaxUnread is how many of a conversation's newest messages are looked at to
	// count those that are unread.
	MaxUnread = 1000
	// MaxUnreadConversations is how many of a user's conversations, the newest
	// ones, are added up.
	MaxUnreadConversations = 1000
)

// Unread is what a user has not read: in how many conversations, and how many
// messages in all. Messages count as they do in one conversation.
type Unread struct{ Conversations, Messages int64 }

// Unread adds up the user's MaxUnreadConversations newest conversations.
func (s *Service) Unread(ctx context.Context, user uuid.UUID) (Unread, error) {
	return s.store.Unread(ctx, user)
}

// HistoryQuery selects a part of a conversation's messages. At most one of
// Before, After and Around is set; with none it is the newest part.
type HistoryQuery struct {
	// Before leaves only messages with a smaller seq.
	Before int64
	// After is followed by the part: messages with a greater seq, the least ones.
	After int64
	// Around is a seq that is in the part, in its middle if it can be.
	Around int64
	Limit  int
}

// History is a part of a conversation's messages, newest first. The Next ones
// are 0 where the conversation ends.
type History struct {
	Messages   []Message
	NextBefore int64
	NextAfter  int64
}

var (
	errHistoryRange  = fault.New(fault.Invalid, "range_ambiguous", "Send one of before, after and around.")
	errAroundUnknown = fault.New(fault.Invalid, "seq_unknown", "The conversation has no message with the seq in around.")
)

// History returns a part of a conversation of the user's.
func (s *Service) History(ctx context.Context, user, conversation uuid.UUID, query HistoryQuery) (History, error) {
	head, err := s.store.Head(ctx, conversation, user)
	if err != nil {
		return History{}, err
	}
	before, limit, err := query.span(head)
	if err != nil || limit <= 0 {
		return History{}, err
	}
	messages, err := s.store.Messages(ctx, conversation, before, limit)
	if err != nil || len(messages) == 0 {
		return History{}, err
	}
	out := History{Messages: messages}
	if newest := messages[0].Seq; newest < head {
		out.NextAfter = newest
	}
	if oldest := messages[len(messages)-1].Seq; oldest > 1 {
		out.NextBefore = oldest
	}
	return out, nil
}

// span turns a query into "limit messages with a seq below before". It can,
// since seqs begin with 1 and have no gap up to head.
func (q HistoryQuery) span(head int64) (before int64, limit int, err error) {
	size := int64(q.Limit)
	switch {
	case q.Before != 0 && q.After != 0, q.Before != 0 && q.Around != 0, q.After != 0 && q.Around != 0:
		return 0, 0, errHistoryRange
	case q.Around > head:
		return 0, 0, errAroundUnknown
	case q.After >= head && q.After != 0:
		return 0, 0, nil
	case q.After != 0:
		last := min(q.After+size, head)
		return last + 1, int(last - q.After), nil
	case q.Around != 0:
		// Near an end of the conversation the other side gets what this one lacks.
		last := max(q.Around+size/2, size)
		return min(last, head) + 1, q.Limit, nil
	case q.Before != 0:
		return min(q.Before, head+1), q.Limit, nil
	default:
		return head + 1, q.Limit, nil
	}
}
