package door

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fault *fault.Error
		want  Problem
	}{
		"for good": {fault.New(fault.Invalid, "c", "m").At("/seq"), Problem{Code: "c", Message: "m", Pointer: "/seq"}},
		"for now":  {fault.New(fault.Unavailable, "c", "m").After(time.Second), Problem{Code: "c", Message: "m", Temporary: true, RetryMS: 1000}},
		"too fast": {fault.New(fault.TooMany, "c", "m").After(time.Microsecond), Problem{Code: "c", Message: "m", Temporary: true, RetryMS: 1}},
		"ours":     {fault.From(errors.New("secret")), Problem{Code: "internal", Message: fault.From(errors.New("")).Message}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, *ProblemOf(tt.fault)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
