package contract

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// SigningKey is one ES256 key pair of an installation.
type SigningKey struct {
	// ID is the JWK thumbprint of the public key (RFC 7638).
	ID string `json:"kid"`
	// ActivatesAt is when auth may begin to sign with it. It is published
	// before, so that every verifier knows it by then.
	ActivatesAt time.Time `json:"activates_at"`
	// PrivateKey is PKCS #8 in PEM (RFC 5958, RFC 7468).
	PrivateKey string `json:"private_key"`

	key *ecdsa.PrivateKey
}

// Private returns the key itself.
func (k SigningKey) Private() *ecdsa.PrivateKey { return k.key }

// SigningKeys is the document in FileSigningKeys.
type SigningKeys struct {
	Keys []SigningKey `json:"keys"`
}

// NewSigningKey makes a P-256 key that may sign from activatesAt on.
func NewSigningKey(activatesAt time.Time) (SigningKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return SigningKey{}, fmt.Errorf("generate signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return SigningKey{}, fmt.Errorf("encode signing key: %w", err)
	}
	id, err := thumbprint(&key.PublicKey)
	if err != nil {
		return SigningKey{}, err
	}
	return SigningKey{
		ID:          id,
		ActivatesAt: activatesAt.UTC().Truncate(time.Second),
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		key:         key,
	}, nil
}

// ParseSigningKeys reads the document in FileSigningKeys. Every key must be
// P-256 and carry its own thumbprint; at least one is needed. Errors never
// quote key material.
func ParseSigningKeys(document []byte) (SigningKeys, error) {
	var keys SigningKeys
	if err := json.Unmarshal(document, &keys); err != nil {
		return SigningKeys{}, errors.New("signing keys: not the expected JSON document")
	}
	if len(keys.Keys) == 0 {
		return SigningKeys{}, errors.New("signing keys: the document holds no key")
	}
	for i := range keys.Keys {
		k := &keys.Keys[i]
		block, _ := pem.Decode([]byte(k.PrivateKey))
		if block == nil {
			return SigningKeys{}, fmt.Errorf("signing keys: keys[%d].private_key is not PEM", i)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return SigningKeys{}, fmt.Errorf("signing keys: keys[%d].private_key is not PKCS #8", i)
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			return SigningKeys{}, fmt.Errorf("signing keys: keys[%d].private_key is not an EC P-256 key", i)
		}
		id, err := thumbprint(&key.PublicKey)
		if err != nil {
			return SigningKeys{}, err
		}
		if id != k.ID {
			return SigningKeys{}, fmt.Errorf("signing keys: keys[%d].kid is not the key's thumbprint", i)
		}
		k.key = key
	}
	return keys, nil
}

// Marshal writes the document in FileSigningKeys.
func (s SigningKeys) Marshal() ([]byte, error) {
	return json.MarshalIndent(s, "", "  ")
}

// Signer returns the key to sign with at now: the one that was activated last.
func (s SigningKeys) Signer(now time.Time) (SigningKey, error) {
	var best *SigningKey
	for i := range s.Keys {
		k := &s.Keys[i]
		if k.ActivatesAt.After(now) {
			continue
		}
		if best == nil || k.ActivatesAt.After(best.ActivatesAt) {
			best = k
		}
	}
	if best == nil {
		return SigningKey{}, errors.New("signing keys: none is active yet")
	}
	return *best, nil
}

// JWKS returns the public halves as a JWK Set (RFC 7517), in the order of the
// document, so that equal keys give equal bytes.
func (s SigningKeys) JWKS() ([]byte, error) {
	type jwk struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		X   string `json:"x"`
		Y   string `json:"y"`
		Kid string `json:"kid"`
		Use string `json:"use"`
		Alg string `json:"alg"`
	}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, 0, len(s.Keys))}
	for _, k := range s.Keys {
		x, y, err := coordinates(&k.key.PublicKey)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jwk{Kty: "EC", Crv: "P-256", X: x, Y: y, Kid: k.ID, Use: "sig", Alg: "ES256"})
	}
	return json.MarshalIndent(set, "", "  ")
}

// thumbprint is RFC 7638, section 3: SHA-256 over the required members in
// lexicographic order, without white space.
func thumbprint(key *ecdsa.PublicKey) (string, error) {
	x, y, err := coordinates(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// coordinates are base64url of the fixed-width octets (RFC 7518, section 6.2.1).
func coordinates(key *ecdsa.PublicKey) (x, y string, err error) {
	point, err := key.Bytes() // 0x04 || X || Y
	if err != nil {
		return "", "", fmt.Errorf("signing keys: encode public key: %w", err)
	}
	half := (len(point) - 1) / 2
	encode := base64.RawURLEncoding.EncodeToString
	return encode(point[1 : 1+half]), encode(point[1+half:]), nil
}
