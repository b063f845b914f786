package identity_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
)

const issuer = "https://market.test"

// forge makes tokens, good ones and others.
type forge struct {
	key     contract.SigningKey
	keys    identity.KeySet
	now     time.Time
	user    uuid.UUID
	session uuid.UUID
	revoked *identity.Revocations
}

func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), user: uuid.New(), session: uuid.New()}
	f.key, f.keys = newKey(t, f.now)
	f.revoked = identity.NewRevocations(f.clock)
	return f
}

func newKey(t testing.TB, now time.Time) (contract.SigningKey, identity.KeySet) {
	t.Helper()
	key, err := contract.NewSigningKey(now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	document, err := contract.SigningKeys{Keys: []contract.SigningKey{key}}.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.ParseKeySet(document)
	if err != nil {
		t.Fatal(err)
	}
	return key, set
}

func (f *forge) clock() time.Time { return f.now }

func (f *forge) verifier() *identity.Verifier {
	return identity.NewVerifier(issuer, f.keys, f.revoked, f.clock)
}

// claims are those of a good token, with changes; a nil value leaves one out.
func (f *forge) claims(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": issuer, "aud": issuer, "sub": f.user.String(), "sid": f.session.String(),
		"client_id": identity.ClientID, "jti": "1",
		"iat": f.now.Unix(), "exp": f.now.Add(identity.AccessTokenLife).Unix(),
	}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// sign makes a token; typ "" leaves the header out.
func (f *forge) sign(t testing.TB, key jose.SigningKey, typ jose.ContentType, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if typ != "" {
		options = options.WithType(typ)
	}
	signer, err := jose.NewSigner(key, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (f *forge) es256() jose.SigningKey {
	return jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: f.key.Private(), KeyID: f.key.ID}}
}

func (f *forge) good(t testing.TB, changes map[string]any) string {
	t.Helper()
	return f.sign(t, f.es256(), identity.TokenType, f.claims(changes))
}

func TestVerify(t *testing.T) {
	f := newForge(t)
	second := func(d time.Duration) int64 { return f.now.Add(d).Unix() }
	tests := map[string]struct {
		changes  map[string]any
		wantCode string
	}{
		"good":                          {},
		"audience in a list":            {changes: map[string]any{"aud": []string{"other", issuer}}},
		"issued in the future":          {changes: map[string]any{"iat": second(time.Hour)}},
		"no time of issue":              {changes: map[string]any{"iat": nil}},
		"expired within the leeway":     {changes: map[string]any{"exp": second(-identity.Leeway)}},
		"expired":                       {map[string]any{"exp": second(-identity.Leeway - time.Second)}, "token_expired"},
		"no expiry":                     {map[string]any{"exp": nil}, "token_invalid"},
		"not yet good, in the leeway":   {changes: map[string]any{"nbf": second(identity.Leeway)}},
		"not yet good":                  {map[string]any{"nbf": second(identity.Leeway + time.Second)}, "token_invalid"},
		"another issuer":                {map[string]any{"iss": "https://evil.test"}, "token_invalid"},
		"no issuer":                     {map[string]any{"iss": nil}, "token_invalid"},
		"an issuer that only begins so": {map[string]any{"iss": issuer + ".evil.test"}, "token_invalid"},
		"another audience":              {map[string]any{"aud": "https://evil.test"}, "token_invalid"},
		"no audience":                   {map[string]any{"aud": nil}, "token_invalid"},
		"subject is no user":            {map[string]any{"sub": "ann"}, "token_invalid"},
		"no session":                    {map[string]any{"sid": nil}, "token_invalid"},
		"claims of another type":        {map[string]any{"exp": "tomorrow"}, "token_invalid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := f.verifier().Verify(t.Context(), f.good(t, tt.changes))
			check(t, err, tt.wantCode)
			if tt.wantCode != "" {
				return
			}
			if got.UserID != f.user || got.SessionID != f.session {
				t.Errorf("principal = %+v", got)
			}
		})
	}
}

func TestVerifyRefusesForgeries(t *testing.T) {
	f := newForge(t)
	good := f.good(t, nil)
	parts := strings.Split(good, ".")
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	other, _ := newKey(t, f.now)

	public := &f.key.Private().PublicKey
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	point, err := public.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(secret []byte) string {
		key := jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: f.key.ID}}
		return f.sign(t, key, identity.TokenType, f.claims(nil))
	}
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: other.Private()},
		(&jose.SignerOptions{EmbedJWK: true}).WithType(identity.TokenType).WithHeader("kid", f.key.ID))
	if err != nil {
		t.Fatal(err)
	}
	withKey, err := jwt.Signed(embedded).Claims(f.claims(nil)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	signedBy := func(key contract.SigningKey, id string) string {
		return f.sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.Private(), KeyID: id}},
			identity.TokenType, f.claims(nil))
	}
	tests := map[string]string{
		"empty":                           "",
		"two parts":                       parts[0] + "." + parts[1],
		"four parts":                      good + ".x",
		"no signature":                    parts[0] + "." + parts[1] + ".",
		"another payload":                 parts[0] + "." + encode(`{"iss":"`+issuer+`"}`) + "." + parts[2],
		"type JWT":                        f.sign(t, f.es256(), "JWT", f.claims(nil)),
		"no type":                         f.sign(t, f.es256(), "", f.claims(nil)),
		"alg none":                        encode(`{"alg":"none","typ":"at+jwt","kid":"`+f.key.ID+`"}`) + "." + parts[1] + ".",
		"alg None, with a signature":      encode(`{"alg":"None","typ":"at+jwt","kid":"`+f.key.ID+`"}`) + "." + parts[1] + "." + parts[2],
		"HS256, secret: public key's DER": hs256(der),
		"HS256, secret: public key's PEM": hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256, secret: public point":     hs256(point),
		"unknown kid":                     signedBy(other, other.ID),
		"another key under a known kid":   signedBy(other, f.key.ID),
		"no kid":                          signedBy(f.key, ""),
		"a key that it brings itself":     withKey,
		"JSON serialization":              `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"an unknown critical header":      f.critical(t),
		"too long":                        f.good(t, map[string]any{"x": strings.Repeat("x", 4096)}),
		"payload is no JSON":              f.signRaw(t, "claims"),
		"payload is null":                 f.signRaw(t, "null"),
		"payload is a list":               f.signRaw(t, "[]"),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := f.verifier().Verify(t.Context(), token)
			check(t, err, "token_invalid")
		})
	}
	if public.Curve != elliptic.P256() {
		t.Fatal("the forge does not use P-256")
	}
}

// critical makes a token that is good but for a header that must be understood.
func (f *forge) critical(t testing.TB) string {
	t.Helper()
	token := gojwt.NewWithClaims(gojwt.SigningMethodES256, gojwt.MapClaims(f.claims(nil)))
	token.Header["typ"], token.Header["kid"] = identity.TokenType, f.key.ID
	if signed, err := token.SignedString(f.key.Private()); err != nil {
		t.Fatal(err)
	} else if _, err := f.verifier().Verify(t.Context(), signed); err != nil {
		t.Fatalf("without it: %v", err)
	}
	token.Header["crit"], token.Header["x"] = []string{"x"}, 1
	signed, err := token.SignedString(f.key.Private())
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (f *forge) signRaw(t testing.TB, payload string) string {
	t.Helper()
	signer, err := jose.NewSigner(f.es256(), (&jose.SignerOptions{}).WithType(identity.TokenType))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerifyRefusesEndedSessions(t *testing.T) {
	f := newForge(t)
	token := f.good(t, nil)
	f.revoked.Revoke(uuid.New(), f.now)
	_, err := f.verifier().Verify(t.Context(), token)
	check(t, err, "")
	f.revoked.Revoke(f.session, f.now)
	_, err = f.verifier().Verify(t.Context(), token)
	check(t, err, "session_ended")
}

// What the signer makes, the verifier takes, with what went in.
func TestSignedTokensVerify(t *testing.T) {
	f := newForge(t)
	next, set := newKey(t, f.now)
	next.ActivatesAt = f.now.Add(time.Minute)
	maps.Copy(f.keys, set)
	keys := contract.SigningKeys{Keys: []contract.SigningKey{f.key, next}}
	signer := identity.NewSigner(issuer, func() contract.SigningKeys { return keys }, f.clock)
	for _, want := range []string{f.key.ID, next.ID} {
		token, expires, err := signer.Sign(f.user, f.session)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.verifier().Verify(t.Context(), token)
		check(t, err, "")
		got.ExpiresAt = got.ExpiresAt.UTC()
		wantPrincipal := identity.Principal{UserID: f.user, SessionID: f.session, ExpiresAt: expires}
		if diff := cmp.Diff(wantPrincipal, got); diff != "" {
			t.Errorf("principal (-want +got):\n%s", diff)
		}
		parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil || parsed.Headers[0].KeyID != want {
			t.Errorf("signed with %s (%v), want %s", parsed.Headers[0].KeyID, err, want)
		}
		var claims map[string]any
		if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil || claims["aud"] != issuer {
			t.Errorf("claims %v (%v), want the audience %q", claims, err, issuer)
		}
		f.now = next.ActivatesAt
	}
}

// check compares with the fault that is wanted; "" wants none.
func check(t *testing.T, err error, wantCode string) {
	t.Helper()
	if wantCode == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != wantCode || f.Kind != fault.Unauthenticated {
		t.Errorf("error = %v, want the fault %s", err, wantCode)
	}
}

// Whatever comes in, nothing panics, and nothing passes but what was signed: a
// token that passes has the header, payload and signature of a good one.
func FuzzVerify(f *testing.F) {
	forge := newForge(f)
	good := forge.good(f, nil)
	parts := strings.Split(good, ".")
	for _, seed := range []string{good, "", "..", parts[0] + "." + parts[1] + ".", strings.Replace(good, ".", "..", 1), good + "=", "{}"} {
		f.Add(seed)
	}
	verifier := forge.verifier()
	f.Fuzz(func(t *testing.T, token string) {
		principal, err := verifier.Verify(t.Context(), token)
		if err == nil {
			if principal.UserID != forge.user || principal.SessionID != forge.session {
				t.Errorf("%q passes for another principal", token)
			}
			return
		}
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Unauthenticated {
			t.Errorf("%q: %v is not a refusal", token, err)
		}
	})
}

func TestParseKeySet(t *testing.T) {
	t.Parallel()
	const point = `"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"` // RFC 7517, appendix A.1
	tests := map[string]struct {
		document string
		wantIDs  []string
		wantErr  bool
	}{
		"for signatures":        {document: `{"keys":[{` + point + `,"alg":"ES256","use":"sig","kid":"a"}]}`, wantIDs: []string{"a"}},
		"for no stated use":     {document: `{"keys":[{` + point + `,"alg":"ES256","kid":"a"}]}`, wantIDs: []string{"a"}},
		"for encryption":        {document: `{"keys":[{` + point + `,"alg":"ES256","use":"enc","kid":"a"}]}`, wantErr: true},
		"another algorithm":     {document: `{"keys":[{` + point + `,"alg":"ECDH-ES","kid":"a"}]}`, wantErr: true},
		"no id":                 {document: `{"keys":[{` + point + `,"alg":"ES256"}]}`, wantErr: true},
		"no key":                {document: `{"keys":[]}`, wantErr: true},
		"not JSON":              {document: `{`, wantErr: true},
		"a good one beside bad": {document: `{"keys":[{` + point + `,"alg":"ES256","use":"enc","kid":"a"},{` + point + `,"alg":"ES256","kid":"b"}]}`, wantIDs: []string{"b"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := identity.ParseKeySet([]byte(tt.document))
			if (err != nil) != tt.wantErr {
				t.Fatalf("error = %v, want one: %t", err, tt.wantErr)
			}
			var ids []string
			for id := range set {
				ids = append(ids, id)
			}
			if diff := cmp.Diff(tt.wantIDs, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
}
