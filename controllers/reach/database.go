package reach

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/databaseurl"
)

// MinServerVersion is the oldest PostgreSQL that works.
const MinServerVersion = 15

// Database is a PostgreSQL, and the role that migrates there.
type Database struct {
	// Server is where it is.
	Server databaseurl.Server
	// CA holds the certificates, in PEM, that the server's is verified with;
	// empty for the machine's own roots.
	CA []byte
	// Namespace is where names of one label are looked up.
	Namespace string
}

// Digest is Target's.
func (d Database) Digest() string {
	namespace := ""
	for _, host := range d.Server.Hosts() {
		name, _, _ := strings.Cut(host, ":")
		if isLocal(name) {
			namespace = d.Namespace
		}
	}
	return digest("database", d.Server.AdminURL(""), string(d.CA), namespace)
}

// SQLSTATEs (PostgreSQL's manual, appendix A).
const (
	classAuthorization     = "28"
	codeNoDatabase         = "3D000"
	codeInsufficientRights = "42501"
)

// needs asks for everything at once.
const needs = `
SELECT current_setting('server_encoding'),
       pg_is_in_recovery() OR current_setting('transaction_read_only')::bool,
       r.rolsuper OR r.rolcreaterole,
       has_database_privilege(current_database(), 'CREATE')
FROM pg_roles r WHERE r.rolname = current_user`

// Probe is Target's: it signs in and looks whether the server is new enough,
// takes writes, and lets the role do what a migration does.
func (d Database) Probe(ctx context.Context) Result {
	config, err := d.config()
	if err != nil {
		return d.result(v1alpha1.ReasonSecretInvalid, "%s", err)
	}
	hosts := []string{config.Host}
	for _, fallback := range config.Fallbacks {
		hosts = append(hosts, fallback.Host)
	}
	config.ConnectTimeout = share(resolver{d.Namespace}.addresses(ctx, hosts)) // for each of them
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return d.failed(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // It is bounded by the driver.

	version := conn.PgConn().ParameterStatus("server_version")
	if n := majorOf(version); n < MinServerVersion {
		return d.result(v1alpha1.ReasonUnsupported, "it is version %s, and %d or newer is needed",
			redact(version, d.Server.Secrets()), MinServerVersion)
	}
	var (
		encoding                        string
		readOnly, mayRoles, mayDatabase bool
	)
	if err := conn.QueryRow(ctx, needs).Scan(&encoding, &readOnly, &mayRoles, &mayDatabase); err != nil {
		return d.failed(err)
	}
	switch {
	case readOnly:
		return d.result(v1alpha1.ReasonUnsupported,
			"it takes no writes, as a standby does: the URL must lead to the primary")
	case encoding != "UTF8":
		return d.result(v1alpha1.ReasonUnsupported,
			"the database's encoding is %s: make one with ENCODING 'UTF8' and TEMPLATE template0", encoding)
	case !mayRoles:
		return d.result(v1alpha1.ReasonUnsupported,
			"the role of the URL may not create roles: give it CREATEROLE (ALTER ROLE … CREATEROLE)")
	case !mayDatabase:
		return d.result(v1alpha1.ReasonUnsupported,
			"the role of the URL may not create schemas: give it the right (GRANT CREATE ON DATABASE … TO …)")
	}
	return d.result(v1alpha1.ReasonReady, "PostgreSQL %d takes connections", majorOf(version))
}

func (d Database) config() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(d.Server.AdminURL(""))
	if err != nil {
		// What the driver says quotes the URL.
		return nil, errors.New("the driver cannot read the URL: check the port and the host")
	}
	var roots *x509.CertPool
	if len(d.CA) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(d.CA) {
			return nil, errors.New("there is no certificate in PEM among those to verify the server with")
		}
	}
	configs := []*tls.Config{config.TLSConfig}
	for _, fallback := range config.Fallbacks {
		configs = append(configs, fallback.TLSConfig)
	}
	for _, c := range configs {
		if c != nil {
			c.RootCAs = roots
		}
	}
	config.LookupFunc = resolver{d.Namespace}.lookup
	config.RuntimeParams["application_name"] = "marketplane-operator"
	config.RuntimeParams["statement_timeout"] = strconv.FormatInt(Timeout.Milliseconds(), 10)
	// One query: nothing is prepared. The driver then insists on this encoding.
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return config, nil
}

func (d Database) failed(err error) Result {
	var server *pgconn.PgError
	if !errors.As(err, &server) {
		why := explain(err, d.Server.Secrets())
		if strings.Contains(why, "server refused TLS connection") {
			why = "the server does not offer TLS: turn it on there, or set database.external.tls.mode: Disable on a network that you trust"
		}
		return d.result(v1alpha1.ReasonUnreachable, "%s", why)
	}
	words := fmt.Sprintf("%s (SQLSTATE %s)", redact(server.Message, d.Server.Secrets()), redact(server.Code, d.Server.Secrets()))
	switch {
	case strings.HasPrefix(server.Code, classAuthorization):
		return d.result(v1alpha1.ReasonAuthenticationFailed, "it does not let the role of the URL in: %s", words)
	case server.Code == codeNoDatabase:
		return d.result(v1alpha1.ReasonUnsupported, "it has no database of the name in the URL: %s", words)
	case server.Code == codeInsufficientRights:
		return d.result(v1alpha1.ReasonUnsupported, "the role of the URL lacks a right: %s", words)
	default:
		return d.result(v1alpha1.ReasonUnreachable, "%s", words)
	}
}

func (d Database) result(reason, format string, args ...any) Result {
	return Result{
		Reason:  reason,
		Message: fmt.Sprintf("external database %s: %s", strings.Join(d.Server.Hosts(), ", "), fmt.Sprintf(format, args...)),
	}
}

// majorOf reads the major version out of what a server calls itself.
func majorOf(version string) int {
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(version)
	}
	n, err := strconv.Atoi(version[:digits])
	if err != nil {
		return 0
	}
	return n
}
