package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/google/uuid"
)

// refreshTokenPrefix lets scanners of logs and repositories know a leaked one.
const refreshTokenPrefix = "mpr_"

// The octets of a refresh token: session id, counter, MAC.
const (
	tokenClaims = 16 + 8
	tokenSize   = tokenClaims + sha256.Size
)

// refreshToken is a refresh token that was read, and not checked yet.
type refreshToken struct {
	session uuid.UUID
	counter int64
	mac     [sha256.Size]byte
}

// formatRefreshToken makes a session's newest token: the same one every time,
// so that it can be given out again although only its number is kept. It is
// authenticated with the installation's key and the session's secret: neither a
// copy of the database nor the key alone is enough to forge one.
func formatRefreshToken(key []byte, s *Session) string {
	token := make([]byte, 0, tokenSize)
	token = append(token, s.ID[:]...)
	token = binary.BigEndian.AppendUint64(token, uint64(s.Counter)) //nolint:gosec // G115: counters are positive
	mac := macOf(key, s.ID, s.Counter, s.Secret)
	token = append(token, mac[:]...)
	return refreshTokenPrefix + base64.RawURLEncoding.EncodeToString(token)
}

// parseRefreshToken reads a token; ok says that it has the form of one.
func parseRefreshToken(token string) (t refreshToken, ok bool) {
	encoded, found := strings.CutPrefix(token, refreshTokenPrefix)
	if !found || len(encoded) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return refreshToken{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != tokenSize { // a decoder skips line breaks
		return refreshToken{}, false
	}
	counter := binary.BigEndian.Uint64(raw[16:tokenClaims])
	if counter == 0 || counter > 1<<62 {
		return refreshToken{}, false
	}
	t.session, t.counter = uuid.UUID(raw[:16]), int64(counter)
	copy(t.mac[:], raw[tokenClaims:])
	return t, true
}

// authentic says whether the token was made by us for this session.
func (t refreshToken) authentic(key []byte, s *Session) bool {
	want := macOf(key, t.session, t.counter, s.Secret)
	return t.session == s.ID && hmac.Equal(t.mac[:], want[:])
}

func macOf(key []byte, session uuid.UUID, counter int64, secret [32]byte) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(session[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(counter))) //nolint:gosec // G115: counters are positive
	h.Write(secret[:])
	copy(mac[:], h.Sum(nil))
	return mac
}
