package messaging

import (
	"context"
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
	// ErrConversationBlocked does not tell who blocks whom.
	ErrConversationBlocked = fault.New(fault.Forbidden, "conversation_blocked",
		"Nobody can send here while one of the two members blocks the other. If it is you who blocks, lift the block first.")
	// ErrRateLimited is retried after its RetryAfter.
	ErrRateLimited = fault.New(fault.TooMany, "rate_limited", "You are sending too fast. Slow down.")

	errSeqUnknown = fault.New(fault.Invalid, "seq_unknown", "The conversation has no message with this seq.").At("/seq")
	errUnknown    = fault.New(fault.Unavailable, "outcome_unknown",
		"The message may or may not be written. Send it again with the same client_id.").After(500 * time.Millisecond)
	errNoClientID = fault.New(fault.Invalid, "client_id_invalid", "Send a new UUID for every message.").At("/client_id")
)

// Sender writes drafts. It answers when the message is written for good, and
// never before: an error of kind Unavailable means that it may or may not be,
// and that sending the same ClientID again is safe.
type Sender interface {
	// Send returns at once, and has answer called exactly once: by the writer, or
	// before it returns if the draft is refused. answer must not block. The drafts
	// of one conversation are written in the order of the calls.
	Send(draft Draft, answer func(Sent, error))
}

// Store is what the service reads, and the writes that are not grouped.
type Store interface {
	Membership
	Blocklist
	// Head returns the newest seq of a conversation, or ErrNoConversation unless
	// user is one of its members.
	Head(ctx context.Context, conversation, user uuid.UUID) (int64, error)
	// Conversation returns one, with its members, or ErrNoConversation unless
	// user is one of them.
	Conversation(ctx context.Context, id, user uuid.UUID) (Conversation, error)
	// Conversations lists a user's, newest first.
	Conversations(ctx context.Context, query ConversationQuery) ([]Conversation, error)
	// Unread adds up a user's conversations.
	Unread(ctx context.Context, user uuid.UUID) (Unread, error)
	// Messages lists a conversation's with a seq below before, newest first.
	Messages(ctx context.Context, conversation uuid.UUID, before int64, limit int) ([]Message, error)
	// MarkRead moves a member's read position forward, and returns the items
	// that tell of it: none if it was there already.
	MarkRead(ctx context.Context, conversation, user uuid.UUID, seq int64) ([]Item, error)
	// Audience returns the members of a conversation whom a member's signals
	// reach: not those who block the member or whom the member blocks. It is
	// ErrNoConversation unless user is a member.
	Audience(ctx context.Context, conversation, user uuid.UUID) ([]uuid.UUID, error)
}

// Announcer tells connected users what is new. It never fails: what it loses,
// they get from the store.
type Announcer interface {
	Announce(items []Item)
	// Signal carries an ephemeral signal to the users.
	Signal(users []uuid.UUID, signal Signal)
}

// ConversationQuery selects some of a user's conversations.
type ConversationQuery struct {
	UserID uuid.UUID
	// TaskID, if set, leaves only the task's.
	TaskID *uuid.UUID
	// Unread leaves only those with unread messages.
	Unread bool
	// Before, if set, leaves only those with a smaller id.
	Before *uuid.UUID
	Limit  int
}

// openRate is how many support conversations a user may open through one
// process: each is an entry in every agent's stream.
var openRate = Rate{PerSecond: 1.0 / 60, Burst: 5}

// DefaultSendRate is how many messages a user may send through one process.
var DefaultSendRate = Rate{PerSecond: 20, Burst: 60}

// Service is the domain's operations. Its methods check what the user may do.
type Service struct {
	store     Store
	sender    Sender
	announcer Announcer
	limiter   *Limiter[uuid.UUID] // of sends, and of changes
	openings  *Limiter[uuid.UUID]
	now       func() time.Time
	agents    []uuid.UUID
}

// NewService puts a service together. A user may send at the given rate; now
// is the clock. agents are the users who answer for the marketplace; without
// any it offers no support conversations.
func NewService(store Store, sender Sender, announcer Announcer, rate Rate, now func() time.Time, agents ...uuid.UUID) *Service {
	return &Service{
		store: store, sender: sender, announcer: announcer, now: now, agents: agents,
		limiter: NewLimiter[uuid.UUID](rate, now), openings: NewLimiter[uuid.UUID](openRate, now),
	}
}

// Enqueue writes a message of a member, without waiting for it; see
// Sender.Send. Its faults: body_invalid, body_too_large, attachment_invalid,
// client_id_invalid, client_id_reused, conversation_blocked,
// conversation_not_found, rate_limited, and those of kind Unavailable. The
// draft's body may be reused when Enqueue returns.
func (s *Service) Enqueue(draft Draft, answer func(Sent, error)) {
	if err := s.allow(draft.SenderID); err != nil {
		answer(Sent{}, err)
		return
	}
	if draft.ClientID == uuid.Nil {
		answer(Sent{}, errNoClientID)
		return
	}
	body, err := checkBody(draft.Body)
	if err != nil {
		answer(Sent{}, err)
		return
	}
	draft.Body = body
	s.sender.Send(draft, answer)
}

// Send is Enqueue for those who wait. When ctx ends first, the outcome is not
// known, and the fault says so.
func (s *Service) Send(ctx context.Context, draft Draft) (Sent, error) {
	type outcome struct {
		sent Sent
		err  error
	}
	answers := make(chan outcome, 1) // holds one, so that nobody waits for a sender that left
	s.Enqueue(draft, func(sent Sent, err error) { answers <- outcome{sent, err} })
	select {
	case o := <-answers:
		return o.sent, o.err
	case <-ctx.Done():
		return Sent{}, errUnknown.Because(ctx.Err())
	}
}

// Read says that a member has read everything up to seq. Going back is no
// error and has no effect.
func (s *Service) Read(ctx context.Context, user, conversation uuid.UUID, seq int64) error {
	head, err := s.store.Head(ctx, conversation, user)
	if err != nil {
		return err
	}
	if seq < 1 || seq > head {
		return errSeqUnknown
	}
	items, err := s.store.MarkRead(ctx, conversation, user, seq)
	if err != nil {
		return err
	}
	s.announcer.Announce(items)
	return nil
}

// Typing tells the other members that a member is writing. Whoever blocks the
// member, or is blocked by the member, does not hear of it.
func (s *Service) Typing(ctx context.Context, user, conversation uuid.UUID) error {
	others, err := s.store.Audience(ctx, conversation, user)
	if err != nil {
		return err
	}
	signal, err := TypingSignal(conversation, user)
	if err != nil {
		return err
	}
	s.announcer.Signal(others, signal)
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

// allow bounds how often a user changes what others see.
func (s *Service) allow(user uuid.UUID) error {
	if wait := s.limiter.Take(user); wait > 0 {
		return ErrRateLimited.After(wait)
	}
	return nil
}
