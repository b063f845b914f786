package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/marketplane/marketplane/api/contract"
	authstore "github.com/marketplane/marketplane/services/auth/store"
	"github.com/marketplane/marketplane/services/internal/env"
	"github.com/marketplane/marketplane/services/internal/eventlog"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/telemetry"
	messagingstore "github.com/marketplane/marketplane/services/messaging/store"
	tasksstore "github.com/marketplane/marketplane/services/tasks/store"
)

// migrationPlan is the whole database of an installation; password gives each
// service's role its own.
func migrationPlan(installation string, password func(service string) string) migration.Plan {
	migrations := map[string]fs.FS{
		contract.ComponentAuth:      authstore.Migrations(),
		contract.ComponentTasks:     tasksstore.Migrations(),
		contract.ComponentMessaging: messagingstore.Migrations(),
	}
	plan := migration.Plan{Installation: installation, Events: eventlog.Migrations(), AdoptEvents: eventlog.Adopt}
	for _, service := range contract.Services() {
		plan.Schemas = append(plan.Schemas, migration.Schema{
			Service: service, Password: password(service), Migrations: migrations[service],
		})
	}
	return plan
}

// runMigrate prepares the database of an installation, and ends.
func runMigrate(ctx context.Context, in invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	source := env.New(in.getenv)
	installation := source.Required(contract.EnvInstallation)
	url := source.Secret(contract.EnvDatabaseURLFile)
	roles := source.Required(contract.EnvRolesDir)
	level := source.String(contract.EnvLogLevel, "info")
	if err := source.Err(); err != nil {
		return err
	}
	var errs []error
	plan := migrationPlan(installation, func(service string) string {
		path := filepath.Join(roles, service, contract.FilePassword)
		content, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the folder
		if err == nil && len(content) == 0 {
			err = fmt.Errorf("%s is empty", path)
		}
		errs = append(errs, err)
		return strings.TrimSpace(string(content))
	})
	if err := errors.Join(errs...); err != nil {
		return err
	}
	log, err := telemetry.NewLogger(in.stderr, level)
	if err != nil {
		return fmt.Errorf("%s: %w", contract.EnvLogLevel, err)
	}
	log = log.With("service", contract.ComponentMigrate)
	if err := migration.Apply(ctx, url, plan, log); err != nil {
		return err
	}
	log.Info("the database is ready", "installation", installation)
	return nil
}
