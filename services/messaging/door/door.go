// Package door is what the doors to messaging have in common, whatever the
// protocol of the connections that they hold: who may come in, what a client can
// ask for and how that is read, the bounds on it, and how it is answered. So
// nothing can be done through one door that another refuses.
package door

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/presence"
)

const (
	// CommandTimeout bounds one command. It is above what a commit may take.
	CommandTimeout = 10 * time.Second
	// MaxSends is how many sends of one connection may wait for their commit before
	// nothing further is read.
	MaxSends = 64
	// typingInterval is how often a client's typing in one conversation is told.
	typingInterval = 2 * time.Second
)

// Sessions verifies tokens, and knows which sessions have ended.
type Sessions interface {
	web.Verifier
	IsRevoked(session uuid.UUID) bool
}

// ErrSessionEnded refuses whose session has ended.
var ErrSessionEnded = fault.New(fault.Unauthenticated, "session_ended", "The session has ended. Log in again.")

// Options configure a Door. Zero values mean the defaults.
type Options struct {
	// Protocol names the door in metrics and logs.
	Protocol string
	// Rate is how many commands a connection may send: 20 a second, 60 at once.
	Rate messaging.Rate
	// Presence tells of those who announce themselves. Without it there is no
	// such op.
	Presence *presence.Tracker
	// Metrics are all doors', and must be there.
	Metrics *Metrics
}

// Door executes the commands of connections that speak one protocol.
type Door struct {
	service *messaging.Service
	options Options
	log     *slog.Logger
	metrics counters
	now     func() time.Time
}

// New makes a door.
func New(service *messaging.Service, options Options, log *slog.Logger) *Door {
	if options.Rate == (messaging.Rate{}) {
		options.Rate = messaging.Rate{PerSecond: 20, Burst: 60}
	}
	return &Door{
		service: service, options: options, log: log.With("protocol", options.Protocol),
		metrics: options.Metrics.of(options.Protocol), now: time.Now,
	}
}

// Allowance is how many commands a connection may still send. The zero Allowance is a
// new connection's.
type Allowance struct{ bucket messaging.Bucket }

// Guest is a client's state between its commands, which are executed one after the
// other. The zero Guest is a new client's.
type Guest struct {
	typedIn uuid.UUID // where typing was last told of, and when
	typedAt time.Time
	place   *presence.Place // nil before the first announcement
}

// Leave takes back what the client has announced: its user has left.
func (g *Guest) Leave() {
	if g.place != nil {
		g.place.Leave()
		g.place = nil
	}
}

// Take counts a command that was read at a time. It is an error if that was one
// too many.
func (d *Door) Take(a *Allowance, read time.Time) error {
	if wait := a.bucket.Take(d.options.Rate, read); wait > 0 {
		return messaging.ErrRateLimited.After(wait)
	}
	return nil
}

// Send has a message written. It returns at once; answer is called once, when it
// is written or refused, on any goroutine, and must not block. The commands that
// succeed are counted; Refused counts the others.
func (d *Door) Send(user uuid.UUID, cmd Command, read time.Time, answer func(messaging.Sent, error)) {
	d.service.Enqueue(messaging.Draft{
		ConversationID: cmd.Conversation, SenderID: user, ClientID: cmd.ClientID, Body: cmd.Body,
	}, func(sent messaging.Sent, err error) {
		answer(sent, err)
		if err == nil {
			d.Succeeded(OpSend)
			d.metrics.ack.Observe(d.now().Sub(read).Seconds())
		}
	})
}

// Perform executes a command that waits for others than the client: what is
// neither a send nor the protocol's own. What it returns is the answer's fields.
func (d *Door) Perform(ctx context.Context, g *Guest, user uuid.UUID, cmd Command) (answer any, err error) {
	switch cmd.Op {
	case OpRead:
		err = d.service.Read(ctx, user, cmd.Conversation, cmd.Seq)
	case OpTyping:
		err = d.typing(ctx, g, user, cmd)
	case OpPresence:
		err = d.announce(g, user, cmd)
	case OpHistory:
		return d.history(ctx, user, cmd)
	default:
		err = errUnknownOp
	}
	return Done{}, err
}

// Done is the answer to what has none.
type Done struct{}

func (d *Door) typing(ctx context.Context, g *Guest, user uuid.UUID, cmd Command) error {
	now := d.now()
	if g.typedIn == cmd.Conversation && now.Sub(g.typedAt) < typingInterval {
		return nil
	}
	if err := d.service.Typing(ctx, user, cmd.Conversation); err != nil {
		return err // nothing was told: the next one is not held back, and gets the same answer
	}
	g.typedIn, g.typedAt = cmd.Conversation, now
	return nil
}

// announce says whether the user is there, on this connection.
func (d *Door) announce(g *Guest, user uuid.UUID, cmd Command) error {
	if d.options.Presence == nil {
		return errUnknownOp
	}
	if g.place == nil {
		g.place = d.options.Presence.Join(user)
	}
	g.place.Announce(cmd.Status)
	return nil
}

// Page is a part of a conversation's history, newest first.
type Page struct {
	Messages []json.RawMessage `json:"messages"`
	// NextBefore is the before of the next part; absent in the last one.
	NextBefore int64 `json:"next_before,omitempty"`
}

// historyBytes bounds a page of history, unless one message is larger: it must
// leave room for what else waits for the client.
const historyBytes = 64 << 10

func (d *Door) history(ctx context.Context, user uuid.UUID, cmd Command) (any, error) {
	found, err := d.service.History(ctx, user, cmd.Conversation, messaging.HistoryQuery{Before: cmd.Before, Limit: cmd.Limit})
	if err != nil {
		return nil, err
	}
	p := Page{Messages: make([]json.RawMessage, 0, len(found.Messages)), NextBefore: found.NextBefore}
	size := 0
	for i, m := range found.Messages {
		message := messaging.MessagePayload(m)
		if size += len(message); size > historyBytes && i > 0 {
			p.NextBefore = found.Messages[i-1].Seq
			break
		}
		p.Messages = append(p.Messages, message)
	}
	return p, nil
}

// Problem is a refusal on the wire.
type Problem struct {
	Code      string `json:"code"`
	Message   string `json:"message"`
	Pointer   string `json:"pointer,omitempty"`
	Temporary bool   `json:"temporary"`
	RetryMS   int64  `json:"retry_ms,omitempty"`
}

// ProblemOf is a fault's.
func ProblemOf(f *fault.Error) *Problem {
	return &Problem{
		Code: f.Code, Message: f.Message, Pointer: f.Pointer,
		Temporary: f.Kind == fault.Unavailable || f.Kind == fault.TooMany,
		RetryMS:   (f.RetryAfter + time.Millisecond - 1).Milliseconds(),
	}
}

// Succeeded counts a command that was executed.
func (d *Door) Succeeded(op string) { d.metrics.succeeded[op].Inc() }

// Refused counts a command that was not, logs it if somebody has to look after
// it, and says what its client is told. user is uuid.Nil for one who is not known.
func (d *Door) Refused(op string, user uuid.UUID, err error) *Problem {
	f := fault.From(err)
	switch f.Kind {
	case fault.Internal:
		d.log.Error("command failed", "op", op, "user", user, "error", err)
	case fault.Unavailable:
		// The metric counts them. While the database is away, that is every
		// command of every client.
		d.log.Debug("command refused for now", "op", op, "error", err)
	default:
	}
	if _, known := fields[op]; !known {
		op = "unknown" // what clients make up must not become a label value
	}
	d.metrics.refused.WithLabelValues(op, f.Code).Inc()
	return ProblemOf(f)
}
