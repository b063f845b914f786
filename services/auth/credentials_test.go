package auth

import (
	"errors"
	"strings"
	"testing"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestParseEmail(t *testing.T) {
	long := strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 58) + ".ee"
	tests := map[string]struct {
		email   string
		want    string
		wantErr bool
	}{
		"plain":            {email: "ann@example.com", want: "ann@example.com"},
		"white space":      {email: "  ann@example.com\n", want: "ann@example.com"},
		"case is kept":     {email: "Ann@Example.com", want: "Ann@Example.com"},
		"tag":              {email: "ann+chores@example.com", want: "ann+chores@example.com"},
		"longest":          {email: long, want: long},
		"too long":         {email: "x" + long, wantErr: true},
		"empty":            {wantErr: true},
		"no at":            {email: "example.com", wantErr: true},
		"with a name":      {email: "Ann <ann@example.com>", wantErr: true},
		"in brackets":      {email: "<ann@example.com>", wantErr: true},
		"two":              {email: "ann@example.com, bob@example.com", wantErr: true},
		"a header smuggle": {email: "ann@example.com\r\nBcc: bob@example.com", wantErr: true},
		"a zero octet":     {email: "ann\x00@example.com", wantErr: true},
		"not UTF-8":        {email: "ann\xff@example.com", wantErr: true},
		"a comment":        {email: "ann@example.com (Ann)", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseEmail(tt.email)
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("= %q, %v; want %q, error %t", got, err, tt.want, tt.wantErr)
			}
		})
	}
	if len(long) != MaxEmail {
		t.Fatalf("the longest address here has %d octets, not %d", len(long), MaxEmail)
	}
}

func TestParsePassword(t *testing.T) {
	tests := map[string]struct {
		password string
		wantCode string
	}{
		"fourteen":                        {strings.Repeat("a", 14), "password_length"},
		"fifteen":                         {strings.Repeat("a", 15), ""},
		"no composition rules":            {"correct horse battery staple", ""},
		"one hundred and twenty-eight":    {strings.Repeat("ä", 128), ""},
		"one more":                        {strings.Repeat("ä", 129), "password_length"},
		"counted after normalization":     {strings.Repeat("a\u0308", 14), "password_length"},
		"fifteen characters of many bits": {strings.Repeat("🦀", 15), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parsePassword(tt.password)
			var f *fault.Error
			switch {
			case tt.wantCode == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.wantCode != "" && (!errors.As(err, &f) || f.Code != tt.wantCode || f.Pointer != "/password"):
				t.Errorf("error = %v, want code %s at /password", err, tt.wantCode)
			}
		})
	}
	composed, err1 := parsePassword("fünfzehn Zeichen")
	decomposed, err2 := parsePassword("fu\u0308nfzehn Zeichen")
	if err1 != nil || err2 != nil || composed != decomposed {
		t.Error("two spellings of one password differ")
	}
}

func TestParseDisplayName(t *testing.T) {
	tests := map[string]struct {
		name    string
		want    string
		wantErr bool
	}{
		"trimmed":         {name: " Ann B. ", want: "Ann B."},
		"any script":      {name: "안나", want: "안나"},
		"ideographic":     {name: "山田\u3000太郎", want: "山田\u3000太郎"},
		"joiners":         {name: "نیک\u200cرو", want: "نیک\u200cرو"},
		"joiners alone":   {name: "\u200d\u200c", wantErr: true},
		"empty":           {name: "  ", wantErr: true},
		"longest":         {name: strings.Repeat("é", 80), want: strings.Repeat("é", 80)},
		"too long":        {name: strings.Repeat("é", 81), wantErr: true},
		"control":         {name: "Ann\x00", wantErr: true},
		"reversing marks": {name: "Ann\u202enimda", wantErr: true},
		"line break":      {name: "Ann\nB", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseDisplayName(tt.name)
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("= %q, %v; want %q, error %t", got, err, tt.want, tt.wantErr)
			}
		})
	}
}
