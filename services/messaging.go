package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/lifecycle"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
	"github.com/marketplane/marketplane/services/messaging/door"
	messagingapi "github.com/marketplane/marketplane/services/messaging/httpapi"
	"github.com/marketplane/marketplane/services/messaging/hub"
	"github.com/marketplane/marketplane/services/messaging/notify"
	"github.com/marketplane/marketplane/services/messaging/presence"
	"github.com/marketplane/marketplane/services/messaging/relay"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
	messagingstore "github.com/marketplane/marketplane/services/messaging/store"
	"github.com/marketplane/marketplane/services/messaging/webhook"
	"github.com/marketplane/marketplane/services/messaging/wsapi"
)

// runMessaging serves conversations over WebSocket and HTTP.
func runMessaging(ctx context.Context, in invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	source := env.New(in.getenv)
	config := readService(source)
	own := readMessaging(source)
	own.address = readAddress(source, config.internalListen)
	if err := source.Err(); err != nil {
		return err
	}
	return runService(ctx, in, config, contract.ComponentMessaging, func(p *platform) error {
		return addMessaging(p, own)
	})
}

// messagingConfig is what messaging reads beside the rest.
type messagingConfig struct {
	origins        []string // browsers may open sockets from them
	trustedProxies []netip.Prefix
	agents         []uuid.UUID // the marketplace's support
	notifications  notificationsConfig
	// noRecovery keeps connection state recovery from Socket.IO clients.
	noRecovery bool
	// address is where other pods reach the internal port; without it they forward
	// nothing, and nothing is forwarded to them.
	address netip.AddrPort
}

// notificationsConfig says whom to tell of messages for users who are not
// connected; url is nil for nobody.
type notificationsConfig struct {
	url     *url.URL
	keyFile string
}

func readMessaging(source *env.Source) messagingConfig {
	return messagingConfig{
		origins: readOrigins(source), trustedProxies: readTrustedProxies(source), agents: readAgents(source),
		notifications: readNotifications(source), noRecovery: !source.Bool(contract.EnvSocketIORecovery, true),
	}
}

func readNotifications(source *env.Source) notificationsConfig {
	text := source.String(contract.EnvNotificationsURL, "")
	if text == "" {
		return notificationsConfig{}
	}
	endpoint, err := webhook.ParseURL(text)
	if err != nil {
		source.Fail(contract.EnvNotificationsURL, err)
	}
	return notificationsConfig{url: endpoint, keyFile: source.Required(contract.EnvNotificationsKeyFile)}
}

func readOrigins(source *env.Source) []string {
	var origins []string
	for _, text := range source.List(contract.EnvAllowedOrigins) {
		origin, err := door.ParseOrigin(text)
		if err != nil {
			source.Fail(contract.EnvAllowedOrigins, err)
			continue
		}
		origins = append(origins, origin)
	}
	return origins
}

// maxAgents bounds the support agents: each is a member of every support
// conversation.
const maxAgents = 50

func readAgents(source *env.Source) []uuid.UUID {
	var agents []uuid.UUID
	for _, text := range source.List(contract.EnvSupportUserIDs) {
		id, err := uuid.Parse(text)
		if err != nil || id == uuid.Nil || slices.Contains(agents, id) {
			source.Fail(contract.EnvSupportUserIDs, fmt.Errorf("must be users' ids, each a UUID and there once"))
			return nil
		}
		agents = append(agents, id)
	}
	if len(agents) > maxAgents {
		source.Fail(contract.EnvSupportUserIDs, fmt.Errorf("names more than %d users", maxAgents))
	}
	return agents
}

// connectRate is how many sockets a client's address may open: a household or an
// office is one address.
var connectRate = messaging.Rate{PerSecond: 20, Burst: 200}

// addMessaging puts the messaging service on a platform.
func addMessaging(p *platform, own messagingConfig) error {
	store := messagingstore.New(p.pool, time.Now)
	// News have a connection of their own: it does not bring back what this
	// process published, as the event log's wake-ups must.
	var reconnected hooks
	news, err := p.addBus("bus connection for news", bus.Options{
		Name: p.config.instance + "/news", NoEcho: true, Connected: reconnected.run,
	})
	if err != nil {
		return err
	}
	connections := hub.New(store, hub.NewNATS(news, p.subjects, p.log), hub.Options{
		Instance: p.config.instance, Window: p.config.drain.Window,
	}, p.log, p.registry)
	queue := commit.NewQueue(store, connections.Announce, commit.Options{}, p.log, p.registry)
	service := messaging.NewService(store, queue, connections, messaging.DefaultSendRate, time.Now, own.agents...)
	keeper := idempotency.NewKeeper(&postgres.Transactor{Pool: p.pool}, time.Now)
	peers, err := presence.NewNATS(p.bus, p.subjects)
	if err != nil {
		return err
	}
	present := presence.New(store, peers, connections, p.log, p.registry)
	var addresses *door.Addresses
	if len(own.trustedProxies) > 0 {
		// Without their word, everyone behind a proxy is one address, and the limit
		// would be one for the whole marketplace.
		addresses = door.NewAddresses(connectRate, own.trustedProxies)
	}
	options := wsapi.Options{
		AllowedOrigins: own.origins, ResumeTTL: messaging.ResumeTTL, Addresses: addresses, Door: door.Options{Presence: present, Metrics: door.NewMetrics(p.registry)},
	}
	sockets := wsapi.NewServer(service, connections, liveSessions{p.sessions}, options, p.log, p.registry)
	stock := &socketIO{log: p.log, fail: p.group.Fail, window: p.config.drain.Window, key: store.SealingKey, build: func(key []byte) (*stockServer, error) {
		return newStockServer(p, own, key, func(o sioapi.Options) *sioapi.Server {
			o.AllowedOrigins, o.Addresses, o.Door = own.origins, addresses, options.Door
			return sioapi.NewServer(service, connections, liveSessions{p.sessions}, o, p.log, p.registry)
		})
	}}

	messagingapi.Register(web.NewAPI(p.router, "Marketplane messaging", p.log, p.sessions), service, keeper)
	p.router.Get(wsapi.Path, sockets.ServeHTTP)
	p.public.Handle(sioapi.Path+"*", stock)
	p.internal.Handle(sioapi.Path, relay.Internal(stock))
	p.internal.HandleFunc("GET "+contract.PathLoad, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		load := connections.Load()
		load.Forwarded = stock.Forwarded()
		_ = json.NewEncoder(w).Encode(load) // the scraper is gone if this fails
	})
	reconnected.add(connections.BusReconnected)
	p.stopHooks.add(connections.Stopping)
	p.sessions.onEnd(connections.EndSession)

	if endpoint := own.notifications.url; endpoint != nil {
		client := webhook.New(endpoint, webhook.KeyFile(own.notifications.keyFile), time.Now)
		worker := notify.New(store.Notifier(), hub.NewInterest(p.bus, p.subjects), client, p.log, p.registry)
		p.group.Add(lifecycle.Part{Name: "webhook connections", Stop: func(context.Context) error {
			client.Close()
			return nil
		}})
		p.group.Go("notifications", worker.Run)
	}
	inbox := store.NewInbox(connections.Announce)
	p.group.Go("old stream items", func(ctx context.Context) error { return messaging.Sweep(ctx, store, p.log) })
	p.group.Go("messaging's idempotency keys", func(ctx context.Context) error { return keeper.Run(ctx, p.log) })
	// Before the connections, so that it stops after them: those who left with
	// the last ones are told to be offline.
	p.group.Add(lifecycle.Part{Name: "presence", Start: present.Start, Stop: present.Stop})
	p.group.Add(lifecycle.Part{Name: "commits", Start: queue.Start, Stop: queue.Stop})
	// After the commits, so that it stops before them: what is in flight on its
	// connections is acknowledged until the last one is closed.
	drain := newDrain(func(ctx context.Context) error {
		// What is forwarded moves in the same window as what is held.
		forwarded := make(chan error, 1)
		go func() { forwarded <- stock.StopForwarding(ctx) }()
		return errors.Join(connections.Stop(ctx), <-forwarded, sockets.Stop(ctx), stock.Stop(ctx))
	})
	p.drains = append(p.drains, drain.begin)
	p.group.Add(lifecycle.Part{
		Name: "connections",
		Start: func(ctx context.Context) error {
			if err := errors.Join(connections.Start(ctx), sockets.Start(ctx)); err != nil {
				return err
			}
			stock.Start()
			return nil
		},
		Stop: drain.wait,
	})
	return p.consume(&eventlog.Consumer{
		Name: "messaging.inbox", Types: inbox.Types(), Handle: inbox.Handle, After: inbox.After,
	})
}

// drain is something that takes its time to stop, and is begun before it is its turn.
type drain struct {
	stop func(ctx context.Context) error
	once sync.Once
	done chan error
}

func newDrain(stop func(ctx context.Context) error) *drain {
	return &drain{stop: stop, done: make(chan error, 1)}
}

// begin begins to stop, once.
func (d *drain) begin(ctx context.Context) {
	d.once.Do(func() {
		go func() { d.done <- d.stop(ctx) }()
	})
}

// wait returns when it is stopped; it is called once.
func (d *drain) wait(ctx context.Context) error {
	d.begin(ctx)
	return <-d.done
}

// liveSessions is what sockets ask about sessions.
type liveSessions struct{ *sessions }

// IsRevoked implements door.Sessions.
func (s liveSessions) IsRevoked(session uuid.UUID) bool { return s.revocations.IsRevoked(session) }
