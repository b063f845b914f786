package messaging

import (
	"context"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// Faults that clients may act on by their code.
var (
	// ErrNoConversation is the answer to strangers too: they can't find out
	// which conversations there are.
	ErrNoConversation = fault.New(fault.NotFound, "conversation_not_found",
		"There is no such conversation, or you are not a member of it.")
	// ErrClientIDReused refuses a second message under the key of a first one:
	// to acknowledge it would be a lie.
	ErrClientIDReused = fault.New(fault.Invalid, "client_id_reused",
		"You sent another message with this client_id. Choose a new UUID for every message.")
	// ErrBodyRefused means that a body passed the checks and can't be stored.
	ErrBodyRefused = fault.New(fault.Invalid, "body_invalid", "The body holds a value that can't be stored.").At("/body")
	// ErrRateLimited is retried after its RetryAfter.
	ErrRateLimited = fault.New(fault.TooMany, "rate_limited", "You are sending too fast. Slow down.")

	errSeqUnknown = fault.New(fault.Invalid, "seq_unknown", "The conversation has no message with this seq.").At("/seq")
	errNoClientID = fault.New(fault.Invalid, "client_id_invalid", "Send a new UUID for every message.").At("/client_id")
)

// Sender writes drafts. It answers when the message is written for good, and
// never before: an error of kind Unavailable means that it may or may not be,
// and that sending the same ClientID again is safe.
type Sender interface {
	Send(ctx context.Context, draft Draft) (Sent, error)
}

// Store is what the service reads, and the writes that are not grouped.
type Store interface {
	// Conversation returns one, with its members, or ErrNoConversation unless
	// user is one of them.
	Conversation(ctx context.Context, id, user uuid.UUID) (Conversation, error)
	// Conversations lists a user's, newest first.
	Conversations(ctx context.Context, query ConversationQuery) ([]Conversation, error)
	// Messages lists a conversation's with a seq below before, newest first.
	Messages(ctx context.Context, conversation uuid.UUID, before int64, limit int) ([]Message, error)
	// MarkRead moves a member's read position forward, and returns the items
	// that tell of it: none if it was there already.
	MarkRead(ctx context.Context, conversation, user uuid.UUID, seq int64) ([]Item, error)
}

// Announcer tells connected users what is new. It never fails: what it loses,
// they get from the store.
type Announcer interface {
	Announce(items []Item)
	// Signal carries an ephemeral signal to the users.
	Signal(users []uuid.UUID, signal Typing)
}

// ConversationQuery selects some of a user's conversations.
type ConversationQuery struct {
	UserID uuid.UUID
	// TaskID, if set, leaves only the task's.
	TaskID *uuid.UUID
	// Before, if set, leaves only those with a smaller id.
	Before *uuid.UUID
	Limit  int
}

// DefaultSendRate is how many messages a user may send through one process.
var DefaultSendRate = Rate{PerSecond: 20, Burst: 60}

// Service is the domain's operations. Its methods check what the user may do.
type Service struct {
	store     Store
	sender    Sender
	announcer Announcer
	limiter   *Limiter
}

// NewService puts a service together. A user may send at the given rate; now
// is the clock.
func NewService(store Store, sender Sender, announcer Announcer, rate Rate, now func() time.Time) *Service {
	return &Service{store: store, sender: sender, announcer: announcer, limiter: NewLimiter(rate, now)}
}

// Send writes a message of a member. Its faults: body_invalid, body_too_large,
// client_id_invalid, client_id_reused, conversation_not_found, rate_limited,
// and those of kind Unavailable.
func (s *Service) Send(ctx context.Context, draft Draft) (Sent, error) {
	if wait := s.limiter.Take(draft.SenderID); wait > 0 {
		return Sent{}, ErrRateLimited.After(wait)
	}
	if draft.ClientID == uuid.Nil {
		return Sent{}, errNoClientID
	}
	body, err := checkBody(draft.Body)
	if err != nil {
		return Sent{}, err
	}
	draft.Body = body
	return s.sender.Send(ctx, draft)
}

// Read says that a member has read everything up to seq. Going back is no
// error and has no effect.
func (s *Service) Read(ctx context.Context, user, conversation uuid.UUID, seq int64) error {
	found, err := s.store.Conversation(ctx, conversation, user)
	if err != nil {
		return err
	}
	if seq < 1 || seq > found.LastSeq {
		return errSeqUnknown
	}
	items, err := s.store.MarkRead(ctx, conversation, user, seq)
	if err != nil {
		return err
	}
	s.announcer.Announce(items)
	return nil
}

// Typing tells the other members that a member is writing.
func (s *Service) Typing(ctx context.Context, user, conversation uuid.UUID) error {
	found, err := s.store.Conversation(ctx, conversation, user)
	if err != nil {
		return err
	}
	others := make([]uuid.UUID, 0, len(found.Members))
	for _, m := range found.Members {
		if m.UserID != user {
			others = append(others, m.UserID)
		}
	}
	s.announcer.Signal(others, Typing{ConversationID: conversation, From: user})
	return nil
}

// Conversation returns one of the user's.
func (s *Service) Conversation(ctx context.Context, user, id uuid.UUID) (Conversation, error) {
	return s.store.Conversation(ctx, id, user)
}

// Conversations lists the user's, newest first, at most query.Limit.
func (s *Service) Conversations(ctx context.Context, query ConversationQuery) ([]Conversation, error) {
	return s.store.Conversations(ctx, query)
}

// History lists messages with a seq below before (0: from the newest on),
// newest first, at most limit.
func (s *Service) History(ctx context.Context, user, conversation uuid.UUID, before int64, limit int) ([]Message, error) {
	if _, err := s.store.Conversation(ctx, conversation, user); err != nil {
		return nil, err
	}
	if before == 0 {
		before = math.MaxInt64
	}
	return s.store.Messages(ctx, conversation, before, limit)
}
