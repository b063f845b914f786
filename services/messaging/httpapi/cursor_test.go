package httpapi

import (
	"testing"

	"github.com/google/uuid"
)

func FuzzCursor(f *testing.F) {
	list := cursorList{user: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")}
	f.Add(list.encode(uuid.Nil))
	f.Add(list.encode(uuid.Max))
	f.Add("")
	f.Fuzz(func(t *testing.T, cursor string) {
		last, err := list.decode(cursor)
		if err == nil && list.encode(last) != cursor {
			t.Errorf("%q decodes to %s, which is %q", cursor, last, list.encode(last))
		}
	})
}
