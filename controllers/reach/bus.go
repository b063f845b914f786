package reach

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Bus is a NATS, and what the services sign in with.
type Bus struct {
	// URLs of its servers, without credentials.
	URLs []string
	// Token; or Username and Password; or Creds, a NATS credentials file; or
	// nothing.
	Token, Username, Password string
	Creds                     []byte
	// CA holds the certificates, in PEM, that the server's is verified with;
	// empty for the machine's own roots.
	CA []byte
	// Certificate and Key, in PEM, are shown to the server; empty for none.
	Certificate, Key []byte
	// Prefix is what the subjects begin with.
	Prefix string
	// Namespace is where names of one label are looked up.
	Namespace string
}

// Digest is Target's.
func (b Bus) Digest() string {
	namespace := ""
	for _, raw := range b.URLs {
		if u, err := url.Parse(raw); err == nil && isLocal(u.Hostname()) {
			namespace = b.Namespace
		}
	}
	parts := append([]string{
		"bus", b.Token, b.Username, b.Password, string(b.Creds), string(b.CA),
		string(b.Certificate), string(b.Key), b.Prefix, namespace,
	}, b.URLs...)
	return digest(parts...)
}

func (b Bus) secrets() []string {
	secrets := []string{b.Token, b.Username, b.Password, string(b.Creds), string(b.Key)}
	for line := range strings.Lines(string(b.Creds)) {
		if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-") {
			secrets = append(secrets, line)
		}
	}
	return secrets
}

// Probe is Target's: it signs in at the first server that answers, and looks
// whether a message below the prefix comes back.
func (b Bus) Probe(ctx context.Context) Result {
	var first *Result
	for _, server := range b.URLs {
		if ctx.Err() != nil {
			break
		}
		result := b.probeInTime(ctx, server)
		if result.Reason != v1alpha1.ReasonUnreachable {
			return result
		}
		if first == nil {
			first = &result
		}
	}
	if first == nil {
		return Result{Reason: v1alpha1.ReasonUnreachable, Message: fmt.Sprintf("external bus: no answer within %s", Timeout)}
	}
	return *first
}

func (b Bus) probeInTime(ctx context.Context, server string) Result {
	ctx, cancel := context.WithTimeout(ctx, share(len(b.URLs)))
	defer cancel()
	return b.probe(ctx, server)
}

func (b Bus) probe(ctx context.Context, server string) Result {
	dialer := &recordingDialer{ctx: ctx, resolver: resolver{b.Namespace}}
	options, err := b.options(dialer)
	if err != nil {
		return b.result(server, v1alpha1.ReasonSecretInvalid, "%s", err)
	}
	conn, err := nats.Connect(server, options...)
	switch {
	case err == nil:
	case dialer.err != nil: // The driver keeps that to itself.
		return b.result(server, v1alpha1.ReasonUnreachable, "%s", explain(dialer.err, b.secrets()))
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return b.result(server, v1alpha1.ReasonAuthenticationFailed, "it refuses the credentials: %s", redact(err.Error(), b.secrets()))
	case errors.Is(err, nats.ErrSecureConnWanted):
		return b.result(server, v1alpha1.ReasonUnreachable,
			"it does not offer TLS: turn it on there, or remove bus.external.tls and use nats:// on a network that you trust")
	default:
		return b.result(server, v1alpha1.ReasonUnreachable, "%s", explain(err, b.secrets()))
	}
	defer conn.Close()

	// The answer to what is not permitted comes before that to the flush.
	subject := b.Prefix + ".probe." + rand.Text()
	heard, err := conn.SubscribeSync(subject)
	if err == nil {
		err = conn.Publish(subject, nil)
	}
	if err == nil {
		err = conn.FlushWithContext(ctx)
	}
	if last := conn.LastError(); errors.Is(last, nats.ErrPermissionViolation) {
		return b.result(server, v1alpha1.ReasonUnsupported,
			"the credentials do not allow to publish and to subscribe below %s: allow %s.>", b.Prefix, b.Prefix)
	}
	if err == nil {
		_, err = heard.NextMsgWithContext(ctx)
	}
	if err != nil {
		return b.result(server, v1alpha1.ReasonUnreachable, "no message comes through: %s", explain(err, b.secrets()))
	}
	return Result{Reason: v1alpha1.ReasonReady, Message: fmt.Sprintf("external bus %s: NATS takes connections", b.hosts())}
}

func (b Bus) options(dialer *recordingDialer) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("marketplane-operator"),
		nats.Timeout(share(len(b.URLs))),
		nats.NoReconnect(),
		nats.SkipHostLookup(),
		nats.SyncQueueLen(1), // one message is waited for; the default is half a megabyte
		nats.SetCustomDialer(dialer),
		// What is not permitted is looked for, not logged.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	switch {
	case b.Token != "":
		options = append(options, nats.Token(b.Token))
	case b.Username != "":
		options = append(options, nats.UserInfo(b.Username, b.Password))
	case len(b.Creds) > 0:
		_, noToken := nkeys.ParseDecoratedJWT(b.Creds)
		if _, noKey := nkeys.ParseDecoratedNKey(b.Creds); noToken != nil || noKey != nil {
			return nil, errors.New("what should be a NATS credentials file holds no JWT with its seed")
		}
		options = append(options, nats.UserCredentialBytes(b.Creds))
	}
	if len(b.CA) == 0 && len(b.Certificate) == 0 {
		return options, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(b.CA) > 0 {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(b.CA) {
			return nil, errors.New("there is no certificate in PEM among those to verify the server with")
		}
	}
	if len(b.Certificate) > 0 {
		certificate, err := tls.X509KeyPair(b.Certificate, b.Key)
		if err != nil {
			return nil, errors.New("the client certificate and its key do not fit together, or are not in PEM")
		}
		secure.Certificates = []tls.Certificate{certificate}
	}
	return append(options, nats.Secure(secure)), nil
}

func (b Bus) result(server, reason, format string, args ...any) Result {
	return Result{Reason: reason, Message: fmt.Sprintf("external bus %s: %s", hostOf(server), fmt.Sprintf(format, args...))}
}

func (b Bus) hosts() string {
	hosts := make([]string, 0, len(b.URLs))
	for _, server := range b.URLs {
		hosts = append(hosts, hostOf(server))
	}
	return strings.Join(hosts, ", ")
}

func hostOf(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return "(not a URL)"
	}
	return u.Host
}

// recordingDialer keeps why the last connection could not be made.
type recordingDialer struct {
	ctx      context.Context //nolint:containedctx // The driver's interface has none.
	resolver resolver
	err      error
}

// Dial is nats.CustomDialer's.
func (d *recordingDialer) Dial(_, address string) (net.Conn, error) {
	conn, err := d.resolver.dial(d.ctx, address)
	d.err = err
	return conn, err
}
