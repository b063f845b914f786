package door

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestOriginAllowed(t *testing.T) {
	t.Parallel()
	allowed := []string{"https://app.example.com", "http://localhost:3000"}
	tests := map[string]struct {
		origin string
		want   bool
	}{
		"not a browser":   {"", true},
		"own host":        {"https://market.example.com", true},
		"own host, case":  {"https://Market.Example.COM", true},
		"listed":          {"https://app.example.com", true},
		"listed, port":    {"http://localhost:3000", true},
		"other scheme":    {"http://app.example.com", false},
		"other port":      {"http://localhost:3001", false},
		"suffix":          {"https://evil-app.example.com", false},
		"prefix":          {"https://app.example.com.evil.net", false},
		"opaque":          {"null", false},
		"with a path":     {"https://app.example.com/x", false},
		"with a user":     {"https://app.example.com@evil.net", false},
		"own port spoofs": {"https://market.example.com:8443", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "https://market.example.com/v1/ws", nil)
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if got := OriginAllowed(r, allowed); got != tt.want {
				t.Errorf("%q: %t", tt.origin, got)
			}
		})
	}
}

func TestParseOrigin(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		want    string
		wantErr bool
	}{
		"usual":         {text: "https://App.example.com", want: "https://app.example.com"},
		"IPv6":          {text: "http://[::1]:8080", want: "http://[::1]:8080"},
		"star":          {text: "*", wantErr: true},
		"host alone":    {text: "app.example.com", wantErr: true},
		"trailing path": {text: "https://app.example.com/", wantErr: true},
		"query":         {text: "https://app.example.com?x", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseOrigin(tt.text)
			if (err != nil) != tt.wantErr || got != tt.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// What is taken for an origin names one: a scheme and a host, in a form that is
// its own canonical form.
func FuzzParseOrigin(f *testing.F) {
	for _, seed := range []string{"https://App.example.com", "http://[::1]:8080", "null", "https://a@b", "https://a/?#"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		origin, err := ParseOrigin(text)
		if err != nil {
			return
		}
		again, err := ParseOrigin(origin)
		if err != nil || again != origin || !strings.Contains(origin, "://") {
			t.Errorf("%q gives %q, and that %q: %v", text, origin, again, err)
		}
	})
}
