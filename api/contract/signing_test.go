package contract

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSigningKeysRoundTrip(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old, err := NewSigningKey(now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	next, err := NewSigningKey(now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	document, err := SigningKeys{Keys: []SigningKey{old, next}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseSigningKeys(document)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.Signer(now)
	if err != nil {
		t.Fatal(err)
	}
	if signer.ID != old.ID {
		t.Errorf("signer before activation = %s, want the old key", signer.ID)
	}
	if signer, err = keys.Signer(now.Add(time.Hour)); err != nil || signer.ID != next.ID {
		t.Errorf("signer at activation = %s (%v), want the new key", signer.ID, err)
	}
	if _, err = keys.Signer(now.Add(-2 * time.Hour)); err == nil {
		t.Error("a signer was found before any activation")
	}
}

// An independent library must read the set, and agree on every thumbprint.
func TestJWKSIsStandard(t *testing.T) {
	key, err := NewSigningKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	document, err := SigningKeys{Keys: []SigningKey{key}}.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(document, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || !set.Keys[0].Valid() || !set.Keys[0].IsPublic() {
		t.Fatalf("not one valid public key: %s", document)
	}
	if !key.Private().PublicKey.Equal(set.Keys[0].Key) {
		t.Error("the published key is another one")
	}
	if diff := cmp.Diff(key.ID, set.Keys[0].KeyID); diff != "" {
		t.Error(diff)
	}
}

func TestParseSigningKeysRefuses(t *testing.T) {
	key, err := NewSigningKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other := key
	other.ID = "another"
	foreign, err := SigningKeys{Keys: []SigningKey{other}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		document string
		wantErr  string
	}{
		"not JSON":         {"{", "not the expected JSON"},
		"empty":            {`{"keys":[]}`, "no key"},
		"not PEM":          {`{"keys":[{"kid":"a","private_key":"secret"}]}`, "keys[0].private_key is not PEM"},
		"wrong thumbprint": {string(foreign), "keys[0].kid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSigningKeys([]byte(tt.document))
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Error("the error quotes key material")
			}
		})
	}
}

func TestNamesFitPostgreSQL(t *testing.T) {
	uid := "01234567-89ab-cdef-0123-456789abcdef"
	for _, service := range Services() {
		if n := len(DatabaseRole(uid, service)); n > 63 {
			t.Errorf("role of %s has %d bytes, more than PostgreSQL keeps", service, n)
		}
	}
}

// Whatever stands in the file, what is taken for a key can sign, goes by its own
// thumbprint, and reads the same when it is written again; and what is refused is
// not quoted.
func FuzzParseSigningKeys(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key, err := NewSigningKey(now)
	if err != nil {
		f.Fatal(err)
	}
	next, err := NewSigningKey(now.Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	document, err := SigningKeys{Keys: []SigningKey{key, next}}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(document)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, other := range []any{p384, ed} {
		der, err := x509.MarshalPKCS8PrivateKey(other)
		if err != nil {
			f.Fatal(err)
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		document, err := SigningKeys{Keys: []SigningKey{{ID: "other", ActivatesAt: now, PrivateKey: string(block)}}}.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(document)
	}
	f.Add(bytes.Replace(document, []byte(key.ID), []byte(next.ID), 1))
	f.Add(bytes.Replace(document, []byte("PRIVATE KEY"), []byte("EC PRIVATE KEY"), 2))
	f.Add(document[:len(document)/2])
	f.Add([]byte(`{"keys":[{"kid":"a","private_key":"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := ParseSigningKeys(document)
		if err != nil {
			// No message of ours is so long: what it shares with a long one is quoted.
			const long = 80
			var given SigningKeys
			_ = json.Unmarshal(document, &given) // as far as it goes
			for _, k := range given.Keys {
				for _, text := range []string{k.ID, k.PrivateKey} {
					if len(text) >= long && strings.Contains(err.Error(), text) {
						t.Errorf("the error quotes %q", text)
					}
				}
			}
			if len(err.Error()) >= long {
				t.Errorf("a long error: %v", err)
			}
			return
		}
		if len(keys.Keys) == 0 {
			t.Fatal("no key and no error")
		}
		for _, k := range keys.Keys {
			id, err := thumbprint(&k.Private().PublicKey)
			if err != nil || id != k.ID {
				t.Errorf("key %s has the thumbprint %s, %v", k.ID, id, err)
			}
			digest := sha256.Sum256(document)
			signature, err := ecdsa.SignASN1(rand.Reader, k.Private(), digest[:])
			if err != nil || !ecdsa.VerifyASN1(&k.Private().PublicKey, digest[:], signature) {
				t.Errorf("key %s does not sign: %v", k.ID, err)
			}
		}
		if _, err := keys.JWKS(); err != nil {
			t.Error(err)
		}
		written, err := keys.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSigningKeys(written)
		if err != nil {
			t.Fatalf("what was read can't be read again: %v", err)
		}
		if diff := cmp.Diff(keys, again, cmpopts.IgnoreUnexported(SigningKey{})); diff != "" {
			t.Error(diff)
		}
	})
}
