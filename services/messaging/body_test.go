package messaging

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestCheckBody(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return strings.Repeat(`{"a":`, depth-1) + `{"b":1}` + strings.Repeat(`}`, depth-1)
	}
	tests := map[string]struct {
		body     string
		want     string
		wantCode string
	}{
		"object":               {body: ` { "text" : "hi" } `, want: `{"text":"hi"}`},
		"escapes stay":         {body: `{"a":"\u00e9\n"}`, want: `{"a":"\u00e9\n"}`},
		"null inside":          {body: `{"a":null}`, want: `{"a":null}`},
		"deep enough":          {body: nested(maxBodyDepth), want: nested(maxBodyDepth)},
		"nothing":              {wantCode: "body_invalid"},
		"null":                 {body: `null`, wantCode: "body_invalid"},
		"empty object":         {body: `{ }`, wantCode: "body_invalid"},
		"array":                {body: `[1]`, wantCode: "body_invalid"},
		"text":                 {body: `"hi"`, wantCode: "body_invalid"},
		"two objects":          {body: `{"a":1}{"b":2}`, wantCode: "body_invalid"},
		"cut off":              {body: `{"a":1`, wantCode: "body_invalid"},
		"too deep":             {body: nested(maxBodyDepth + 1), wantCode: "body_invalid"},
		"NUL in a value":       {body: `{"a":"x\u0000"}`, wantCode: "body_invalid"},
		"NUL in a name":        {body: `{"\u0000":1}`, wantCode: "body_invalid"},
		"not UTF-8":            {body: "{\"a\":\"\xff\"}", wantCode: "body_invalid"},
		"endless number":       {body: `{"a":` + strings.Repeat("9", maxNumber+1) + `}`, wantCode: "body_invalid"},
		"double's range":       {body: `{"a":[1.7e308,-2.2E-308]}`, want: `{"a":[1.7e308,-2.2E-308]}`},
		"exponent above it":    {body: `{"a":1e309}`, wantCode: "body_invalid"},
		"exponent below it":    {body: `{"a":1e-309}`, wantCode: "body_invalid"},
		"endless exponent":     {body: `{"a":1e99999999999999999999}`, wantCode: "body_invalid"},
		"grows when stored":    {body: `{"a":[1` + strings.Repeat(`,1e308`, MaxBody/308+1) + `]}`, wantCode: "body_invalid"},
		"as large as may be":   {body: `{"a":"` + strings.Repeat("x", MaxBody-8) + `"}`, want: `{"a":"` + strings.Repeat("x", MaxBody-8) + `"}`},
		"larger than that":     {body: `{"a":"` + strings.Repeat("x", MaxBody-7) + `"}`, wantCode: "body_too_large"},
		"white space counts":   {body: `{"a":1}` + strings.Repeat(" ", MaxBody), wantCode: "body_too_large"},
		"unpaired surrogate":   {body: `{"a":"\ud800"}`, wantCode: "body_invalid"},
		"surrogates apart":     {body: `{"a":"\ud83dx\ude00"}`, wantCode: "body_invalid"},
		"high before escape":   {body: `{"a":"\ud83d\n"}`, wantCode: "body_invalid"},
		"low first":            {body: `{"a":"\ude00\ud83d"}`, wantCode: "body_invalid"},
		"paired surrogates":    {body: `{"a":"\ud83d\ude00"}`, want: `{"a":"\ud83d\ude00"}`},
		"backslash, then \\u0": {body: `{"a":"\\u0000"}`, want: `{"a":"\\u0000"}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := checkBody([]byte(tt.body))
			var f *fault.Error
			if code := ""; errors.As(err, &f) || err == nil {
				if f != nil {
					code = f.Code
				}
				if code != tt.wantCode {
					t.Fatalf("code %q, want %q (%v)", code, tt.wantCode, err)
				}
			} else {
				t.Fatalf("an error that is no fault: %v", err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzCheckBody(f *testing.F) {
	f.Add([]byte(`{"a":"\ud83d\ude00",  "b":[1,{"c":null}]}`))
	f.Add([]byte(`{"\\u":"\\"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := checkBody(body)
		if err != nil {
			return
		}
		again, err := checkBody(got)
		if err != nil || string(again) != string(got) {
			t.Errorf("%q is taken as %q, and that as %q, %v", body, got, again, err)
		}
	})
}
