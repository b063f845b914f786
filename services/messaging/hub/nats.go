package hub

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/messaging"
)

const (
	// busBuffer is how many messages may wait for dispatch. What does not fit is
	// dropped, noticed, and read from the store.
	busBuffer = 4096
	// maxBusMessage is above every single item, and far below the bus's limit.
	maxBusMessage = 256 << 10
)

// NATS is a Bus on core NATS: one channel for all of a process's users, since
// a callback for each would cost a goroutine for each.
type NATS struct {
	conn     *nats.Conn
	subjects events.Subjects
	messages chan *nats.Msg
	log      *slog.Logger
}

// NewNATS uses a connection that others use too.
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

// Publish implements Bus.
func (b *NATS) Publish(user uuid.UUID, data []byte) error {
	return b.conn.Publish(b.subjects.User(user), data)
}

// Messages implements Bus.
func (b *NATS) Messages() <-chan *nats.Msg { return b.messages }

// Connected implements Bus.
func (b *NATS) Connected() bool { return b.conn.IsConnected() }

// userOf returns the user whose subject it is: the last token.
func userOf(subject string) (uuid.UUID, error) {
	return uuid.Parse(subject[strings.LastIndexByte(subject, '.')+1:])
}

// news is what one bus message holds: items, a head, or a signal.
type news struct {
	Items []busItem `json:"items,omitempty"`
	// Head says up to which offset items exist; readers find them in the store.
	Head   int64             `json:"head,omitempty"`
	Typing *messaging.Typing `json:"typing,omitempty"`
}

type busItem struct {
	Offset  int64           `json:"offset"`
	Kind    messaging.Kind  `json:"kind"`
	Payload json.RawMessage `json:"payload"`
}

// encodeItems encodes one user's items into as many messages as it takes.
func encodeItems(items []messaging.Item) ([][]byte, error) {
	var out [][]byte
	for len(items) > 0 {
		var n news
		size := 0
		for len(items) > 0 && (size == 0 || size+len(items[0].Payload) <= maxBusMessage) {
			n.Items = append(n.Items, busItem{items[0].Offset, items[0].Kind, items[0].Payload})
			size += len(items[0].Payload)
			items = items[1:]
		}
		data, err := messaging.EncodeJSON(n)
		if err != nil {
			return nil, fmt.Errorf("encode items for the bus: %w", err)
		}
		out = append(out, data)
	}
	return out, nil
}

// decodeNews returns the items, and what else there is.
func decodeNews(user uuid.UUID, data []byte) ([]messaging.Item, news, error) {
	var n news
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, news{}, fmt.Errorf("decode news of the bus: %w", err)
	}
	items := make([]messaging.Item, 0, len(n.Items))
	for _, i := range n.Items {
		if len(i.Payload) == 0 || i.Payload[0] != '{' {
			return nil, news{}, fmt.Errorf("decode news of the bus: item %d has no object for a payload", i.Offset)
		}
		items = append(items, messaging.Item{UserID: user, Offset: i.Offset, Kind: i.Kind, Payload: i.Payload})
	}
	return items, n, nil
}
