package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/marketplane/marketplane/services/events"
)

// Interest tells which users have a connection somewhere, by whether any process
// listens to what is new for them.
//
// A request to a user's subject is answered by the bus itself, with "no
// responders", where nobody listens. Where somebody does, nobody answers: pods
// of every release take what is asked for news in which there is nothing. The
// bus handles a connection's messages in their order; so once it answered the
// ping that follows the requests, every user for whom there was no such answer is
// connected. Nothing waits for a time to pass. A user who can't be is asked for,
// too: if the bus does not say so, it does not tell anything, and who believed it
// would keep silent.
type Interest struct {
	conn     *nats.Conn
	subjects events.Subjects
}

// NewInterest uses a connection that others use too, as long as it hears its own
// messages: without that, what this process listens to would not count.
func NewInterest(conn *nats.Conn, subjects events.Subjects) *Interest {
	return &Interest{conn: conn, subjects: subjects}
}

// noResponders is the status in the header of the bus's own answer.
const noResponders = "503"

var errNotTold = errors.New("ask who is connected: the bus does not tell who listens")

// noNews is a message in which there is nothing.
var noNews = []byte(`{}`)

// Absent implements notify.Reach. ctx must have a deadline.
func (i *Interest) Absent(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]bool, error) {
	if !i.conn.IsConnected() {
		return nil, fmt.Errorf("ask who is connected: %w", nats.ErrDisconnected)
	}
	asked := append(slices.Clone(users), uuid.New())
	answers := make(chan *nats.Msg, len(asked))
	inbox := i.subjects.Inbox(uuid.New())
	subscription, err := i.conn.ChanSubscribe(inbox+".*", answers)
	if err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	defer func() { _ = subscription.Unsubscribe() }() // the connection is closed if this fails
	for n, user := range asked {
		request := &nats.Msg{Subject: i.subjects.User(user), Reply: inbox + "." + strconv.Itoa(n), Data: noNews}
		if err := i.conn.PublishMsg(request); err != nil {
			return nil, fmt.Errorf("ask who is connected: %w", err)
		}
	}
	if err := i.conn.FlushWithContext(ctx); err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	absent := make(map[uuid.UUID]bool, len(asked))
	for len(answers) > 0 { // all are here: see above
		m := <-answers
		n, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err == nil && n >= 0 && n < len(asked) && len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
			absent[asked[n]] = true
		}
	}
	if !absent[asked[len(users)]] {
		return nil, errNotTold
	}
	return absent, nil
}
