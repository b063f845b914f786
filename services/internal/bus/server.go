package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerOptions configure an embedded server: core NATS, no persistence.
type ServerOptions struct {
	// Name is unique among the cluster's members.
	Name string
	// Listen is host:port for clients; port 0 takes a free one.
	Listen string
	// Token authenticates clients and members.
	Token string
	// RouteListen is host:port for the other members; empty for a single
	// server.
	RouteListen string
	// Routes are nats-route:// URLs of the members, this one among them.
	Routes []string
	Log    *slog.Logger
}

// Server is an embedded NATS server.
type Server struct{ server *server.Server }

const (
	startTimeout  = 10 * time.Second
	maxPayload    = 1 << 20
	lameDuckGrace = 2 * time.Second
	lameDuckSpan  = 5 * time.Second
)

// StartServer starts it, and returns when it takes connections.
func StartServer(options ServerOptions) (*Server, error) {
	host, port, err := splitAddress(options.Listen)
	if err != nil {
		return nil, err
	}
	o := &server.Options{
		ServerName: options.Name, Host: host, Port: port, Authorization: options.Token,
		NoSigs: true, MaxPayload: maxPayload, NoSystemAccount: true,
		LameDuckGracePeriod: lameDuckGrace, LameDuckDuration: lameDuckSpan,
	}
	if options.RouteListen != "" {
		if o.Cluster.Host, o.Cluster.Port, err = splitAddress(options.RouteListen); err != nil {
			return nil, err
		}
		o.Cluster.Name = "marketplane"
		o.Cluster.Username, o.Cluster.Password = "member", options.Token
		for _, raw := range options.Routes {
			route, err := url.Parse(raw)
			if err != nil || route.Host == "" {
				return nil, fmt.Errorf("bus route: not a nats-route:// URL")
			}
			route.User = url.UserPassword("member", options.Token)
			o.Routes = append(o.Routes, route)
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, fmt.Errorf("bus server: %w", err)
	}
	s.SetLogger(serverLog{options.Log}, false, false)
	go s.Start() // ends by itself once it listens; Stop waits for the rest
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("bus server: not ready in time; is the address taken?")
	}
	return &Server{s}, nil
}

// URL is where clients connect, without credentials.
func (s *Server) URL() string { return s.server.ClientURL() }

// Stop asks clients to go elsewhere, where there is an elsewhere, and shuts
// down.
func (s *Server) Stop(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if s.server.NumRoutes() > 0 {
			s.server.LameDuckShutdown()
		} else {
			s.server.Shutdown()
		}
		s.server.WaitForShutdown()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func splitAddress(address string) (string, int, error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("bus address %q: %w", address, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return "", 0, fmt.Errorf("bus address %q: the port is not a number", address)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// serverLog is nats-server's logger on slog.
type serverLog struct{ log *slog.Logger }

// awayMember begins what nats-server says when a member cannot be reached, as
// at the first start of a cluster, when none is up yet. It tries for ever.
const awayMember = "Error trying to connect to route"

func (l serverLog) Errorf(format string, v ...any) {
	level := slog.LevelError
	if strings.HasPrefix(format, awayMember) {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l serverLog) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l serverLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l serverLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
