package store

import (
	"bytes"
	"context"
	_ "embed" // lockSQL, writeSQL
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
)

//go:embed lock.sql
var lockSQL string

//go:embed write.sql
var writeSQL string

// Write writes a batch of drafts in one transaction. Drafts that must be
// refused get a fault of their own in their outcome, and don't hinder the
// others. The items are the members' news; those of one message share their
// payload.
//
// An error means that nothing is known to be written. It is of kind
// Unavailable where a later try may do, even if the commit itself may have
// happened: the drafts' ClientIDs make the next try find what is there. Any
// other error is a draft's own fault, which smaller batches will find.
func (s *Store) Write(ctx context.Context, drafts []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
	b := newBatch(drafts, s.now().UTC().Truncate(time.Microsecond))
	if err := b.write(ctx, s.pool); err != nil {
		return nil, nil, classifyWrite(err)
	}
	for _, i := range b.answerRepeats() {
		outcomes, _, err := s.Write(ctx, drafts[i:i+1]) // finds what is there, and writes nothing
		if err != nil {
			b.outcomes[i] = commit.Outcome{Err: err}
			continue
		}
		b.outcomes[i] = outcomes[0]
	}
	return b.outcomes, b.items, nil
}

// classifyWrite is postgres.Classify, except that everything which is no
// answer of the database, such as a connection that broke during the commit,
// is temporary too.
func classifyWrite(err error) error {
	err = postgres.Classify(err)
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return fmt.Errorf("write messages: %w", err)
	}
	var answer *pgconn.PgError
	switch {
	case !errors.As(err, &answer):
		return fmt.Errorf("write messages: %w", fault.New(fault.Unavailable, "database_unavailable",
			"The service can't reach its data right now. Try again in a moment.").After(time.Second).Because(err))
	case answer.Code[:2] == "22": // data exception: a value in a body
		return messaging.ErrBodyRefused.Because(err)
	default:
		return fmt.Errorf("write messages: %w", err)
	}
}

// key is what makes a message the same message.
type key struct{ conversation, sender, client uuid.UUID }

func keyOf(d messaging.Draft) key { return key{d.ConversationID, d.SenderID, d.ClientID} }

// batch is one group commit at work.
type batch struct {
	drafts   []messaging.Draft
	sentAt   time.Time
	outcomes []commit.Outcome
	items    []messaging.Item

	// unique are the indexes of the drafts that go to the database: of those
	// with one key, the first.
	unique []int
	// repeats says which draft one repeats.
	repeats map[int]int
}

func newBatch(drafts []messaging.Draft, sentAt time.Time) *batch {
	b := &batch{
		drafts: drafts, sentAt: sentAt, outcomes: make([]commit.Outcome, len(drafts)),
		unique: make([]int, 0, len(drafts)), repeats: map[int]int{},
	}
	first := make(map[key]int, len(drafts))
	for i, d := range drafts {
		if j, ok := first[keyOf(d)]; ok {
			b.repeats[i] = j
			continue
		}
		first[keyOf(d)] = i
		b.unique = append(b.unique, i)
		b.outcomes[i].Err = messaging.ErrNoConversation // unless the database knows better
	}
	return b
}

// write sends both statements at once and waits for one answer: that is what a
// commit costs in time, and the server is not woken between them. They are one
// transaction, since nothing else is in the pipeline (PostgreSQL's manual,
// section 34.5.1.1).
func (b *batch) write(ctx context.Context, pool *pgxpool.Pool) error {
	n := len(b.unique)
	conversations, senders, clients := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
	ids, bodies := make([]uuid.UUID, n), make([]string, n)
	for place, i := range b.unique {
		d := b.drafts[i]
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("make a message id: %w", err)
		}
		conversations[place], senders[place], clients[place] = d.ConversationID, d.SenderID, d.ClientID
		ids[place], bodies[place] = id, string(d.Body)
	}
	var statements pgx.Batch
	statements.Queue(lockSQL, conversations)
	statements.Queue(writeSQL, conversations, senders, clients, ids, bodies, b.sentAt).Query(func(rows pgx.Rows) error {
		return b.read(rows, ids)
	})
	return pool.SendBatch(ctx, &statements).Close()
}

// read takes what write.sql returns.
func (b *batch) read(rows pgx.Rows, ids []uuid.UUID) error {
	payloads, items := make([]json.RawMessage, len(ids)), make([][]messaging.Item, len(ids))
	for rows.Next() {
		var (
			place, seq    int64
			refused, same pgtype.Bool
			earlier, user pgtype.UUID
			sentAt        pgtype.Timestamptz
			body          []byte
			offset        pgtype.Int8
		)
		if err := rows.Scan(&place, &refused, &earlier, &seq, &sentAt, &same, &body, &user, &offset); err != nil {
			return err
		}
		place--
		i := b.unique[place]
		switch {
		case user.Valid:
			items[place] = append(items[place], messaging.Item{UserID: user.Bytes, Offset: offset.Int64, Kind: messaging.KindMessage})
		case refused.Bool:
			b.outcomes[i] = commit.Outcome{Err: messaging.ErrConversationBlocked}
		case !earlier.Valid:
			d := b.drafts[i]
			b.outcomes[i] = commit.Outcome{Sent: messaging.Sent{ID: ids[place], Seq: seq, SentAt: b.sentAt}}
			payloads[place] = messaging.MessagePayload(messaging.Message{
				ConversationID: d.ConversationID, Seq: seq, ID: ids[place], ClientID: d.ClientID,
				SenderID: d.SenderID, Body: body, SentAt: b.sentAt,
			})
		case same.Bool:
			b.outcomes[i] = commit.Outcome{Sent: messaging.Sent{ID: earlier.Bytes, Seq: seq, SentAt: sentAt.Time, Duplicate: true}}
		default:
			b.outcomes[i] = commit.Outcome{Err: messaging.ErrClientIDReused}
		}
	}
	// Message by message: what shares a payload is sent on together.
	for place, news := range items {
		for _, item := range news {
			item.Payload = payloads[place]
			b.items = append(b.items, item)
		}
	}
	return rows.Err()
}

// answerRepeats answers the drafts that repeat another one of the batch, and
// returns the indexes of those which only the database can answer: what is
// written otherwise may be the same JSON.
func (b *batch) answerRepeats() (open []int) {
	for i, j := range b.repeats {
		first := b.outcomes[j]
		switch {
		case bytes.Equal(b.drafts[i].Body, b.drafts[j].Body),
			errors.Is(first.Err, messaging.ErrNoConversation), errors.Is(first.Err, messaging.ErrConversationBlocked):
			b.outcomes[i] = first
			b.outcomes[i].Sent.Duplicate = first.Err == nil
		default:
			open = append(open, i)
		}
	}
	return open
}
