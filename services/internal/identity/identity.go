// Package identity verifies access tokens offline: ES256 JWTs in the profile of
// RFC 9068, against the public keys of the installation. It knows no HTTP and
// no database.
package identity

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Principal is who a valid token speaks for.
type Principal struct {
	UserID    uuid.UUID
	SessionID uuid.UUID
	// ExpiresAt is when the token, not the session, ends.
	ExpiresAt time.Time
}

type principalKey struct{}

// NewContext returns a context that carries the principal.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the principal that an authenticated request carries; the
// zero Principal, which owns nothing, where there is none.
func FromContext(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
