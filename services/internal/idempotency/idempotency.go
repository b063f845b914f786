// Package idempotency makes requests that create something safe to repeat: the
// answer to a request with a key (Idempotency-Key, IETF httpapi working group)
// is kept in the transaction of its effect, so that neither exists without the
// other, and is given again to whoever asks again. Only successes are kept. It
// works on a table that each service has in its own schema (idempotency_keys),
// and knows nothing of what the requests do.
package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/postgres"
)

// Retention is how long an answer is kept.
const Retention = 24 * time.Hour

// MaxKey is how many characters a key may have.
const MaxKey = 255

// What a request with a key can be refused for, beside its own reasons.
var (
	ErrKeyMissing = fault.New(fault.Malformed, "idempotency_key_missing",
		"Send a header Idempotency-Key with a value of your own, such as a UUID; repeat it when you repeat the request.")
	ErrKeyInvalid = fault.New(fault.Malformed, "idempotency_key_invalid",
		"The Idempotency-Key must have at most 255 visible ASCII characters.")
	ErrKeyReused = fault.New(fault.Invalid, "idempotency_key_reused",
		"This Idempotency-Key was used for another request. Use a new one for each.")
	ErrInFlight = fault.New(fault.Conflict, "request_in_flight",
		"The first request with this Idempotency-Key is still at work. Repeat it in a moment.").After(time.Second)
)

// Request is one that may come again.
type Request struct {
	// Principal is who asks: keys of different users never meet.
	Principal uuid.UUID
	// Route names the operation: keys of different operations never meet.
	Route string
	// Key is the client's, as it was sent.
	Key string
	// Input is all that was asked for, path parameters among it, decoded: its
	// JSON is compared, so white space and the order of members do not matter.
	Input any
}

// Answer is what a request got.
type Answer[T any] struct {
	// Status is the HTTP status.
	Status int
	Body   T
	// Replayed says that the effect was there before.
	Replayed bool
}

// Keeper keeps answers.
type Keeper struct {
	transactor *postgres.Transactor
	now        func() time.Time
}

// NewKeeper keeps answers in the database of the transactor, under a clock.
func NewKeeper(transactor *postgres.Transactor, now func() time.Time) *Keeper {
	return &Keeper{transactor: transactor, now: now}
}

// Do runs f, which gives the request its effect and returns the body of its
// answer, unless it ran before: then the kept answer comes back. What f does in
// units of the keeper's transactor, with the context that it gets, stands or
// falls with the answer. If f fails, nothing is kept, and its error comes back.
//
// T must survive a round trip through JSON. Faults: ErrKeyMissing,
// ErrKeyInvalid, ErrKeyReused, ErrInFlight.
func Do[T any](ctx context.Context, k *Keeper, r Request, status int, f func(ctx context.Context) (T, error)) (Answer[T], error) {
	hash, err := r.check()
	if err != nil {
		return Answer[T]{}, err
	}
	var answer Answer[T]
	err = k.transactor.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if err := lock(ctx, tx, r); err != nil {
			return err
		}
		found, err := find(ctx, tx, r, k.now())
		if err != nil {
			return err
		}
		if found != nil {
			if found.hash != hash {
				return ErrKeyReused
			}
			answer.Status, answer.Replayed = found.status, true
			if err := json.Unmarshal(found.body, &answer.Body); err != nil {
				return fmt.Errorf("decode the kept answer of %s: %w", r.Route, err)
			}
			return nil
		}
		body, err := f(ctx)
		if err != nil {
			return err
		}
		answer.Status, answer.Body = status, body
		return keep(ctx, tx, r, hash, status, body, k.now().Add(Retention))
	})
	if err != nil {
		return Answer[T]{}, err
	}
	return answer, nil
}

// check refuses keys that are not good and returns the hash of the input.
func (r Request) check() (hash [sha256.Size]byte, err error) {
	if r.Key == "" {
		return hash, ErrKeyMissing
	}
	if len(r.Key) > MaxKey || strings.ContainsFunc(r.Key, func(c rune) bool { return c < '!' || c > '~' }) {
		return hash, ErrKeyInvalid
	}
	input, err := json.Marshal(r.Input)
	if err != nil {
		return hash, fmt.Errorf("encode the input of %s: %w", r.Route, err)
	}
	return sha256.Sum256(input), nil
}

// lock holds the key until the transaction ends. It never waits: a second
// request would hold a connection for as long as the first one takes.
func lock(ctx context.Context, tx pgx.Tx, r Request) error {
	var locked bool
	// Advisory locks are the whole database's; the principal in the name keeps
	// installations apart, and the prefix other uses. Two keys that share 64
	// bits of the hash are refused at the same time, at worst.
	err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))",
		"idempotency/"+r.Principal.String()+"/"+r.Route+"/"+r.Key).Scan(&locked)
	if err != nil {
		return fmt.Errorf("lock idempotency key: %w", err)
	}
	if !locked {
		return ErrInFlight
	}
	return nil
}

type kept struct {
	hash   [sha256.Size]byte
	status int
	body   []byte
}

// find returns nil where there is nothing, or no more.
func find(ctx context.Context, tx pgx.Tx, r Request, now time.Time) (*kept, error) {
	var (
		k    kept
		hash []byte
	)
	err := tx.QueryRow(ctx, `
		SELECT input_hash, status, body FROM idempotency_keys
		WHERE principal = $1 AND route = $2 AND key = $3 AND expires_at > $4`,
		r.Principal, r.Route, r.Key, now).Scan(&hash, &k.status, &k.body)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nothing is kept, which is no error
	}
	if err != nil {
		return nil, fmt.Errorf("find the answer kept under an idempotency key: %w", err)
	}
	copy(k.hash[:], hash) // 32 bytes: a constraint of the table
	return &k, nil
}

func keep(ctx context.Context, tx pgx.Tx, r Request, hash [sha256.Size]byte, status int, body any, until time.Time) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the answer of %s: %w", r.Route, err)
	}
	// What is in the way has expired, and was not swept up yet.
	_, err = tx.Exec(ctx, `
		INSERT INTO idempotency_keys (principal, route, key, input_hash, status, body, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (principal, route, key) DO UPDATE
		SET input_hash = excluded.input_hash, status = excluded.status,
		    body = excluded.body, expires_at = excluded.expires_at`,
		r.Principal, r.Route, r.Key, hash[:], status, encoded, until)
	if err != nil {
		return fmt.Errorf("keep the answer under an idempotency key: %w", err)
	}
	return nil
}
