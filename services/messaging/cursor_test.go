package messaging

import (
	"math"
	"testing"

	"github.com/google/uuid"
)

func TestCursorsAreTheirUsersOwn(t *testing.T) {
	t.Parallel()
	user, other := uuid.New(), uuid.New()
	for _, offset := range []int64{0, 1, 42, math.MaxInt64} {
		cursor := EncodeCursor(user, offset)
		if got, ok := DecodeCursor(user, cursor); !ok || got != offset {
			t.Errorf("%d comes back as %d, %t", offset, got, ok)
		}
		if _, ok := DecodeCursor(other, cursor); ok {
			t.Errorf("another user's cursor is taken")
		}
		if _, ok := DecodeCursor(user, cursor+"="); ok {
			t.Errorf("padding is taken")
		}
	}
}

func FuzzDecodeCursor(f *testing.F) {
	user := uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")
	f.Add(EncodeCursor(user, 0))
	f.Add(EncodeCursor(user, 1<<40))
	f.Add("")
	f.Add("AQAAAAAAAAAqAAAAAA")
	f.Add("\n\r\n\rAQAAAAAAAAAqAA")
	f.Fuzz(func(t *testing.T, cursor string) {
		offset, ok := DecodeCursor(user, cursor)
		if !ok {
			return
		}
		if offset < 0 {
			t.Errorf("offset %d", offset)
		}
		if again := EncodeCursor(user, offset); again != cursor {
			t.Errorf("%q decodes to %d, which is %q", cursor, offset, again)
		}
	})
}
