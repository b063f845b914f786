package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/auth"
	"github.com/marketplane/marketplane/services/auth/httpapi"
	"github.com/marketplane/marketplane/services/auth/keys"
	"github.com/marketplane/marketplane/services/auth/metrics"
	"github.com/marketplane/marketplane/services/auth/password"
	"github.com/marketplane/marketplane/services/auth/store"
	"github.com/marketplane/marketplane/services/auth/throttle"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// How many log-ins may fail, in one process: a burst, and then one more after
// each period. An address may be a whole company's, and an account is one.
// Registrations of emails that are taken count with an address's failures.
const (
	accountFailures      = 10
	accountFailureEvery  = 30 * time.Second
	addressFailures      = 100
	addressFailuresEvery = time.Second
)

// authConfig is what auth reads beside the rest.
type authConfig struct {
	signingDir     string
	trustedProxies []netip.Prefix
}

func readAuth(source *env.Source) authConfig {
	return authConfig{signingDir: source.Required(contract.EnvSigningDir), trustedProxies: readTrustedProxies(source)}
}

func readTrustedProxies(source *env.Source) []netip.Prefix {
	var proxies []netip.Prefix
	for _, network := range source.List(contract.EnvTrustedProxies) {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			source.Fail(contract.EnvTrustedProxies, fmt.Errorf("%q is not a network such as 10.0.0.0/8", network))
			continue
		}
		proxies = append(proxies, prefix)
	}
	return proxies
}

// runAuth serves log-in, tokens and sessions.
func runAuth(ctx context.Context, in invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	source := env.New(in.getenv)
	config, own := readService(source), readAuth(source)
	if err := source.Err(); err != nil {
		return err
	}
	return runService(ctx, in, config, contract.ComponentAuth, func(p *platform) error {
		return addAuth(p, own)
	})
}

// addAuth puts the auth service on a platform.
func addAuth(p *platform, config authConfig) error {
	folder, err := keys.Open(config.signingDir, p.log)
	if err != nil {
		return err
	}
	p.group.Go("signing keys", folder.Run)
	meter := metrics.New(p.registry)
	hasher := password.New(meter.Hashed)
	meter.HashQueue(hasher.Waiting)
	svc := auth.NewService(auth.Options{
		Store:        store.New(p.pool),
		Hasher:       hasher,
		AccessTokens: identity.NewSigner(p.config.issuer, folder.SigningKeys, time.Now),
		RefreshKey:   folder.RefreshKey,
		Accounts:     throttle.New(accountFailures, accountFailureEvery, time.Now),
		Addresses:    throttle.New(addressFailures, addressFailuresEvery, time.Now),
		Wake:         p.wakeReaders,
		Meter:        meter,
		Now:          time.Now,
	})
	p.group.Go("session sweep", func(ctx context.Context) error { return svc.Sweep(ctx, p.log) })
	httpapi.Register(p.router, svc, httpapi.Options{
		Log: p.log, Verifier: p.sessions, Issuer: p.config.issuer,
		JWKS: folder.JWKS, TrustedProxies: config.trustedProxies,
	})
	return nil
}
