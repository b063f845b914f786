package contract

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
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
