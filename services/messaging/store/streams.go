package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/store/internal/db"
)

// Heads returns the newest offsets of many users at once. Users without a
// stream are not in it.
func (s *Store) Heads(ctx context.Context, users []uuid.UUID) (map[uuid.UUID]int64, error) {
	rows, err := s.queries.StreamHeads(ctx, users)
	if err != nil {
		return nil, failed("read stream heads", err)
	}
	out := make(map[uuid.UUID]int64, len(rows))
	for _, row := range rows {
		out[row.UserID] = row.Head
	}
	return out, nil
}

// Resume returns, for each of the places, where its user's stream is, and the
// first page of what follows the place: at most limit items, none where the
// stream does not keep them all. A user without a stream is at 0. All of it is
// one look at the database.
func (s *Store) Resume(ctx context.Context, places []messaging.Place, limit int) ([]messaging.Resumption, error) {
	find := db.ResumeStreamsParams{MaxItems: int32(limit)} //nolint:gosec // G115: pages are small
	for i, place := range places {
		find.Places = append(find.Places, int32(i))
		find.UserIds = append(find.UserIds, place.UserID)
		find.Afters = append(find.Afters, place.Offset)
	}
	rows, err := s.queries.ResumeStreams(ctx, find)
	if err != nil {
		return nil, failed("resume streams", err)
	}
	out := make([]messaging.Resumption, len(places))
	for _, row := range rows {
		r := &out[row.Place]
		r.Position = messaging.Position{Head: row.Head, Tail: row.Tail}
		if row.Offset == 0 {
			continue // nothing follows
		}
		item, ok := itemOf(places[row.Place].UserID, entry{
			row.Offset, row.Kind, row.Payload, row.ConversationID, row.Seq, row.ID, row.ClientID, row.SenderID, row.Body, row.SentAt,
		})
		if ok { // what is not there is a gap, which the reader finds
			r.Items = append(r.Items, item)
		}
	}
	return out, nil
}

// ItemsAfter returns what follows offset in a user's stream, in order, at most
// limit items.
func (s *Store) ItemsAfter(ctx context.Context, user uuid.UUID, offset int64, limit int) ([]messaging.Item, error) {
	rows, err := s.queries.EntriesAfter(ctx, db.EntriesAfterParams{UserID: user, After: offset, MaxItems: int32(limit)}) //nolint:gosec // G115: pages are small
	if err != nil {
		return nil, failed("read the stream of "+user.String(), err)
	}
	out := make([]messaging.Item, 0, len(rows))
	for _, row := range rows {
		if item, ok := itemOf(user, entry(row)); ok {
			out = append(out, item)
		}
	}
	return out, nil
}

// entry is a stream entry, with the message that it refers to.
type entry db.EntriesAfterRow

// itemOf returns the item as it was delivered when it was new; ok is false if
// the message that it refers to is not there.
func itemOf(user uuid.UUID, e entry) (_ messaging.Item, ok bool) {
	item := messaging.Item{UserID: user, Offset: e.Offset, Kind: messaging.Kind(e.Kind), Payload: e.Payload}
	if e.Payload != nil {
		return item, true
	}
	if e.ConversationID == nil || e.Seq == nil || e.ID == nil || e.ClientID == nil || e.SenderID == nil || e.SentAt == nil {
		return messaging.Item{}, false
	}
	item.Payload = messaging.MessagePayload(messaging.Message{
		ConversationID: *e.ConversationID, Seq: *e.Seq, ID: *e.ID, ClientID: *e.ClientID,
		SenderID: *e.SenderID, Body: json.RawMessage(e.Body), SentAt: *e.SentAt,
	})
	return item, true
}

// daysAhead is for how many days there are tables before they begin.
const daysAhead = 3

// expireBatch is how many streams are locked at a time to raise their tails.
const expireBatch = 500

// Expire drops stream items that are older than before, in whole days, and
// makes room for those of the next days. Cursors from before what is kept can't
// be recovered from then. It says how many tables it dropped or emptied.
//
// Tails are raised first, a few streams in a transaction: so nobody sees a
// stream that lacks items which its tail promises, and no writer waits long.
// What is too old is not written to any more, so that one pass sees all of it.
func (s *Store) Expire(ctx context.Context, before time.Time) (dropped int, err error) {
	keepFrom := before.UTC().Truncate(24 * time.Hour)
	if err := s.raiseTails(ctx, keepFrom); err != nil {
		return 0, failed("raise the tails of streams", err)
	}
	n, err := s.queries.RollStreamDays(ctx, db.RollStreamDaysParams{KeepFrom: keepFrom, Ahead: daysAhead})
	if err != nil {
		return 0, failed("drop old stream items", err)
	}
	return int(n), nil
}

// raiseTails raises the tails of all streams that have something too old, page by
// page.
func (s *Store) raiseTails(ctx context.Context, keepFrom time.Time) error {
	for from := uuid.Nil; ; {
		rows, err := s.queries.ExpiredPlaces(ctx, db.ExpiredPlacesParams{KeepFrom: keepFrom, FromUser: from, MaxUsers: expireBatch})
		if err != nil || len(rows) == 0 {
			return err
		}
		var raise db.RaiseTailsParams
		for _, row := range rows {
			raise.UserIds, raise.Tails = append(raise.UserIds, row.UserID), append(raise.Tails, row.Tail)
		}
		err = postgres.InTx(ctx, s.pool, func(tx pgx.Tx) error {
			q := s.queries.WithTx(tx)
			if err := q.LockStreams(ctx, raise.UserIds); err != nil {
				return err
			}
			return q.RaiseTails(ctx, raise)
		})
		if err != nil || len(rows) < expireBatch {
			return err
		}
		from = rows[len(rows)-1].UserID
	}
}
