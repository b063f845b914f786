package door

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// OriginAllowed says whether the page that sends a request may speak in a user's
// name: pages of the own host, and those of the allowed origins, each in the form
// that ParseOrigin gives. No Origin means that it is not a browser.
func OriginAllowed(r *http.Request, allowed []string) bool {
	header := r.Header.Get("Origin")
	if header == "" {
		return true
	}
	origin, err := ParseOrigin(header)
	if err != nil {
		return false
	}
	_, host, _ := strings.Cut(origin, "://")
	return strings.EqualFold(host, r.Host) || slices.Contains(allowed, origin)
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
