package messaging

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/google/uuid"
)

// cursorVersion is the first byte of every cursor: other layouts get others.
const cursorVersion = 1

const cursorSize = 1 + 8 + 4 // version, offset, check

var cursorEncoding = base64.RawURLEncoding.Strict()

// EncodeCursor returns the opaque text for a place in a user's stream. It is
// no secret and proves nothing: whoever presents it must be authenticated.
func EncodeCursor(user uuid.UUID, offset int64) string {
	var raw [cursorSize]byte
	raw[0] = cursorVersion
	binary.BigEndian.PutUint64(raw[1:], uint64(offset)) //nolint:gosec // G115: offsets are never negative
	binary.BigEndian.PutUint32(raw[9:], cursorCheck(user, raw[:9]))
	return cursorEncoding.EncodeToString(raw[:])
}

// DecodeCursor returns the offset; ok is false for what is no cursor of this
// user's.
func DecodeCursor(user uuid.UUID, cursor string) (offset int64, ok bool) {
	if len(cursor) != cursorEncoding.EncodedLen(cursorSize) {
		return 0, false
	}
	raw, err := cursorEncoding.DecodeString(cursor)
	if err != nil || len(raw) != cursorSize || raw[0] != cursorVersion {
		return 0, false
	}
	if binary.BigEndian.Uint32(raw[9:]) != cursorCheck(user, raw[:9]) {
		return 0, false
	}
	offset = int64(binary.BigEndian.Uint64(raw[1:9])) //nolint:gosec // G115: checked on the next line
	return offset, offset >= 0
}

// cursorCheck finds another user's cursor, and damage.
func cursorCheck(user uuid.UUID, raw []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(raw), crc32.IEEETable, user[:])
}
