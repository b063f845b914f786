package presence

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
)

// busBuffer is how many notes may wait. What does not fit is dropped.
const busBuffer = 256

// NATS is a Peers on core NATS.
type NATS struct {
	conn     *nats.Conn
	subject  string
	messages chan *nats.Msg
}

// NewNATS uses a connection that others use too. It listens until the
// connection is closed.
func NewNATS(conn *nats.Conn, subjects events.Subjects) (*NATS, error) {
	n := &NATS{conn: conn, subject: subjects.Presence(), messages: make(chan *nats.Msg, busBuffer)}
	if _, err := conn.ChanSubscribe(n.subject, n.messages); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", n.subject, err)
	}
	return n, nil
}

// Publish implements Peers.
func (n *NATS) Publish(data []byte) error { return n.conn.Publish(n.subject, data) }

// Messages implements Peers.
func (n *NATS) Messages() <-chan *nats.Msg { return n.messages }
