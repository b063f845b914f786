// Package bus connects to NATS, and runs an embedded server. The bus holds
// nothing: it may be lost at any time, and everything that it carries is a
// hint about what PostgreSQL knows.
package bus

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Options are what a connection needs.
type Options struct {
	// URLs are nats:// or tls:// URLs without credentials. Behind tls:// the
	// server's certificate and host name are verified.
	URLs []string
	// Token authenticates; empty for none.
	Token string
	// Files authenticate and secure, too.
	Files Files
	// Name tells the server who this is.
	Name string
	// NoEcho keeps what the connection publishes from its own subscriptions.
	NoEcho bool
	Log    *slog.Logger
	// Connected, if set, is called each time the connection is made, the first
	// one too: what was published before was not received. It may be called
	// before Connect returns.
	Connected func()
}

// Connect returns at once, whether a server answers or not: the connection is
// made, and made again, in the background, for as long as it is open.
func Connect(options Options) (*nats.Conn, error) {
	log := options.Log
	connected := func(*nats.Conn) {
		log.Info("bus connected")
		if options.Connected != nil {
			options.Connected()
		}
	}
	all := []nats.Option{
		nats.Name(options.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.Timeout(2 * time.Second),
		// A server that takes nothing must not hold up those who publish, who
		// acknowledge writes after it.
		nats.FlusherTimeout(2 * time.Second),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		// What can't be sent now is dropped, not kept: readers find it in
		// PostgreSQL, and a late hint is worth nothing.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(connected),
		nats.ReconnectHandler(connected),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if !c.IsClosed() {
				log.Warn("bus lost; delivery goes on through the database, later", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Warn("bus error", "subject", subject, "error", err)
		}),
	}
	if options.NoEcho {
		all = append(all, nats.NoEcho())
	}
	if options.Token != "" {
		all = append(all, nats.Token(options.Token))
	}
	conn, err := nats.Connect(strings.Join(options.URLs, ","), append(all, options.Files.options()...)...)
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	return conn, nil
}

// Wake turns messages on a subject into a channel of at most one waiting
// signal. It lasts until the connection is closed.
func Wake(conn *nats.Conn, subject string) (<-chan struct{}, error) {
	wake := make(chan struct{}, 1)
	_, err := conn.Subscribe(subject, func(*nats.Msg) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	return wake, nil
}
