package main

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/proxy"
	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/watch"
)

const (
	// settle is how long changes are gathered: applying a Marketplace changes
	// several objects in a row.
	settle = 100 * time.Millisecond
	// again is how often everything is compared without a change: Secrets are
	// read, not watched, since watching them would need the right to list all.
	again = 10 * time.Second
)

// loop keeps the proxy true to the cluster.
type loop struct {
	cluster *watch.Cluster
	listen  proxy.Listen
	address string
	ready   *atomic.Bool
	log     *slog.Logger

	loaded   []byte
	problems map[string]bool
}

func (l *loop) run(ctx context.Context) error {
	if err := l.cluster.WaitForSync(ctx); err != nil {
		return nil // ctx ended, which is no failure
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		l.once(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.cluster.Changed():
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
	}
}

// once brings what is there now into the proxy, and then the proxy's address
// into the objects' status. What fails is tried again with the next tick.
func (l *loop) once(ctx context.Context) {
	state := l.cluster.State(ctx)
	config, problems, err := proxy.Render(state, l.listen)
	if err != nil {
		l.log.Error("can't render", "error", err)
		return
	}
	l.tell(problems)
	if !bytes.Equal(config, l.loaded) {
		if err := proxy.Load(config); err != nil {
			l.log.Error("the proxy refuses its configuration; the one before stays", "error", err)
			return
		}
		l.loaded = config
		l.log.Info("the proxy is configured", "ingresses", len(state.Ingresses), "bytes", len(config))
	}
	l.ready.Store(true)
	for i := range state.Ingresses {
		if err := l.cluster.Report(ctx, &state.Ingresses[i], l.address); err != nil && ctx.Err() == nil {
			l.log.Error("can't report the address", "error", err)
		}
	}
}

// tell logs each problem once, as long as it lasts.
func (l *loop) tell(problems []string) {
	now := map[string]bool{}
	for _, p := range problems {
		if now[p] = true; !l.problems[p] {
			l.log.Warn(p)
		}
	}
	l.problems = now
}
