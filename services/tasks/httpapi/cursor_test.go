package httpapi

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/tasks"
)

func TestCursorIsBoundToItsList(t *testing.T) {
	t.Parallel()
	last := uuid.Must(uuid.NewV7())
	list := cursorList{"tasks", "alice", "open", false}
	cursor := list.encode(last)
	if got, err := list.decode(cursor); err != nil || got != last {
		t.Fatalf("decode = %s, %v; want %s", got, err, last)
	}
	for name, other := range map[string]cursorList{
		"another list":   {"offers", "alice", "open", false},
		"another user":   {"tasks", "bob", "open", false},
		"another status": {"tasks", "alice", "assigned", false},
		"mine":           {"tasks", "alice", "open", true},
	} {
		if _, err := other.decode(cursor); !errors.Is(err, errCursor) {
			t.Errorf("%s: decode = %v, want %v", name, err, errCursor)
		}
	}
	if got, err := list.decode(""); err != nil || got != uuid.Nil {
		t.Errorf("no cursor: %s, %v; want the first part", got, err)
	}
	if _, err := list.decode(list.encode(uuid.Nil)); !errors.Is(err, errCursor) {
		t.Errorf("a cursor of nothing: %v, want %v", err, errCursor)
	}
}

func FuzzCursorDecode(f *testing.F) {
	list := cursorList{"tasks", "alice", "open", false}
	good := list.encode(uuid.Must(uuid.NewV7()))
	for _, seed := range []string{"", good, good[:10], good + "A", good + "=", "%%%", "AQ", cursorList{}.encode(uuid.Max)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		last, err := list.decode(cursor)
		switch {
		case err != nil:
			if !errors.Is(err, errCursor) {
				t.Fatalf("decode(%q) = %v, want a cursor fault", cursor, err)
			}
		case last == uuid.Nil:
			if cursor != "" {
				t.Fatalf("decode(%q) begins anew", cursor)
			}
		case list.encode(last) != cursor:
			t.Fatalf("decode(%q) = %s, which is spelled %q", cursor, last, list.encode(last))
		}
	})
}

func TestExpectedOf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		header  string
		want    tasks.Expected
		wantErr error
	}{
		"absent":          {header: ""},
		"any":             {header: "*"},
		"one":             {header: `"3"`, want: tasks.Expected{3}},
		"several":         {header: `"3", "4"`, want: tasks.Expected{3, 4}},
		"weak":            {header: `W/"3"`, want: tasks.Expected{}},
		"no version":      {header: `"abc"`, want: tasks.Expected{}},
		"another writing": {header: `"03"`, want: tasks.Expected{}},
		"too large":       {header: `"99999999999999999999"`, want: tasks.Expected{}},
		"without quotes":  {header: "3", wantErr: errIfMatch},
		"half a list":     {header: `"3",`, wantErr: errIfMatch},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := expectedOf(test.header)
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("error = %v, want %v", err, test.wantErr)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("expected (-want +got):\n%s", diff)
			}
		})
	}
}
