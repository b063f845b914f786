package messaging

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
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
	return string(AppendCursor(nil, user, offset))
}

// AppendCursor appends what EncodeCursor returns.
func AppendCursor(to []byte, user uuid.UUID, offset int64) []byte {
	var raw [cursorSize]byte
	raw[0] = cursorVersion
	binary.BigEndian.PutUint64(raw[1:], uint64(offset)) //nolint:gosec // G115: offsets are never negative
	binary.BigEndian.PutUint32(raw[9:], cursorCheck(user, raw[:9]))
	return cursorEncoding.AppendEncode(to, raw[:])
}

// AppendUUID appends an id's text, which uuid.UUID's own methods allocate.
func AppendUUID(to []byte, id uuid.UUID) []byte {
	to = append(hex.AppendEncode(to, id[:4]), '-')
	to = append(hex.AppendEncode(to, id[4:6]), '-')
	to = append(hex.AppendEncode(to, id[6:8]), '-')
	to = append(hex.AppendEncode(to, id[8:10]), '-')
	return hex.AppendEncode(to, id[10:])
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

// cursorCheck finds another user's cursor, and damage: the CRC-32 (IEEE 802.3)
// of both. Every delivery has one; crc32's own functions would have both
// allocated.
func cursorCheck(user uuid.UUID, raw []byte) uint32 {
	check := ^uint32(0)
	for _, b := range raw {
		check = crc32.IEEETable[byte(check&0xff)^b] ^ check>>8
	}
	for _, b := range user {
		check = crc32.IEEETable[byte(check&0xff)^b] ^ check>>8
	}
	return ^check
}
