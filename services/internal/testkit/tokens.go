package testkit

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// Issuer is the issuer of a Tokens.
const Issuer = "https://market.test"

// Tokens issues access tokens and verifies them.
type Tokens struct {
	Revocations *identity.Revocations
	*identity.Verifier

	signer *identity.Signer
	ahead  atomic.Int64 // how far the verifier's clock is ahead
}

// NewTokens makes a key of its own.
func NewTokens(t testing.TB) *Tokens {
	t.Helper()
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	keys := contract.SigningKeys{Keys: []contract.SigningKey{key}}
	document, err := keys.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.ParseKeySet(document)
	if err != nil {
		t.Fatal(err)
	}
	revocations := identity.NewRevocations(time.Now)
	k := &Tokens{
		Revocations: revocations,
		signer:      identity.NewSigner(Issuer, func() contract.SigningKeys { return keys }, time.Now),
	}
	k.Verifier = identity.NewVerifier(Issuer, set, revocations, func() time.Time { return time.Now().Add(time.Duration(k.ahead.Load())) })
	return k
}

// Later has tokens be verified as if it were later by that much.
func (k *Tokens) Later(d time.Duration) { k.ahead.Store(int64(d)) }

// Issue returns a token of a user in a session.
func (k *Tokens) Issue(t testing.TB, user, session uuid.UUID) string {
	t.Helper()
	token, _, err := k.signer.Sign(user, session)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
