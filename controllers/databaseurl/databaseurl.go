// Package databaseurl reads the URL of an external PostgreSQL that a user gave,
// and derives from it the URLs that the migration and the services connect
// with. It is pure: it must not know Secrets, clients or drivers. No error of it
// quotes any part of a URL, since a mistake may put the password anywhere.
package databaseurl

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// The TLS modes as libpq's sslmode has them (PostgreSQL's manual, table 34.1).
// Its allow and prefer are no promise, and are refused.
const (
	ModeDisable    = "disable"
	ModeRequire    = "require"
	ModeVerifyCA   = "verify-ca"
	ModeVerifyFull = "verify-full"
)

// Server is an external PostgreSQL and its administrator. It holds a password:
// keep it out of logs.
type Server struct {
	admin  *url.Userinfo
	host   string
	path   string
	params url.Values
	mode   string
	ca     bool
}

// form is what a URL must look like.
const form = "it must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters in the user and the password percent-encoded"

// kept are the parameters that the derived URLs have, too, and their values;
// any value where none is listed.
var kept = map[string][]string{
	"target_session_attrs": {"any", "read-write", "primary"},
	"channel_binding":      {"disable", "prefer", "require"},
	"sslnegotiation":       {"postgres", "direct"},
	"sslsni":               {"0", "1"},
}

// dropped are parameters that each process sets by itself.
var dropped = []string{"application_name", "connect_timeout"}

// remedies say what to do about parameters that people try.
var remedies = map[string]string{
	"sslrootcert":  "put the certificates into a Secret and name it in database.external.tls.caSecretRef",
	"sslcert":      certificates,
	"sslkey":       certificates,
	"sslpassword":  certificates,
	"sslcertmode":  certificates,
	"passfile":     "files are not read: " + form,
	"service":      "files are not read: " + form,
	"servicefile":  "files are not read: " + form,
	"user":         form,
	"password":     form,
	"host":         form,
	"hostaddr":     form,
	"port":         form,
	"dbname":       form,
	"database":     form,
	"options":      "remove it: the services set what they need",
	"search_path":  "remove it: the services set what they need",
	"pgbouncer":    "remove it, and name the server itself: the migration holds a lock for its session, which a transaction pooler breaks",
	"ssl":          "use sslmode, or database.external.tls.mode",
	"krbsrvname":   "remove it: roles sign in with passwords",
	"gssencmode":   "remove it: connections are secured by TLS",
	"replication":  "remove it: ordinary connections are needed",
	"require_auth": "remove it: the server says how roles sign in",
}

const certificates = "remove it: client certificates are not supported, roles sign in with passwords"

// modes maps the field to sslmode.
var modes = map[v1alpha1.DatabaseTLSMode]string{
	v1alpha1.DatabaseTLSDisable:    ModeDisable,
	v1alpha1.DatabaseTLSRequire:    ModeRequire,
	v1alpha1.DatabaseTLSVerifyCA:   ModeVerifyCA,
	v1alpha1.DatabaseTLSVerifyFull: ModeVerifyFull,
}

// Parse reads a URL as spec.database.external.tls completes it. tls may be nil.
func Parse(raw string, tls *v1alpha1.DatabaseTLS) (Server, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return Server{}, errors.New("it is not a URL: " + form)
	}
	password, hasPassword := "", false
	if u.User != nil {
		password, hasPassword = u.User.Password()
	}
	switch {
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return Server{}, errors.New("its scheme is not postgres: " + form)
	case u.User.Username() == "":
		return Server{}, errors.New("it names no user: " + form)
	case !hasPassword || password == "":
		return Server{}, errors.New("it has no password: " + form)
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return Server{}, errors.New("it has a '#', which ends a URL: write %23 in its place")
	case u.Opaque != "" || slices.Contains(strings.Split(u.Host, ","), ""):
		return Server{}, errors.New("it names no host: " + form)
	case len(u.Path) < 2 || strings.Contains(u.Path[1:], "/"):
		return Server{}, errors.New("it names no database: " + form)
	}
	s := Server{
		admin: u.User, host: u.Host, path: u.Path, params: url.Values{},
		ca: tls != nil && tls.CASecretRef != nil,
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Server{}, errors.New("its parameters cannot be read: " + form)
	}
	inURL, err := s.takeParameters(query)
	if err != nil {
		return Server{}, err
	}
	s.mode, err = effectiveMode(inURL, tls)
	return s, err
}

// takeParameters keeps what matters and returns sslmode.
func (s *Server) takeParameters(query url.Values) (mode string, err error) {
	// In order, so that the same URL always has the same error.
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values, isKept := kept[name]
		value := query.Get(name)
		remedy, isKnown := remedies[name]
		switch {
		case isKnown:
			return "", fmt.Errorf("its parameter %s is not allowed: %s", name, remedy)
		case name == "sslmode" && len(query[name]) == 1:
			mode = value
		case slices.Contains(dropped, name):
		case isKept && len(query[name]) == 1 && slices.Contains(values, value):
			s.params.Set(name, value)
		case isKept:
			return "", fmt.Errorf("its parameter %s must be one of %s", name, strings.Join(values, ", "))
		default:
			return "", errors.New("it has a parameter that is not allowed (or twice the same): " + allowed())
		}
	}
	return mode, nil
}

func allowed() string {
	names := append([]string{"sslmode"}, dropped...)
	for name := range kept {
		names = append(names, name)
	}
	slices.Sort(names)
	return "remove it; allowed are " + strings.Join(names, ", ")
}

// effectiveMode is what the field or the URL says, which must not contradict
// each other.
func effectiveMode(inURL string, tls *v1alpha1.DatabaseTLS) (string, error) {
	wanted, ca := "", false
	if tls != nil {
		wanted, ca = modes[tls.Mode], tls.CASecretRef != nil
	}
	switch inURL {
	case "", ModeDisable, ModeRequire, ModeVerifyCA, ModeVerifyFull:
	case "allow", "prefer":
		return "", fmt.Errorf("its parameter sslmode=%s promises nothing: set database.external.tls.mode, or sslmode to one of disable, require, verify-ca, verify-full", inURL)
	default:
		return "", errors.New("its parameter sslmode must be one of disable, require, verify-ca, verify-full")
	}
	if wanted != "" && inURL != "" && wanted != inURL {
		return "", fmt.Errorf("its parameter sslmode=%s contradicts database.external.tls.mode: %s: remove one of them", inURL, tls.Mode)
	}
	mode := wanted
	if mode == "" {
		mode = inURL
	}
	switch {
	case mode == "":
		return ModeVerifyFull, nil
	case mode == ModeDisable && ca:
		return "", errors.New("its parameter sslmode=disable contradicts database.external.tls.caSecretRef: remove one of them")
	case mode == ModeRequire && ca:
		// As libpq has it: certificates that are given are used.
		return ModeVerifyCA, nil
	default:
		return mode, nil
	}
}

// Mode is the effective sslmode.
func (s Server) Mode() string { return s.mode }

// Hosts are the servers, as host or host:port, in the order in which they are
// tried.
func (s Server) Hosts() []string { return strings.Split(s.host, ",") }

// Secrets are the texts that must not be told to anybody: the administrator's
// password and name.
func (s Server) Secrets() []string {
	password, _ := s.admin.Password()
	return []string{password, s.admin.Username()}
}

// AdminURL is the administrator's. caFile is where the certificates of
// tls.caSecretRef lie; without it, and where there are none, the roots are the
// machine's own.
func (s Server) AdminURL(caFile string) string { return s.url(s.admin, caFile) }

// RoleURL is that of another role on the same database; see AdminURL.
func (s Server) RoleURL(role, password, caFile string) string {
	return s.url(url.UserPassword(role, password), caFile)
}

func (s Server) url(user *url.Userinfo, caFile string) string {
	params := url.Values{"sslmode": {s.mode}}
	for name, values := range s.params {
		params[name] = values
	}
	if s.ca && caFile != "" {
		params.Set("sslrootcert", caFile)
	}
	u := url.URL{Scheme: "postgres", User: user, Host: s.host, Path: s.path}
	// A path in a query needs no escapes, and reads better without.
	u.RawQuery = strings.ReplaceAll(params.Encode(), "%2F", "/")
	return u.String()
}
