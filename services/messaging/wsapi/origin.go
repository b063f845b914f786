package wsapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// originAllowed keeps other sites' pages from speaking in a user's name. No
// Origin means that it is not a browser.
func (s *Server) originAllowed(r *http.Request) bool {
	header := r.Header.Get("Origin")
	if header == "" {
		return true
	}
	origin, err := ParseOrigin(header)
	if err != nil {
		return false
	}
	_, host, _ := strings.Cut(origin, "://")
	if strings.EqualFold(host, r.Host) {
		return true
	}
	for _, allowed := range s.options.AllowedOrigins {
		if origin == allowed {
			return true
		}
	}
	return false
}

var errNotOrigin = errors.New("is not an origin such as https://app.example.com")

// ParseOrigin returns an origin (RFC 6454) in the form in which origins are
// compared.
func ParseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", errNotOrigin
	}
	return strings.ToLower(u.Scheme + "://" + u.Host), nil
}
