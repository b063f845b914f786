package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// cursorList is a list that cursors walk through: whatever changes what is in
// it must stand here, so that no cursor goes on in another list.
type cursorList struct {
	What  string
	Actor string
	Of    string
	Mine  bool
}

// A cursor is base64url of a version, the id that the part before ended with,
// and a fingerprint of the list. It is opaque, not secret: it says where to go
// on, never what may be seen.
const (
	cursorVersion     = 1
	fingerprintLength = 8
	cursorLength      = 1 + 16 + fingerprintLength
)

var errCursor = fault.New(fault.Malformed, "cursor_invalid",
	"The cursor is not one of this list. Begin again without it, or send the filter that it came with.")

var cursorEncoding = base64.RawURLEncoding

func (l cursorList) fingerprint() [fingerprintLength]byte {
	encoded, _ := json.Marshal(l) // strings and a bool always encode
	sum := sha256.Sum256(encoded)
	return [fingerprintLength]byte(sum[:fingerprintLength])
}

func (l cursorList) encode(last uuid.UUID) string {
	fingerprint := l.fingerprint()
	raw := make([]byte, 0, cursorLength)
	raw = append(raw, cursorVersion)
	raw = append(raw, last[:]...)
	raw = append(raw, fingerprint[:]...)
	return cursorEncoding.EncodeToString(raw)
}

// decode returns the id to go on after; uuid.Nil for no cursor.
func (l cursorList) decode(cursor string) (uuid.UUID, error) {
	if cursor == "" {
		return uuid.Nil, nil
	}
	raw, err := cursorEncoding.DecodeString(cursor)
	if err != nil {
		return uuid.Nil, errCursor.Because(err)
	}
	if len(raw) != cursorLength {
		return uuid.Nil, errCursor
	}
	last := uuid.UUID(raw[1:17])
	// Made again, it must be the same: version, list, and, since base64 decoders
	// pass over line ends, its only spelling.
	if last == uuid.Nil || l.encode(last) != cursor {
		return uuid.Nil, errCursor
	}
	return last, nil
}
