package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/handshake"
)

// Server is an HTTP server as a Part.
type Server struct {
	Name    string
	Address string
	Handler http.Handler
	// Handshakes says that most connections become WebSockets: see package handshake.
	Handshakes bool
	Log        *slog.Logger
	// Floor is how long the server goes on accepting after it was told to stop,
	// so that nothing is refused while the news travels to whoever sends here.
	Floor time.Duration
	// Stopping, if set, is called first when the server is told to stop, before
	// the floor.
	Stopping func()
	// Closed, if set, is called once nothing new can arrive, before Stop waits
	// for what is running: some of that may have to be ended. ctx is Stop's.
	Closed func(ctx context.Context)

	listener   net.Listener
	handshakes *handshake.Listener // nil without them
	server     *http.Server
	done       chan struct{}
}

// Part returns the server as a part of group, which it fails if it ends early.
func (s *Server) Part(group *Group) Part {
	return Part{
		Name:  s.Name,
		Start: func(ctx context.Context) error { return s.start(ctx, group) },
		Stop:  s.stop,
	}
}

// Addr is where the started server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

func (s *Server) start(ctx context.Context, group *Group) error {
	var err error
	if s.listener, err = s.listen(ctx); err != nil {
		return fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	s.server = &http.Server{
		Handler:           s.Handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			group.Fail(fmt.Errorf("%s server: %w", s.Name, err))
		}
	}()
	return nil
}

// headerTimeout is how long a client may take to say what it wants.
const headerTimeout = 10 * time.Second

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	if s.Handshakes {
		config.KeepAlive = -1 // as handshake.Listen says
	}
	listener, err := config.Listen(ctx, "tcp", s.Address)
	if tcp, ok := listener.(*net.TCPListener); ok && s.Handshakes {
		s.handshakes = handshake.Listen(tcp, s.Handler, headerTimeout, s.Log)
		return s.handshakes, nil
	}
	return listener, err //nolint:wrapcheck // for ourselves
}

func (s *Server) stop(ctx context.Context) error {
	if s.Stopping != nil {
		s.Stopping()
	}
	if s.Floor > 0 {
		floor := time.NewTimer(s.Floor)
		defer floor.Stop()
		select {
		case <-floor.C:
		case <-ctx.Done():
		}
	}
	s.server.SetKeepAlivesEnabled(false)
	// Shutdown closes the listener at once and then waits for requests;
	// hijacked connections are not its business.
	shut := make(chan error, 1)
	go func() { shut <- s.server.Shutdown(ctx) }()
	<-s.done
	if s.Closed != nil {
		s.Closed(ctx)
	}
	err := <-shut
	if s.handshakes != nil {
		err = errors.Join(err, s.handshakes.Wait(ctx))
	}
	if err != nil {
		return errors.Join(err, s.server.Close())
	}
	return nil
}

// Health is what /readyz tells: started, listening, keys loaded; never the
// state of a database, the bus or the load, since a Service that empties when
// its database fails turns a delay into an outage.
type Health struct{ ready atomic.Bool }

// SetReady turns readiness on or off.
func (h *Health) SetReady(ready bool) { h.ready.Store(ready) }

// InternalMux serves the probes and the metrics; services add what else they
// tell on the internal port.
func (h *Health) InternalMux(registry *prometheus.Registry) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+contract.PathLive, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET "+contract.PathReady, func(w http.ResponseWriter, _ *http.Request) {
		if !h.ready.Load() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.Handle("GET "+contract.PathMetrics, promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	return mux
}
