package identity

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
)

// ClientID is the "client_id" of tokens (RFC 9068 requires one): the
// marketplace's own apps are one client.
const ClientID = "marketplane"

// issued is what a token claims, with its one audience as a string (RFC 7519, section
// 4.1.3).
type issued struct {
	Claims
	Audience string `json:"aud"`
}

// Signer issues access tokens.
type Signer struct {
	issuer string
	keys   func() contract.SigningKeys
	now    func() time.Time
}

// NewSigner signs with the key of keys() that is active at the time.
func NewSigner(issuer string, keys func() contract.SigningKeys, now func() time.Time) *Signer {
	return &Signer{issuer: issuer, keys: keys, now: now}
}

// Sign returns an access token (RFC 9068) and when it ends.
func (s *Signer) Sign(user, session uuid.UUID) (token string, expires time.Time, err error) {
	now := s.now()
	key, err := s.keys().Signer(now)
	if err != nil {
		return "", time.Time{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("make a token id: %w", err)
	}
	expires = now.Add(AccessTokenLife).Truncate(time.Second)
	unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, issued{
		Audience: s.issuer,
		Claims: Claims{
			RegisteredClaims: jwt.RegisteredClaims{
				Issuer:    s.issuer,
				Subject:   user.String(),
				ExpiresAt: jwt.NewNumericDate(expires),
				IssuedAt:  jwt.NewNumericDate(now),
				ID:        id.String(),
			},
			ClientID:  ClientID,
			SessionID: session.String(),
		},
	})
	unsigned.Header["typ"], unsigned.Header["kid"] = TokenType, key.ID
	token, err = unsigned.SignedString(key.Private())
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	return token, expires, nil
}
