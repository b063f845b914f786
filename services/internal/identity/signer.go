package identity

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
)

// ClientID is the "client_id" of tokens (RFC 9068 requires one): the
// marketplace's own apps are one client.
const ClientID = "marketplane"

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
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.Private(), KeyID: key.ID}},
		(&jose.SignerOptions{}).WithType(TokenType),
	)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("make a token id: %w", err)
	}
	expires = now.Add(AccessTokenLife).Truncate(time.Second)
	token, err = jwt.Signed(signer).Claims(Claims{
		Claims: jwt.Claims{
			Issuer:   s.issuer,
			Subject:  user.String(),
			Audience: jwt.Audience{s.issuer},
			Expiry:   jwt.NewNumericDate(expires),
			IssuedAt: jwt.NewNumericDate(now),
			ID:       id.String(),
		},
		ClientID:  ClientID,
		SessionID: session.String(),
	}).Serialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign access token: %w", err)
	}
	return token, expires, nil
}
