package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/marketplane/marketplane/services/client"
	"github.com/marketplane/marketplane/services/smoke"
)

// runSmoke walks the story against a running deployment.
func runSmoke(ctx context.Context, in invocation) error {
	flags := flag.NewFlagSet("smoke", flag.ContinueOnError)
	flags.SetOutput(in.stderr)
	var (
		base      = flags.String("url", "", "base `URL` of the deployment, as in http://127.0.0.1:8080")
		auth      = flags.String("auth-url", "", "base `URL` of auth, where it is another one")
		tasks     = flags.String("tasks-url", "", "base `URL` of tasks, where it is another one")
		messaging = flags.String("messaging-url", "", "base `URL` of messaging, where it is another one")
		connectTo = flags.String("connect-to", "", "the `IP` to connect to, whatever the URLs' host: a proxy whose name is not in the DNS yet, say")
		ca        = flags.String("ca", "", "a PEM `file` of certificate authorities to trust, instead of the system's")
		timeout   = flags.Duration("timeout", 2*time.Minute, "how long the whole story may take")
	)
	if err := flags.Parse(in.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var urls client.URLs
	for _, u := range []struct {
		flag  string
		value string
		into  *string
	}{
		{"--auth-url", *auth, &urls.Auth},
		{"--tasks-url", *tasks, &urls.Tasks},
		{"--messaging-url", *messaging, &urls.Messaging},
	} {
		*u.into = u.value
		if u.value == "" {
			*u.into, u.flag = *base, "--url"
		}
		parsed, err := url.Parse(*u.into)
		if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
			return fmt.Errorf("%s: need a base URL such as http://127.0.0.1:8080", u.flag)
		}
	}
	transport, err := smokeTransport(*connectTo, *ca)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	return smoke.Run(ctx, client.New(urls, transport), in.stdout)
}

// smokeTransport is what the two flags say of the way.
func smokeTransport(connectTo, ca string) (*http.Transport, error) {
	var to netip.Addr
	if connectTo != "" {
		parsed, err := netip.ParseAddr(connectTo)
		if err != nil {
			return nil, fmt.Errorf("--connect-to %q: need an IP address such as 10.96.0.80", connectTo)
		}
		to = parsed
	}
	if ca == "" {
		return client.Transport(to, nil), nil
	}
	content, err := os.ReadFile(ca) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("--ca %s: no certificate in it", ca)
	}
	return client.Transport(to, roots), nil
}
