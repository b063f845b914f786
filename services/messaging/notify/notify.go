package notify

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
)

const (
	// soonLag is how old a message is at the first look: more than a commit may
	// take, with the clocks of the processes a few seconds apart.
	soonLag = 15 * time.Second
	// lateLag is how old it is at the second: as much more as it takes to notice
	// that a connection is dead.
	lateLag = soonLag + time.Minute
	// maxAge is how old it may be to be worth a notification.
	maxAge = 72 * time.Hour

	// lease is how long a process holds the work after each of its writes, and
	// margin how long before the end it stops to send.
	lease, margin = 30 * time.Second, 5 * time.Second
	// poll is how often the holder looks for messages, and idle how often the
	// others look whether there is a holder.
	poll, idle = time.Second, 5 * time.Second
	// persist is how often the place is written when there was nothing to do.
	persist = 10 * time.Second

	// maxMessages bounds what one step looks at, minWindow and maxWindow the time
	// that it covers.
	maxMessages          = 200
	minWindow, maxWindow = 10 * time.Millisecond, time.Hour
	// perCheck is for how many members it is asked at once whether they are
	// connected, and perRecord how many are notified between two writes, by
	// parallel requests at a time: what is sent twice after a kill.
	perCheck, perRecord, parallel = 128, 16, 8
	// sendTimeout bounds one request. perRecord of them take less than the lease.
	sendTimeout = 10 * time.Second
	// checkTimeout bounds the question who is connected.
	checkTimeout = 5 * time.Second
	// finishTimeout is what requests under way may still take when the process
	// stops.
	finishTimeout = 3 * time.Second

	// neverTries is how often a notification is sent that is refused for good, and
	// unclearTries how often one at least that may be what the back end can't bear,
	// with others taken before aloneTries of them.
	neverTries, unclearTries, aloneTries = 3, 8, 3
	// maxAside bounds those that are refused and wait, while others are sent, for
	// another try; maxUnclear those among them that may not be to blame: where so
	// many are refused, it is the back end that takes nothing.
	maxAside, maxUnclear = 256, 16
	// minBackoff and maxBackoff bound the wait after a failure.
	minBackoff, maxBackoff = time.Second, time.Minute
	// MaxUnread bounds the count of unread messages.
	MaxUnread = 1000
)

// Notification says that a user has messages to read, and is not connected.
type Notification struct {
	UserID         uuid.UUID
	ConversationID uuid.UUID
	// Seq, MessageID, From and SentAt are the newest message's. From is nil for
	// the system's own.
	Seq       int64
	MessageID uuid.UUID
	From      uuid.UUID
	SentAt    time.Time
	// Unread counts the messages of others that the user has not read, up to
	// MaxUnread.
	Unread int
}

// ID is the same whenever the same is sent again.
func (n Notification) ID() string {
	return "msg_" + hex.EncodeToString(n.ConversationID[:]) + "_" + hex.EncodeToString(n.UserID[:]) + "_" + strconv.FormatInt(n.Seq, 10)
}

// Sender brings a notification to the back end, and returns when it is taken.
// An error means that it may or may not be; see RefusalError.
type Sender interface {
	Send(ctx context.Context, n Notification) error
}

// RefusalError is a Sender's error where the back end answered.
type RefusalError struct {
	Status  int // of HTTP
	Verdict Verdict
	// RetryAfter is when to come back, if it said so.
	RetryAfter time.Duration
}

// Verdict is what a refusal means for the notification.
type Verdict int

// The verdicts.
const (
	// NotNow is about the back end: it takes nothing at the moment.
	NotNow Verdict = iota
	// Unclear is about the back end, or about this notification alone.
	Unclear
	// Never says that the same will not be taken later either.
	Never
)

func (r *RefusalError) Error() string { return fmt.Sprintf("answered with status %d", r.Status) }

// Reach tells who has a live connection.
type Reach interface {
	// Absent returns those of the users who have none.
	Absent(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]bool, error)
}

// Look is one of the two at a message.
type Look int

// The looks.
const (
	Soon Look = iota
	Late
)

// Place is one in the order of messages: after the message with this seq, or,
// with none, before all that were sent at this time.
type Place struct {
	At           time.Time
	Conversation uuid.UUID
	Seq          int64
}

// State is what the store knows of the work.
type State struct {
	Holder uuid.UUID
	// Held says that the holder's lease has not run out.
	Held bool
	// Now is the store's time.
	Now time.Time
	// Places are by Look.
	Places [2]Place
}

// Message is one to notify of.
type Message struct {
	ConversationID uuid.UUID
	Seq            int64
	ID             uuid.UUID
	SenderID       uuid.UUID // nil for the system's own
	SentAt         time.Time
}

// Member is a conversation's.
type Member struct {
	ConversationID uuid.UUID
	UserID         uuid.UUID
	// KnownSeq is up to where they have read or were notified.
	KnownSeq int64
}

// ErrLost says that another process holds the work.
var ErrLost = errors.New("another process notifies now")

// Store keeps the work's state, and what it is about.
type Store interface {
	// State returns what is known; the work begins shortly before the present.
	State(ctx context.Context) (State, error)
	// Hold makes the process the holder for the lease from now on, unless another
	// one is: ErrLost.
	Hold(ctx context.Context, holder uuid.UUID, lease time.Duration) error
	// Record writes who was notified, as the holder, and prolongs the lease.
	Record(ctx context.Context, holder uuid.UUID, lease time.Duration, sent []Notification) error
	// Move writes the place, as the holder, and prolongs the lease.
	Move(ctx context.Context, holder uuid.UUID, lease time.Duration, look Look, to Place) error
	// Release ends the holder's lease.
	Release(ctx context.Context, holder uuid.UUID) error

	// Messages returns those that follow the place and were sent before until, in
	// order.
	Messages(ctx context.Context, after Place, until time.Time, limit int) ([]Message, error)
	// Members returns the members of conversations.
	Members(ctx context.Context, conversations []uuid.UUID) ([]Member, error)
	// CountUnread sets Unread.
	CountUnread(ctx context.Context, of []Notification) error
}
