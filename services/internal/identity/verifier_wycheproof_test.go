package identity_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marketplane/marketplane/services/internal/identity"
)

// The vectors are too large to live here; a checkout may have them beside it.
var wycheproof = filepath.Join("..", "..", "..", "..", "shared", "testdata", "wycheproof", "json_web_signature_test.json")

// TestWycheproof runs C2SP/wycheproof's ES256 vectors. They are no access
// tokens, so the signature is checked with what Verify stands on: keys by ParseKeySet,
// strict decoding and ES256's Verify of golang-jwt; the header is read here.
func TestWycheproof(t *testing.T) {
	content, err := os.ReadFile(wycheproof)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the Wycheproof vectors are not beside the repository: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Groups []struct {
			Comment string          `json:"comment"`
			Public  json.RawMessage `json:"public"`
			Private json.RawMessage `json:"private"`
			Tests   []struct {
				ID      int    `json:"tcId"`
				Comment string `json:"comment"`
				JWS     any    `json:"jws"`
				Result  string `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(content, &document); err != nil {
		t.Fatal(err)
	}
	accepted, refused := 0, 0
	for _, group := range document.Groups {
		key := group.Public
		if key == nil {
			key = group.Private
		}
		var about struct {
			Curve     string `json:"crv"`
			Algorithm string `json:"alg"`
		}
		if err := json.Unmarshal(key, &about); err != nil {
			t.Fatal(err)
		}
		for _, test := range group.Tests {
			token, compact := test.JWS.(string)
			// Every vector is shown to the verifier; only ES256 ones may pass.
			want := test.Result == "valid" && compact && about.Algorithm == "ES256"
			got := compact && signatureHolds(token, key)
			if got != want {
				t.Errorf("%d %s %s: accepted = %t, want %t", test.ID, group.Comment, test.Comment, got, want)
			}
			if got {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted == 0 || refused == 0 {
		t.Error("the vectors are not what they were taken for")
	}
}

func signatureHolds(token string, key json.RawMessage) bool {
	set, err := identity.ParseKeySet([]byte(`{"keys":[` + string(key) + `]}`))
	if err != nil {
		return false
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	parser := jwt.NewParser(jwt.WithStrictDecoding())
	head, headErr := parser.DecodeSegment(parts[0])
	signature, signatureErr := parser.DecodeSegment(parts[2])
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	if errors.Join(headErr, signatureErr, json.Unmarshal(head, &header)) != nil || header.Algorithm != jwt.SigningMethodES256.Alg() {
		return false
	}
	public, ok := set.Key(header.KeyID)
	return ok && jwt.SigningMethodES256.Verify(parts[0]+"."+parts[1], signature, public) == nil
}
