package main

import (
	"context"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/postgres"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/tasks"
	tasksapi "github.com/marketplane/marketplane/services/tasks/httpapi"
	tasksmetrics "github.com/marketplane/marketplane/services/tasks/metrics"
	tasksstore "github.com/marketplane/marketplane/services/tasks/store"
)

// runTasks serves tasks and offers.
func runTasks(ctx context.Context, in invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	source := env.New(in.getenv)
	config := readService(source)
	if err := source.Err(); err != nil {
		return err
	}
	return runService(ctx, in, config, contract.ComponentTasks, addTasks)
}

// addTasks puts the tasks service on a platform.
func addTasks(p *platform) error {
	transactor := &postgres.Transactor{Pool: p.pool, Committed: p.wakeReaders}
	keeper := idempotency.NewKeeper(transactor, time.Now)
	service := tasks.NewService(tasksstore.New(transactor), tasksmetrics.New(p.registry), time.Now)
	tasksapi.Register(web.NewAPI(p.router, "Marketplane tasks", p.log, p.sessions), service, keeper)
	p.group.Go("idempotency keys", func(ctx context.Context) error { return keeper.Run(ctx, p.log) })
	return nil
}
