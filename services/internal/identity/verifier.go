package identity

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
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

// maxToken bounds what is decoded for strangers, in bytes. Tokens take 500.
const maxToken = 4 << 10

// Claims are the claims of an access token beside the registered ones.
type Claims struct {
	jwt.RegisteredClaims
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
	parser  *jwt.Parser
}

// NewVerifier takes tokens of issuer, which is also their audience, whose key
// is in keys and whose session is not revoked.
func NewVerifier(issuer string, keys Keys, revoked Revoked, now func() time.Time) *Verifier {
	return &Verifier{issuer: issuer, keys: keys, revoked: revoked, now: now, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(), // Verify does it, and says what a client can do
	)}
}

var (
	errInvalid = fault.New(fault.Unauthenticated, "token_invalid", "The access token is not valid. Log in, or refresh it.")
	errExpired = fault.New(fault.Unauthenticated, "token_expired", "The access token has expired. Refresh it.")
	errRevoked = fault.New(fault.Unauthenticated, "session_ended", "The session has ended. Log in again.")
)

// Verify returns the token's principal, or a fault of kind Unauthenticated:
// token_invalid, token_expired or session_ended.
func (v *Verifier) Verify(_ context.Context, token string) (Principal, error) {
	if len(token) > maxToken {
		return Principal{}, errInvalid
	}
	var claims Claims
	if _, err := v.parser.ParseWithClaims(token, &claims, v.key); err != nil {
		return Principal{}, errInvalid.Because(err)
	}
	if claims.Issuer != v.issuer || !slices.Contains(claims.Audience, v.issuer) || claims.ExpiresAt == nil {
		return Principal{}, errInvalid
	}
	now := v.now()
	if now.After(claims.ExpiresAt.Add(Leeway)) {
		return Principal{}, errExpired
	}
	if claims.NotBefore != nil && now.Add(Leeway).Before(claims.NotBefore.Time) {
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
	return Principal{UserID: user, SessionID: session, ExpiresAt: claims.ExpiresAt.Time}, nil
}

// key finds what a token was signed with, by its header.
func (v *Verifier) key(token *jwt.Token) (any, error) {
	if token.Header["typ"] != TokenType {
		return nil, fmt.Errorf("not of type %s", TokenType)
	}
	if _, ok := token.Header["crit"]; ok { // RFC 7515, section 4.1.11: nothing of it is understood
		return nil, errors.New("a critical header")
	}
	id, _ := token.Header["kid"].(string)
	key, ok := v.keys.Key(id)
	if !ok {
		return nil, errors.New("no such key")
	}
	return key, nil
}
