package identity_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// Whatever the file holds, what is taken for keys are public keys on P-256, each
// under its id.
func FuzzParseKeySet(f *testing.F) {
	first, err := contract.NewSigningKey(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	second, err := contract.NewSigningKey(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	ours, err := contract.SigningKeys{Keys: []contract.SigningKey{first, second}}.JWKS()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ours)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range []jose.JSONWebKey{
		{Key: first.Private(), KeyID: first.ID, Algorithm: string(jose.ES256), Use: "sig"}, // a private one
		{Key: &first.Private().PublicKey, Algorithm: string(jose.ES256)},                   // without an id
		{Key: &first.Private().PublicKey, KeyID: first.ID, Algorithm: string(jose.ES256), Use: "enc"},
		{Key: &other.PublicKey, KeyID: "rsa", Algorithm: string(jose.ES256)},
		{Key: []byte("a shared secret"), KeyID: "oct", Algorithm: string(jose.HS256)},
	} {
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(set)
	}
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"k","alg":"ES256"}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := identity.ParseKeySet(document)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%q: %d keys, %v", document, len(keys), err)
		}
		for id, key := range keys {
			if found, ok := keys.Key(id); id == "" || !ok || found != key {
				t.Errorf("%q: no key under the id %q", document, id)
			}
			if key.Curve != elliptic.P256() {
				t.Errorf("%q: key %q is on %s", document, id, key.Curve.Params().Name)
			}
			if _, err := key.ECDH(); err != nil { // fails on what is no point of the curve
				t.Errorf("%q: key %q: %v", document, id, err)
			}
		}
	})
}
