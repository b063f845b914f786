package presence

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// Status says whether a user is there. Greater ones win.
type Status uint8

// The statuses.
const (
	Offline Status = iota
	Away
	Online
)

var names = [...]string{Offline: "offline", Away: "away", Online: "online"}

var errStatus = errors.New("not a presence status")

// String returns the name on every wire.
func (s Status) String() string { return names[s] }

// MarshalText implements encoding.TextMarshaler.
func (s Status) MarshalText() ([]byte, error) { return []byte(names[s]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Status) UnmarshalText(text []byte) error {
	for status, name := range names {
		if name == string(text) {
			*s = Status(status)
			return nil
		}
	}
	return errStatus
}

// ParseAnnounced returns the status that a client announces; ok is false unless
// it is one that can be announced.
func ParseAnnounced(text string) (s Status, ok bool) {
	err := s.UnmarshalText([]byte(text))
	return s, err == nil && s != Offline
}

const (
	// Grace is how long a user without a place is not offline yet.
	Grace = 10 * time.Second
	// Interval is the least time between two changes told of a user, and
	// between two answers to who is there.
	Interval = 3 * time.Second
	// MaxAudience bounds those who are told of one user.
	MaxAudience = 1000
	// MaxConversations bounds the conversations that they are found in, newest
	// first.
	MaxConversations = 100
)

const (
	// awayHold is how long other processes have to say that they hold more.
	awayHold = time.Second
	// comeHold is how long they have to say what is known already, so that a
	// client which moves makes no noise.
	comeHold = 500 * time.Millisecond
	// retry is when to try again what the store could not say.
	retry = 5 * time.Second
	// tick is how often what is due is done, for at most perTick users and
	// maxSignals receivers. What is due beyond waits, and may be over by then.
	tick       = 250 * time.Millisecond
	perTick    = 200
	maxSignals = 20_000
	// maxLeft bounds the users who are not offline yet. Those beyond are
	// forgotten at once.
	maxLeft = 10_000
	// lookTimeout bounds one look for audiences.
	lookTimeout = 5 * time.Second
)

// Store is what presence reads.
type Store interface {
	// Audiences returns, for each user, those who are told of them: who shares a
	// conversation with them. It is symmetric, but for its bounds.
	Audiences(ctx context.Context, users []uuid.UUID) (map[uuid.UUID][]uuid.UUID, error)
}

// Announcer carries signals to connected users; see messaging.Announcer.
type Announcer interface {
	Signal(users []uuid.UUID, signal messaging.Signal)
}

type payload struct {
	UserID uuid.UUID `json:"user_id"`
	Status Status    `json:"status"`
}

func signalOf(user uuid.UUID, status Status) messaging.Signal {
	encoded, err := json.Marshal(payload{user, status})
	if err != nil {
		encoded = []byte(`{}`) // ids and constants always encode
	}
	return messaging.Signal{Kind: messaging.KindPresence, Payload: encoded}
}
