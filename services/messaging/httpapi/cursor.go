package httpapi

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// cursorList is a list that cursors walk through: whatever changes what is in
// it stands here, so that no cursor goes on in another list.
type cursorList struct {
	user, task uuid.UUID
	// name tells apart lists of other things, and filters; "" is all conversations.
	name string
}

// A cursor is base64url of a version, the id that the part before ended with,
// and a check of the list. It is opaque, not secret: it says where to go on,
// never what may be seen.
const (
	cursorVersion = 1
	cursorSize    = 1 + 16 + 4
)

var errCursor = fault.New(fault.Malformed, "cursor_invalid",
	"The cursor is not one of this list. Begin again without it, or send the filter that it came with.")

func (l cursorList) check(raw []byte) uint32 {
	sum := crc32.ChecksumIEEE(raw)
	sum = crc32.Update(sum, crc32.IEEETable, l.user[:])
	sum = crc32.Update(sum, crc32.IEEETable, l.task[:])
	return crc32.Update(sum, crc32.IEEETable, []byte(l.name))
}

func (l cursorList) encode(last uuid.UUID) string {
	raw := make([]byte, 0, cursorSize)
	raw = append(raw, cursorVersion)
	raw = append(raw, last[:]...)
	raw = binary.BigEndian.AppendUint32(raw, l.check(raw))
	return base64.RawURLEncoding.EncodeToString(raw)
}

// decode returns the id to go on after.
func (l cursorList) decode(cursor string) (uuid.UUID, error) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(raw) != cursorSize {
		return uuid.Nil, errCursor
	}
	last := uuid.UUID(raw[1:17])
	// Made again, it must be the same: version, list and spelling.
	if l.encode(last) != cursor {
		return uuid.Nil, errCursor
	}
	return last, nil
}
