package identity

import (
	"context"
	"crypto/ecdsa"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
)

// TokenType is the "typ" of access tokens (RFC 9068, section 2.1).
const TokenType = "at+jwt"

// AccessTokenLife is how long an access token is good for.
const AccessTokenLife = contract.AccessTokenLife

// Leeway is how far clocks may differ. It applies to the expiry only: "iat" is
// never a reason to refuse a token.
const Leeway = contract.TokenLeeway

// Claims are the claims of an access token beside the registered ones.
type Claims struct {
	jwt.Claims
	ClientID  string `json:"client_id"`
	SessionID string `json:"sid"`
}

// Keys finds the public key of a key id.
type Keys interface {
	Key(id string) (*ecdsa.PublicKey, bool)
}

// Revoked knows sessions whose tokens are refused before they expire.
type Revoked interface {
	IsRevoked(session uuid.UUID) bool
}

// Verifier checks access tokens.
type Verifier struct {
	issuer  string
	keys    Keys
	revoked Revoked
	now     func() time.Time
}

// NewVerifier takes tokens of issuer, which is also their audience, whose key
// is in keys and whose session is not revoked.
func NewVerifier(issuer string, keys Keys, revoked Revoked, now func() time.Time) *Verifier {
	return &Verifier{issuer: issuer, keys: keys, revoked: revoked, now: now}
}

var (
	errInvalid = fault.New(fault.Unauthenticated, "token_invalid", "The access token is not valid. Log in, or refresh it.")
	errExpired = fault.New(fault.Unauthenticated, "token_expired", "The access token has expired. Refresh it.")
	errRevoked = fault.New(fault.Unauthenticated, "session_ended", "The session has ended. Log in again.")
)

// Verify returns the token's principal, or a fault of kind Unauthenticated:
// token_invalid, token_expired or session_ended.
func (v *Verifier) Verify(_ context.Context, token string) (Principal, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Principal{}, errInvalid.Because(err)
	}
	header := parsed.Headers[0] // ParseSigned takes exactly one signature
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != TokenType {
		return Principal{}, errInvalid
	}
	key, ok := v.keys.Key(header.KeyID)
	if !ok {
		return Principal{}, errInvalid
	}
	var claims Claims
	if err := parsed.Claims(key, &claims); err != nil {
		return Principal{}, errInvalid.Because(err)
	}
	if claims.Issuer != v.issuer || !claims.Audience.Contains(v.issuer) || claims.Expiry == nil {
		return Principal{}, errInvalid
	}
	now := v.now()
	if now.After(claims.Expiry.Time().Add(Leeway)) {
		return Principal{}, errExpired
	}
	if claims.NotBefore != nil && now.Add(Leeway).Before(claims.NotBefore.Time()) {
		return Principal{}, errInvalid
	}
	user, err := uuid.Parse(claims.Subject)
	if err != nil {
		return Principal{}, errInvalid.Because(err)
	}
	session, err := uuid.Parse(claims.SessionID)
	if err != nil {
		return Principal{}, errInvalid.Because(err)
	}
	if v.revoked.IsRevoked(session) {
		return Principal{}, errRevoked
	}
	return Principal{UserID: user, SessionID: session, ExpiresAt: claims.Expiry.Time()}, nil
}
