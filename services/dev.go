package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/postgres/local"
)

// devInstallation names the data of development. It is one for each database.
const devInstallation = "dev"

// stopTimeout bounds the end of what dev started beside the services.
const stopTimeout = 30 * time.Second

type devFlags struct {
	listen, databaseURL, dataDir, logLevel string
}

func parseDevFlags(in invocation) (devFlags, error) {
	var f devFlags
	flags := flag.NewFlagSet("dev", flag.ContinueOnError)
	flags.SetOutput(in.stderr)
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`address` of all services")
	flags.StringVar(&f.databaseURL, "database-url", "",
		"postgres:// `URL` of a role that may create roles; without it, the PostgreSQL installed here is started")
	flags.StringVar(&f.dataDir, "data-dir", defaultDataDir(in.getenv), "`folder` for signing keys and, where it is started here, PostgreSQL's data")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	if err := flags.Parse(in.args); err != nil {
		return f, err
	}
	if flags.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return f, fmt.Errorf("--listen: need an address such as 127.0.0.1:8080")
	}
	return f, nil
}

// defaultDataDir is a place that PostgreSQL's own user can reach: root's home
// is none.
func defaultDataDir(getenv func(string) string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/marketplane-dev"
	}
	if dir := getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "marketplane-dev")
	}
	return filepath.Join(getenv("HOME"), ".local", "share", "marketplane-dev")
}

// runDev runs everything in this process: the same services as in production,
// on one address.
func runDev(ctx context.Context, in invocation) (err error) {
	flags, err := parseDevFlags(in)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := newProcess(in, processConfig{
		installation: devInstallation,
		instance:     "dev",
		listen:       flags.listen,
		logLevel:     flags.logLevel,
		issuer:       "http://" + flags.listen,
		drain:        contract.Drain{Window: time.Second},
	}, "dev")
	if err != nil {
		return err
	}

	databaseURL, stopDatabase, err := devDatabase(ctx, p, flags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopDatabase()) }()
	busServer, err := bus.StartServer(bus.ServerOptions{Name: "dev", Listen: "127.0.0.1:0", Log: p.log})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, busServer.Stop(ctx))
	}()
	p.config.busURLs = []string{busServer.URL()}

	passwords := map[string]string{}
	plan := migrationPlan(devInstallation, func(service string) string {
		passwords[service] = rand.Text()
		return passwords[service]
	})
	if err := migration.Apply(ctx, databaseURL, plan, p.log); err != nil {
		return fmt.Errorf("prepare the database: %w", err)
	}
	if err := addAll(ctx, p, flags.dataDir, databaseURL, passwords); err != nil {
		return err
	}
	for _, path := range []string{contract.PathLive, contract.PathReady, contract.PathMetrics} {
		p.router.Handle(path, p.internal)
	}
	public := p.servePublic()
	return p.group.Run(ctx, func() {
		p.health.SetReady(true)
		printReady(in.stdout, public.Addr(), flags)
	})
}

func printReady(w io.Writer, address net.Addr, flags devFlags) {
	database := "PostgreSQL in " + flags.dataDir
	if flags.databaseURL != "" {
		database = "PostgreSQL as given"
	}
	fmt.Fprintf(w, "ready: http://%s, WebSocket ws://%s/v1/ws, metrics http://%s%s (%s; Ctrl-C ends it)\n",
		address, address, address, contract.PathMetrics, database)
}

// devDatabase returns the URL of the given database, or of one that it starts.
func devDatabase(ctx context.Context, p *process, flags devFlags) (string, func() error, error) {
	if flags.databaseURL != "" {
		return flags.databaseURL, func() error { return nil }, nil
	}
	p.log.Info("starting PostgreSQL", "dir", flags.dataDir)
	server, err := local.Start(ctx, local.Options{Dir: filepath.Join(flags.dataDir, "postgresql")})
	if err != nil {
		return "", nil, err
	}
	p.group.Go("PostgreSQL", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-server.Done():
			return errors.New("the server has ended; see its log in the data folder")
		}
	})
	return server.URL(), func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return server.Stop(ctx)
	}, nil
}

// addAll puts the three services in the process, each on its own role.
func addAll(ctx context.Context, p *process, dataDir, databaseURL string, passwords map[string]string) error {
	signingDir, jwksFile, err := devKeys(dataDir)
	if err != nil {
		return err
	}
	keys, err := identity.OpenKeyFile(jwksFile, p.log)
	if err != nil {
		return err
	}
	conn, err := p.connectBus()
	if err != nil {
		return err
	}
	all := newSessions(p.config.issuer, keys)
	adds := map[string]func(*platform) error{
		contract.ComponentAuth:      func(pf *platform) error { return addAuth(pf, authConfig{signingDir: signingDir}) },
		contract.ComponentTasks:     addTasks,
		contract.ComponentMessaging: func(pf *platform) error { return addMessaging(pf, messagingConfig{}) },
	}
	for i, service := range contract.Services() {
		u, err := url.Parse(databaseURL)
		if err != nil {
			return errors.New("--database-url: not a valid postgres:// URL")
		}
		u.User = url.UserPassword(contract.DatabaseRole(devInstallation, service), passwords[service])
		pf, err := newPlatform(ctx, p, service, u.String(), conn, all)
		if err != nil {
			return err
		}
		if err := adds[service](pf); err != nil {
			return err
		}
		if i == 0 { // one reader serves the whole process
			if err := pf.followSessions(); err != nil {
				return err
			}
		}
	}
	return nil
}

// devKeys makes the keys of development, once.
func devKeys(dataDir string) (signingDir, jwksFile string, err error) {
	signingDir = filepath.Join(dataDir, "signing")
	jwksFile = filepath.Join(dataDir, contract.FileJWKS)
	// The data folder is open to PostgreSQL's own user; the keys are not.
	if err := errors.Join(os.MkdirAll(dataDir, 0o755), os.MkdirAll(signingDir, 0o700)); err != nil { //nolint:gosec // G301: see above
		return "", "", fmt.Errorf("--data-dir: %w", err)
	}
	path := filepath.Join(signingDir, contract.FileSigningKeys)
	document, err := os.ReadFile(path) //nolint:gosec // G304: the developer names the folder
	var keys contract.SigningKeys
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key, err := contract.NewSigningKey(time.Now())
		if err != nil {
			return "", "", err
		}
		keys.Keys = append(keys.Keys, key)
		if document, err = keys.Marshal(); err != nil {
			return "", "", err
		}
		refresh := make([]byte, 32)
		_, _ = rand.Read(refresh) // never fails: crypto/rand
		encoded := base64.StdEncoding.EncodeToString(refresh)
		if err := os.WriteFile(filepath.Join(signingDir, contract.FileRefreshKey), []byte(encoded), 0o600); err != nil {
			return "", "", err
		}
		// Last, so that a start that was killed half-way begins again.
		if err := os.WriteFile(path, document, 0o600); err != nil { //nolint:gosec // G703: the developer names the folder
			return "", "", err
		}
	case err != nil:
		return "", "", err
	default:
		if keys, err = contract.ParseSigningKeys(document); err != nil {
			return "", "", fmt.Errorf("%s: %w", path, err)
		}
	}
	set, err := keys.JWKS()
	if err != nil {
		return "", "", err
	}
	return signingDir, jwksFile, os.WriteFile(jwksFile, set, 0o600) //nolint:gosec // G703: the developer names the folder
}
