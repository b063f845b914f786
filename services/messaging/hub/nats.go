package hub

import (
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
)

// busBuffer is how many messages may wait for dispatch. What does not fit is
// dropped, noticed, and read from the store.
const busBuffer = 4096

// manySuffix ends the subject of what is for many; no user id ends like it.
const manySuffix = ".many"

// NATS is a Bus on core NATS: one channel for all of a process's users, since
// a callback for each would cost a goroutine for each.
type NATS struct {
	conn     *nats.Conn
	subjects events.Subjects
	messages chan *nats.Msg
	log      *slog.Logger
}

// NewNATS uses a connection that does not echo: what a process publishes, its
// own connections have already.
func NewNATS(conn *nats.Conn, subjects events.Subjects, log *slog.Logger) *NATS {
	return &NATS{conn: conn, subjects: subjects, messages: make(chan *nats.Msg, busBuffer), log: log}
}

// Subscribe implements Bus.
func (b *NATS) Subscribe(user uuid.UUID) (cancel func(), err error) {
	subscription, err := b.conn.ChanSubscribe(b.subjects.User(user), b.messages)
	if err != nil {
		return nil, fmt.Errorf("subscribe to user %s: %w", user, err)
	}
	return func() {
		if err := subscription.Unsubscribe(); err != nil {
			b.log.Debug("not unsubscribed", "user", user, "error", err) // the connection is closed
		}
	}, nil
}

// SubscribeMany implements Bus.
func (b *NATS) SubscribeMany() error {
	if _, err := b.conn.ChanSubscribe(b.subjects.Many(), b.messages); err != nil {
		return fmt.Errorf("subscribe to %s: %w", b.subjects.Many(), err)
	}
	return nil
}

// Publish implements Bus.
func (b *NATS) Publish(user uuid.UUID, data []byte) error {
	return b.conn.Publish(b.subjects.User(user), data)
}

// PublishMany implements Bus.
func (b *NATS) PublishMany(data []byte) error {
	return b.conn.Publish(b.subjects.Many(), data)
}

// Messages implements Bus.
func (b *NATS) Messages() <-chan *nats.Msg { return b.messages }

// Connected implements Bus.
func (b *NATS) Connected() bool { return b.conn.IsConnected() }
