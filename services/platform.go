package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/lifecycle"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/telemetry"
	"github.com/marketplane/marketplane/services/internal/web"
)

// processConfig is what every service process reads.
type processConfig struct {
	installation   string
	instance       string
	listen         string
	internalListen string
	logLevel       string
	issuer         string
	busURLs        []string
	busToken       string
	busFiles       bus.Files
	drain          contract.Drain
}

// serviceConfig is what a process of one service reads beside it.
type serviceConfig struct {
	processConfig
	databaseURL string
	jwksFile    string
}

func readProcess(source *env.Source) processConfig {
	hostname, _ := os.Hostname() // a fallback; an empty name is a name too
	return processConfig{
		installation:   source.Required(contract.EnvInstallation),
		instance:       source.String(contract.EnvInstance, hostname),
		listen:         source.Address(contract.EnvListen, fmt.Sprintf(":%d", contract.PublicPort)),
		internalListen: source.Address(contract.EnvInternalListen, fmt.Sprintf(":%d", contract.InternalPort)),
		logLevel:       source.String(contract.EnvLogLevel, "info"),
	}
}

func readService(source *env.Source) serviceConfig {
	config := serviceConfig{
		processConfig: readProcess(source),
		databaseURL:   source.Secret(contract.EnvDatabaseURLFile),
		jwksFile:      source.File(contract.EnvJWKSFile),
	}
	config.issuer = source.Required(contract.EnvIssuer)
	config.busURLs = source.List(contract.EnvBusURL)
	if len(config.busURLs) == 0 {
		source.Fail(contract.EnvBusURL, fmt.Errorf("must be set"))
	}
	if source.String(contract.EnvBusTokenFile, "") != "" {
		config.busToken = source.Secret(contract.EnvBusTokenFile)
	}
	config.busFiles = readBusFiles(source)
	config.drain = contract.Drain{
		Floor:  source.Duration(contract.EnvDrainFloor, 10*time.Second, 0, 10*time.Minute),
		Window: source.Duration(contract.EnvDrainWindow, 120*time.Second, 0, time.Hour),
	}
	return config
}

// readBusFiles reads where the bus's credentials and certificates lie. What is
// in them is read at each connection.
func readBusFiles(source *env.Source) bus.Files {
	files := bus.Files{
		CredentialsDir: source.String(contract.EnvBusCredentialsDir, ""),
		CA:             source.String(contract.EnvBusCAFile, ""),
		Certificate:    source.String(contract.EnvBusCertificateFile, ""),
		Key:            source.String(contract.EnvBusKeyFile, ""),
	}
	if (files.Certificate == "") != (files.Key == "") {
		source.Fail(contract.EnvBusCertificateFile, fmt.Errorf("goes with %s: set both or none", contract.EnvBusKeyFile))
	}
	if files.CredentialsDir != "" && source.String(contract.EnvBusTokenFile, "") != "" {
		source.Fail(contract.EnvBusCredentialsDir, fmt.Errorf("excludes %s: set one", contract.EnvBusTokenFile))
	}
	return files
}

// process is what the services in one process share: its log, its metrics, its
// parts, its public router.
type process struct {
	config   processConfig
	log      *slog.Logger
	registry *prometheus.Registry
	group    *lifecycle.Group
	health   *lifecycle.Health
	// public is the public port's router: it has what does without logs and metrics of
	// each request, and router, which has the rest. internal is the internal port's.
	public   chi.Router
	router   chi.Router
	internal *http.ServeMux
	// stopHooks are called when the process is told to stop, before the drain's
	// floor.
	stopHooks hooks
	// drains are begun when nothing new arrives at the public port any more: what
	// is still running there may wait for what they end.
	drains []func(ctx context.Context)
}

// hooks are functions to call when something happens.
type hooks struct {
	mu  sync.Mutex
	all []func()
}

func (h *hooks) add(hook func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, hook)
}

func (h *hooks) run() {
	h.mu.Lock()
	all := slices.Clone(h.all)
	h.mu.Unlock()
	for _, hook := range all {
		hook()
	}
}

func newProcess(in invocation, config processConfig, name string) (*process, error) {
	log, err := telemetry.NewLogger(in.stderr, config.logLevel)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", contract.EnvLogLevel, err)
	}
	log = log.With("service", name, "instance", config.instance)
	registry, health := telemetry.NewRegistry(), &lifecycle.Health{}
	router, public := web.NewRouter(web.Options{Log: log, Registry: registry, Instance: config.instance}), chi.NewRouter()
	public.Mount("/", router)
	return &process{
		config:   config,
		log:      log,
		registry: registry,
		group:    lifecycle.NewGroup(log, config.drain.GracePeriod()),
		health:   health,
		public:   public,
		router:   router,
		internal: health.InternalMux(registry),
	}, nil
}

// serveInternal adds the internal server: the first part to start and the last
// to stop, so that probes and load figures are there throughout a drain.
func (p *process) serveInternal() {
	server := &lifecycle.Server{Name: "internal", Address: p.config.internalListen, Handler: p.internal, Log: p.log}
	p.group.Add(server.Part(p.group))
}

// servePublic adds the public server: the last part to start and the first to
// stop. It goes on accepting for the drain's floor; then the process is no
// longer ready.
func (p *process) servePublic() *lifecycle.Server {
	server := &lifecycle.Server{
		Name: "public", Address: p.config.listen, Handler: p.public, Log: p.log,
		Handshakes: true,
		Floor:      p.config.drain.Floor,
		Stopping:   p.stopHooks.run,
		Closed: func(ctx context.Context) {
			p.health.SetReady(false)
			for _, drain := range p.drains {
				drain(ctx)
			}
		},
	}
	p.group.Add(server.Part(p.group))
	return server
}

// platform is what one service stands on.
type platform struct {
	*process
	pool     *pgxpool.Pool
	bus      *nats.Conn
	subjects events.Subjects
	sessions *sessions
}

// newPlatform opens what a service needs; nothing must answer yet.
func newPlatform(ctx context.Context, p *process, service, databaseURL string, conn *nats.Conn, s *sessions) (*platform, error) {
	installation := p.config.installation
	pool, err := postgres.Open(ctx, postgres.Options{
		URL:         databaseURL,
		Application: "marketplane-" + service,
		SearchPath:  []string{contract.DatabaseSchema(installation, service), contract.EventsSchema(installation)},
	})
	if err != nil {
		return nil, err
	}
	postgres.Register(p.registry, service, pool)
	p.group.Add(lifecycle.Part{Name: service + " database", Stop: func(ctx context.Context) error {
		closed := make(chan struct{})
		go func() { // waits for the connections that are in use
			defer close(closed)
			pool.Close()
		}()
		select {
		case <-closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	return &platform{
		process: p, pool: pool, bus: conn,
		subjects: events.SubjectsOf(installation), sessions: s,
	}, nil
}

// connectBus adds the process's bus connection.
func (p *process) connectBus() (*nats.Conn, error) {
	conn, err := p.addBus("bus connection", bus.Options{Name: p.config.instance})
	if err != nil {
		return nil, err
	}
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_bus_connected",
		Help: "1 while the process is connected to the bus. Without it writes go on, and delivery waits for the database to be polled.",
	}, func() float64 {
		if conn.IsConnected() {
			return 1
		}
		return 0
	}))
	return conn, nil
}

// addBus adds a connection to the bus as a part of the process.
func (p *process) addBus(part string, options bus.Options) (*nats.Conn, error) {
	options.URLs, options.Token, options.Files, options.Log = p.config.busURLs, p.config.busToken, p.config.busFiles, p.log
	conn, err := bus.Connect(options)
	if err != nil {
		return nil, err
	}
	p.group.Add(lifecycle.Part{Name: part, Stop: func(context.Context) error {
		conn.Close()
		return nil
	}})
	return conn, nil
}

// wakeReaders tells every reader of the event log that there is something new.
// It is a hint: when it is lost, readers find out by polling.
func (p *platform) wakeReaders() {
	if err := p.bus.Publish(p.subjects.Wake(), nil); err != nil {
		p.log.Debug("readers not woken", "error", err)
	}
}

// consume adds a consumer of the event log to the process.
func (p *platform) consume(c *eventlog.Consumer) error {
	wake, err := bus.Wake(p.bus, p.subjects.Wake())
	if err != nil {
		return err
	}
	c.Pool, c.Wake, c.Log = p.pool, wake, p.log
	started := time.Now()
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "marketplane_event_consumer_lag_seconds",
		Help:        "Age of the newest moment of which this process knows that every event of before had its effect, by consumer. One process of several works; take the least.",
		ConstLabels: prometheus.Labels{"consumer": c.Name},
	}, func() float64 {
		at := c.HandledUntil()
		if at.IsZero() {
			at = started
		}
		return max(time.Since(at).Seconds(), 0)
	}))
	p.group.Go("consumer "+c.Name, c.Run)
	return nil
}

// sessions verifies tokens, and hears of sessions that end.
type sessions struct {
	*identity.Verifier
	listeners []func(session uuid.UUID)

	revocations *identity.Revocations
}

func newSessions(issuer string, keys identity.Keys) *sessions {
	revocations := identity.NewRevocations(time.Now)
	return &sessions{
		Verifier:    identity.NewVerifier(issuer, keys, revocations, time.Now),
		revocations: revocations,
	}
}

// onEnd adds a listener; before the process runs.
func (s *sessions) onEnd(listener func(session uuid.UUID)) {
	s.listeners = append(s.listeners, listener)
}

// followSessions adds the reader that tells this process of ended sessions.
func (p *platform) followSessions() error {
	wake, err := bus.Wake(p.bus, p.subjects.Wake())
	if err != nil {
		return err
	}
	follower := &eventlog.Follower{
		Types: []string{events.TypeSessionEnded},
		Pool:  p.pool, Since: time.Now().Add(-identity.Horizon), Wake: wake, Log: p.log,
		Handle: func(records []events.Record) {
			for _, r := range records {
				p.sessions.revocations.Revoke(r.Subject, r.OccurredAt)
				for _, listener := range p.sessions.listeners {
					listener(r.Subject)
				}
			}
		},
	}
	started := time.Now()
	p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_session_ends_lag_seconds",
		Help: "Time since this process last knew of all sessions that had ended: tokens of later ones are still taken here.",
	}, func() float64 {
		at := follower.CaughtUpAt()
		if at.IsZero() {
			at = started
		}
		return time.Since(at).Seconds()
	}))
	// Before anything is served, so that no token of a session that ended before
	// is taken. Without its database the process starts all the same.
	p.group.Add(lifecycle.Part{Name: "past session ends", Start: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
		defer cancel()
		if err := follower.CatchUp(ctx); err != nil {
			p.log.Warn("starting without knowing all ended sessions", "error", err)
		}
		return nil
	}})
	p.group.Go("session ends", follower.Run)
	return nil
}

// catchUpTimeout bounds the wait for the database at the start.
const catchUpTimeout = 3 * time.Second

// runService runs a process of one service, which add puts on its platform.
func runService(ctx context.Context, in invocation, config serviceConfig, service string, add func(*platform) error) error {
	p, err := newProcess(in, config.processConfig, service)
	if err != nil {
		return err
	}
	keys, err := identity.OpenKeyFile(config.jwksFile, p.log)
	if err != nil {
		return err
	}
	p.serveInternal()
	p.group.Go("public keys", keys.Run)
	conn, err := p.connectBus()
	if err != nil {
		return err
	}
	pf, err := newPlatform(ctx, p, service, config.databaseURL, conn, newSessions(config.issuer, keys))
	if err != nil {
		return err
	}
	// Before the service, so that it stops after it: a session that ends while
	// connections drain still closes them.
	if err := pf.followSessions(); err != nil {
		return err
	}
	if err := add(pf); err != nil {
		return err
	}
	p.servePublic()
	return p.group.Run(ctx, func() {
		p.health.SetReady(true)
		p.log.Info("ready", "listen", config.listen)
	})
}
