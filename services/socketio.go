package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/messaging/relay"
	"github.com/marketplane/marketplane/services/messaging/seal"
	"github.com/marketplane/marketplane/services/messaging/sioapi"
)

// socketIO is Socket.IO's door. It opens when the installation's sealing key is read,
// which may be a while after the process's start if the database is away.
type socketIO struct {
	log  *slog.Logger
	fail func(err error) // ends the process
	// window is the drain's.
	window time.Duration
	key    func(ctx context.Context) ([]byte, error)
	build  func(key []byte) (*stockServer, error)

	server atomic.Pointer[stockServer] // nil until it is open
	cancel context.CancelFunc
	done   chan struct{} // closed when nobody tries to open it any more
}

// stockServer is the door, and what brings requests to it that came to other
// processes, and the other way round.
type stockServer struct {
	door  *sioapi.Server
	relay *relay.Relay // nil where this process has no address
}

func newStockServer(p *platform, own messagingConfig, key []byte, serve func(o sioapi.Options) *sioapi.Server) (*stockServer, error) {
	s, options := &stockServer{}, sioapi.Options{}
	// As many as the hub holds, and those that are being let in.
	options.Engine.MaxSessions = maxStockSessions
	if !own.noRecovery {
		var err error
		if options.Places, err = seal.New(key, sioapi.Purpose); err != nil {
			return nil, err
		}
	}
	if own.address.IsValid() {
		ids, err := seal.New(key, relay.Purpose)
		if err != nil {
			return nil, err
		}
		s.relay = relay.New(own.address, ids, relay.Options{
			Window: p.config.drain.Window, MaxRequests: maxStockSessions, MaxSockets: maxStockSessions,
		}, p.registry)
		options.Engine.NewID, options.Engine.Missing = s.relay.NewID, s.relay.Missing
	}
	s.door = serve(options)
	return s, nil
}

// maxStockSessions bounds the sessions that a process holds, those of strangers
// included, and what it forwards.
const maxStockSessions = 25_000

func (s *stockServer) start(ctx context.Context) error {
	if s.relay != nil {
		if err := s.relay.Start(ctx); err != nil {
			return err
		}
	}
	return s.door.Start(ctx)
}

var errNotOpen = fault.New(fault.Unavailable, "starting",
	"This server cannot take Socket.IO clients yet. Try again in a moment.").After(time.Second)

// ServeHTTP serves every request below sioapi.Path.
func (s *socketIO) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if server := s.server.Load(); server != nil {
		server.door.ServeHTTP(w, r)
		return
	}
	web.WriteProblem(w, r, s.log, errNotOpen)
}

// Start opens the door, which may take a while.
func (s *socketIO) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		key, err := s.waitForKey(ctx)
		if err == nil {
			err = s.open(ctx, key)
		}
		if err != nil && ctx.Err() == nil {
			s.fail(fmt.Errorf("open Socket.IO: %w", err))
		}
	}()
}

// waitForKey reads the key as soon as the database gives it.
func (s *socketIO) waitForKey(ctx context.Context) ([]byte, error) {
	var told time.Time
	for {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		key, err := s.key(bounded)
		cancel()
		if err == nil {
			return key, nil
		}
		if time.Since(told) >= time.Minute {
			s.log.Warn("Socket.IO waits for the sealing key", "error", err)
			told = time.Now()
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *socketIO) open(ctx context.Context, key []byte) error {
	server, err := s.build(key)
	if err != nil {
		return err
	}
	if err := server.start(ctx); err != nil {
		return err
	}
	s.server.Store(server)
	return nil
}

// Forwarded is how many sockets and requests are forwarded at this moment.
func (s *socketIO) Forwarded() int {
	if server := s.server.Load(); server != nil && server.relay != nil {
		return server.relay.Forwarded()
	}
	return 0
}

// StopForwarding closes what is forwarded to others, at a drain's pace, and returns
// when nothing is left of it.
func (s *socketIO) StopForwarding(ctx context.Context) error {
	s.cancel()
	<-s.done
	server := s.server.Load()
	if server == nil || server.relay == nil {
		return nil
	}
	// Polls that nobody has something for last longer than short windows.
	bounded, cancel := context.WithTimeout(ctx, s.window+pollPatience)
	defer cancel()
	if err := server.relay.Stop(bounded); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// pollPatience is how long forwarded polls may last beyond the drain's window. Their
// clients then begin anew.
const pollPatience = 2 * time.Second

// Stop returns when no connection is left; call it after StopForwarding.
func (s *socketIO) Stop(ctx context.Context) error {
	if server := s.server.Load(); server != nil {
		return server.door.Stop(ctx)
	}
	return nil
}
