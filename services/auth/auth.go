// Package auth is who may act in a marketplace: accounts, passwords, sessions
// and their tokens. It knows no HTTP, no database and no metrics library; what
// it needs of them are the small interfaces below.
package auth

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
)

// JWKSMaxAge is how long a verifier may keep the public keys that it fetched. A
// new signing key is published for longer than that before it signs.
const JWKSMaxAge = contract.JWKSMaxAge

// User is an account.
type User struct {
	ID uuid.UUID
	// Email is as its owner wrote it; accounts differ by its lower-case form.
	Email       string
	DisplayName string
	CreatedAt   time.Time
}

// Credentials are what a log-in is checked against.
type Credentials struct {
	UserID uuid.UUID
	// PasswordHash is the hasher's; it never leaves the process.
	PasswordHash string
}

// Tokens are what a client acts with.
type Tokens struct {
	AccessToken string
	// ExpiresIn is the rest of the access token's life.
	ExpiresIn    time.Duration
	RefreshToken string
	SessionID    uuid.UUID
	UserID       uuid.UUID
}

// What a Store says when something is not as it was asked for.
var (
	ErrEmailTaken = errors.New("an account with this email exists")
	ErrNotFound   = errors.New("not found")
)

// Store keeps accounts and sessions. A change and the events that it returns or
// is given are written in one transaction, or not at all.
type Store interface {
	// CreateAccount writes a user with its first session. ErrEmailTaken.
	CreateAccount(ctx context.Context, user User, passwordHash string, session Session, event events.Event) error
	// Credentials finds an account by its email in any case. ErrNotFound.
	Credentials(ctx context.Context, email string) (Credentials, error)
	// User finds an account. ErrNotFound.
	User(ctx context.Context, id uuid.UUID) (User, error)
	// CreateSession writes a session. ErrNotFound if the account is gone.
	CreateSession(ctx context.Context, session Session) error
	// ChangeSession locks a session until the transaction ends, shows it to
	// decide, and writes what decide made of it, with the events. ErrNotFound.
	ChangeSession(ctx context.Context, id uuid.UUID, decide func(*Session) []events.Event) error
	// ChangeExpired does the same with up to limit sessions that have not ended
	// and whose ExpiresAt is not after now, and returns how many there were.
	// Sessions that another transaction holds are left out.
	ChangeExpired(ctx context.Context, now time.Time, limit int, decide func(*Session) []events.Event) (int, error)
	// DeleteEnded forgets up to limit sessions that ended before a time, and
	// returns how many there were.
	DeleteEnded(ctx context.Context, before time.Time, limit int) (int, error)
}

// Hasher turns passwords into what may be stored.
type Hasher interface {
	// Hash returns a salted hash. It may refuse, with a fault, when too many wait.
	Hash(ctx context.Context, password string) (string, error)
	// Verify says whether the password is the hash's. An empty hash is nobody's,
	// and takes as long to say so.
	Verify(ctx context.Context, password, hash string) (bool, error)
}

// Throttle bounds failed attempts for each key.
type Throttle interface {
	// Take charges one attempt, or says how long to wait until there is one.
	Take(key string) (wait time.Duration, ok bool)
	// Return gives one back, for an attempt that did not fail.
	Return(key string)
}

// AccessTokens issues access tokens; see identity.Signer.
type AccessTokens interface {
	Sign(user, session uuid.UUID) (token string, expires time.Time, err error)
}

// Meter counts how the service's operations end. A result is "ok" or a fault's
// code; refreshes that go well are "rotated" or "repeated".
type Meter interface {
	Registered(result string)
	LoggedIn(result string)
	Refreshed(result string)
	SessionsEnded(reason string, n int)
}

// Options are what a Service needs; all of it.
type Options struct {
	Store        Store
	Hasher       Hasher
	AccessTokens AccessTokens
	// RefreshKey authenticates refresh tokens: at least 32 secret bytes.
	RefreshKey func() []byte
	// Accounts and Addresses bound failed log-ins by email and by client address;
	// Addresses bounds registrations of emails that are taken, too.
	Accounts  Throttle
	Addresses Throttle
	// Wake tells readers of the event log that there is something new.
	Wake  func()
	Meter Meter
	Now   func() time.Time
}

// Service is the auth service.
type Service struct{ Options }

// NewService makes a service.
func NewService(options Options) *Service { return &Service{options} }

// now has the resolution of the database, so that what is written and what is
// read compare equal.
func (s *Service) now() time.Time { return s.Now().UTC().Truncate(time.Microsecond) }
