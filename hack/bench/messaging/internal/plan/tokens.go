package plan

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
)

// claims are those of an access token (RFC 9068).
type claims struct {
	jwt.Claims
	ClientID  string `json:"client_id"`
	SessionID string `json:"sid"`
}

// Tokens makes a token for each of a job's users, good from now on.
func (j Job) Tokens(now time.Time) ([]string, error) {
	keys, err := contract.ParseSigningKeys(j.SigningKeys)
	if err != nil {
		return nil, err
	}
	key, err := keys.Signer(now)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.Private(), KeyID: key.ID}},
		(&jose.SignerOptions{}).WithType("at+jwt"),
	)
	if err != nil {
		return nil, err
	}
	tokens := make([]string, j.Users)
	for i := range tokens {
		tokens[i], err = jwt.Signed(signer).Claims(claims{
			Claims: jwt.Claims{
				Issuer: j.Issuer, Audience: jwt.Audience{j.Issuer}, Subject: User(i).String(),
				IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(contract.AccessTokenLife)),
				ID: uuid.NewString(),
			},
			ClientID: "marketplane", SessionID: Session(i).String(),
		}).Serialize()
		if err != nil {
			return nil, fmt.Errorf("sign a token: %w", err)
		}
	}
	return tokens, nil
}
