package messaging

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

const (
	// MaxMembers is how many members a conversation has at most.
	MaxMembers = 200
	// maxSubject is how many characters a support conversation's subject has at
	// most.
	maxSubject = 120
)

var (
	errNoSupport = fault.New(fault.Forbidden, "support_not_offered",
		"This marketplace has no support agents. Its operator may name them.")
	errSubject = fault.New(fault.Invalid, "subject_invalid",
		"Write a subject of 1 to 120 characters, without control characters.").At("/subject")
	errMembersFixed = fault.New(fault.Forbidden, "members_fixed",
		"The members of a task's conversation are its client and its tasker. Open a support conversation to bring in others.")
	errNotAgent = fault.New(fault.Forbidden, "not_an_agent",
		"Only the marketplace's support agents change members. You may leave: remove yourself.")
	errConversationFull = fault.New(fault.Conflict, "conversation_full",
		"The conversation has 200 members. Remove one to add another.")
	errUserID = fault.New(fault.Invalid, "user_id_invalid", "No user has this id.")
)

// Membership is the part of a Store that says who is in a conversation.
type Membership interface {
	// Open writes a conversation that is new, with its members, and returns the
	// items that tell of it. It joins the unit of work in ctx.
	Open(ctx context.Context, c Conversation, opener uuid.UUID) ([]Item, error)
	// ChangeMembers makes the change that decide wants, if any, of what it is
	// shown: the conversation with its members, which stay as they are until the
	// change is made. user is whom the change may concern. ErrNoConversation if
	// there is none; decide's errors come back.
	ChangeMembers(ctx context.Context, conversation, user uuid.UUID, decide func(Conversation) (*MemberChange, error)) ([]Item, error)
}

// MemberChange adds or removes a member.
type MemberChange struct {
	// ActorID is who wants it: the member itself, if it leaves.
	ActorID uuid.UUID
	Member  Member
	Removed bool
}

type conversationPayload struct {
	Event          string           `json:"event"`
	ConversationID uuid.UUID        `json:"conversation_id"`
	Kind           ConversationKind `json:"kind"`
	Title          string           `json:"title"`
	ActorID        uuid.UUID        `json:"actor_id"`
	UserID         uuid.UUID        `json:"user_id,omitzero"`
	Role           Role             `json:"role,omitempty"`
}

// OpenedItems are the items that tell every member of a conversation that opener
// has opened it.
func OpenedItems(c Conversation, opener uuid.UUID) ([]Item, error) {
	return items(KindConversation, c.memberIDs(), conversationPayload{
		Event: "opened", ConversationID: c.ID, Kind: c.Kind, Title: c.Title, ActorID: opener,
	})
}

// MemberItems are the items that tell every member of a conversation, as it was
// before, and whoever comes in, of a change.
func MemberItems(c Conversation, change MemberChange) ([]Item, error) {
	payload := conversationPayload{
		Event: "member_added", ConversationID: c.ID, Kind: c.Kind, Title: c.Title,
		ActorID: change.ActorID, UserID: change.Member.UserID, Role: change.Member.Role,
	}
	users := c.memberIDs()
	if change.Removed {
		payload.Event = "member_removed"
	} else {
		users = append(users, change.Member.UserID)
	}
	return items(KindConversation, users, payload)
}

func (c Conversation) memberIDs() []uuid.UUID {
	out := make([]uuid.UUID, 0, len(c.Members)+1)
	for _, m := range c.Members {
		out = append(out, m.UserID)
	}
	return out
}

// member returns nil if the user is none.
func (c Conversation) member(user uuid.UUID) *Member {
	for i := range c.Members {
		if c.Members[i].UserID == user {
			return &c.Members[i]
		}
	}
	return nil
}

func (s *Service) isAgent(user uuid.UUID) bool { return slices.Contains(s.agents, user) }

func (s *Service) roleOf(user uuid.UUID) Role {
	if s.isAgent(user) {
		return RoleSupport
	}
	return RoleUser
}

// OpenSupport opens a conversation between the user and the marketplace's
// support agents. It joins the unit of work in ctx; tell is to be called once
// that stands.
func (s *Service) OpenSupport(ctx context.Context, user uuid.UUID, subject string) (opened Conversation, tell func(), err error) {
	if len(s.agents) == 0 {
		return Conversation{}, nil, errNoSupport
	}
	subject = strings.TrimSpace(subject)
	if n := utf8.RuneCountInString(subject); n < 1 || n > maxSubject || !utf8.ValidString(subject) || strings.ContainsFunc(subject, unicode.IsControl) {
		return Conversation{}, nil, errSubject
	}
	if wait := s.openings.Take(user); wait > 0 {
		return Conversation{}, nil, ErrRateLimited.After(wait)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Conversation{}, nil, fmt.Errorf("make a conversation id: %w", err)
	}
	opened = Conversation{
		ID: id, Kind: ConversationSupport, Title: subject, CreatedAt: s.now().UTC().Truncate(time.Microsecond),
	}
	for _, agent := range s.agents {
		opened.Members = append(opened.Members, Member{UserID: agent, Role: RoleSupport})
	}
	if !s.isAgent(user) {
		opened.Members = append(opened.Members, Member{UserID: user, Role: RoleUser})
	}
	items, err := s.store.Open(ctx, opened, user)
	if err != nil {
		return Conversation{}, nil, err
	}
	return opened, func() { s.announcer.Announce(items) }, nil
}

// AddMember brings a user into a support conversation: an agent does, who is a
// member or joins. It has no effect on who is a member. Whether there is such a
// user is not known here.
func (s *Service) AddMember(ctx context.Context, actor, conversation, user uuid.UUID) (Conversation, error) {
	if user == uuid.Nil {
		return Conversation{}, errUserID
	}
	err := s.changeMembers(ctx, actor, conversation, user, func(c Conversation) (*MemberChange, error) {
		joins := actor == user && s.isAgent(actor) && c.Kind == ConversationSupport
		switch {
		case c.member(actor) == nil && !joins:
			return nil, ErrNoConversation
		case c.Kind != ConversationSupport:
			return nil, errMembersFixed
		case !s.isAgent(actor):
			return nil, errNotAgent
		case c.member(user) != nil:
			return nil, nil //nolint:nilnil // nothing is to change
		case len(c.Members) >= MaxMembers:
			return nil, errConversationFull
		}
		// What was written before is history to a newcomer, and not unread.
		return &MemberChange{ActorID: actor, Member: Member{UserID: user, Role: s.roleOf(user), ReadSeq: c.LastSeq}}, nil
	})
	if err != nil {
		return Conversation{}, err
	}
	return s.store.Conversation(ctx, conversation, actor)
}

// RemoveMember takes a user out of a support conversation: an agent who is a
// member does, or the user, who leaves. It has no effect on who is no member.
func (s *Service) RemoveMember(ctx context.Context, actor, conversation, user uuid.UUID) error {
	return s.changeMembers(ctx, actor, conversation, user, func(c Conversation) (*MemberChange, error) {
		member := c.member(user)
		switch {
		case c.member(actor) == nil:
			return nil, ErrNoConversation
		case c.Kind != ConversationSupport:
			return nil, errMembersFixed
		case actor != user && !s.isAgent(actor):
			return nil, errNotAgent
		case member == nil:
			return nil, nil //nolint:nilnil // nothing is to change
		}
		return &MemberChange{ActorID: actor, Member: *member, Removed: true}, nil
	})
}

func (s *Service) changeMembers(ctx context.Context, actor, conversation, user uuid.UUID, decide func(Conversation) (*MemberChange, error)) error {
	if err := s.allow(actor); err != nil {
		return err
	}
	items, err := s.store.ChangeMembers(ctx, conversation, user, decide)
	if err != nil {
		return err
	}
	s.announcer.Announce(items)
	return nil
}
