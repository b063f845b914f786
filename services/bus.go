package main

import (
	"context"
	"fmt"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/bus"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/lifecycle"
)

// runBus serves NATS: one server, or a member of a cluster when routes are set.
func runBus(ctx context.Context, in invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	source := env.New(in.getenv)
	config := readProcess(source)
	token := source.Secret(contract.EnvBusTokenFile)
	listen := source.Address(contract.EnvListen, fmt.Sprintf(":%d", contract.BusPort))
	routes := source.List(contract.EnvBusRoutes)
	if err := source.Err(); err != nil {
		return err
	}
	config.drain.Window = 20 * time.Second // what a lame-duck shutdown may take
	p, err := newProcess(in, config, contract.ComponentBus)
	if err != nil {
		return err
	}
	options := bus.ServerOptions{Name: config.instance, Listen: listen, Token: token, Routes: routes, Log: p.log}
	if len(routes) > 0 {
		options.RouteListen = fmt.Sprintf(":%d", contract.BusRoutePort)
	}
	p.serveInternal()
	var server *bus.Server
	p.group.Add(lifecycle.Part{
		Name: "bus",
		Start: func(context.Context) (err error) {
			server, err = bus.StartServer(options)
			return err
		},
		Stop: func(ctx context.Context) error { return server.Stop(ctx) },
	})
	return p.group.Run(ctx, func() {
		p.health.SetReady(true)
		p.log.Info("ready", "listen", listen)
	})
}
