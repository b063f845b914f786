package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/hack/bench/internal/process"
)

// installation is the id of the benchmark's installation.
const installation = "bench"

// ours is `marketplane messaging` with `marketplane bus`, migrated by
// `marketplane migrate`, all with the defaults of a deployment.
type ours struct {
	*grounds
	password string
	busToken string // the path of the file
}

func newOurs(g *grounds) (*ours, error) {
	o := &ours{grounds: g, password: rand.Text()}
	var err error
	o.busToken, err = g.config.write("bus-token", []byte(rand.Text()))
	return o, err
}

func (o *ours) name() string     { return "marketplane" }
func (o *ours) protocol() string { return o.config.door }

func (o *ours) prepare(ctx context.Context) error {
	if err := o.exec(ctx, "postgres", "CREATE DATABASE "+template(o)); err != nil {
		return err
	}
	for _, service := range contract.Services() {
		if _, err := o.config.write(filepath.Join("roles", service, contract.FilePassword), []byte(o.password)); err != nil {
			return err
		}
	}
	url, err := o.config.write("migrate-url", []byte(o.postgres.URL(template(o))))
	if err != nil {
		return err
	}
	migrate := exec.CommandContext(ctx, o.config.marketplane, contract.ComponentMigrate) //nolint:gosec // It is what is measured.
	migrate.Env = []string{
		contract.EnvInstallation + "=" + installation,
		contract.EnvDatabaseURLFile + "=" + url,
		contract.EnvRolesDir + "=" + o.config.path("roles"),
	}
	if output, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("marketplane migrate: %w: %s", err, output)
	}
	return nil
}

// seed writes what offers would have made. A task's conversation with more than
// two members exists nowhere: only the number counts here.
func (o *ours) seed(ctx context.Context, conn *pgx.Conn, l layout) error {
	schema := pgx.Identifier{contract.DatabaseSchema(installation, contract.ComponentMessaging)}.Sanitize()
	if _, err := conn.Exec(ctx, "SET search_path TO "+schema); err != nil {
		return err
	}
	conversations, users := l.memberships()
	if _, err := conn.Exec(ctx, `
		INSERT INTO conversations (id, task_id, tasker_id, title)
		SELECT DISTINCT id, id, id, 'Bench' FROM unnest($1::uuid[]) AS id`, conversations); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `
		INSERT INTO members (conversation_id, user_id, role)
		SELECT conversation_id, user_id, 'tasker' FROM unnest($1::uuid[], $2::uuid[]) AS m (conversation_id, user_id)`,
		conversations, users)
	return err
}

func (o *ours) start(ctx context.Context, database string, s setting) (*deployment, error) {
	d := &deployment{grounds: o.grounds}
	role := contract.DatabaseRole(installation, contract.ComponentMessaging)
	url, err := o.config.write("messaging-url", []byte(o.postgres.UserURL(role, o.password, database)))
	if err != nil {
		return d, err
	}
	bus, err := o.run(ctx, contract.ComponentBus, "bus")
	if err != nil {
		return d, err
	}
	d.beside = bus.process
	for i := range s.pods {
		pod, err := o.run(ctx, contract.ComponentMessaging, fmt.Sprintf("messaging-%d", i),
			contract.EnvDatabaseURLFile+"="+url,
			contract.EnvJWKSFile+"="+o.jwks,
			contract.EnvIssuer+"="+issuer,
			contract.EnvBusURL+"=nats://"+bus.address,
			// As in a deployment, whose pods are given a tenth of a processor.
			"GOMAXPROCS=1",
			// Nobody is left to be moved when a measurement is over.
			contract.EnvDrainFloor+"=0s", contract.EnvDrainWindow+"=0s")
		if err != nil {
			return d, err
		}
		d.servers = append(d.servers, pod.process)
		d.targets = append(d.targets, pod.address)
		if err := await(ctx, pod.process, opensSocketIO(pod.address)); err != nil {
			return d, err
		}
	}
	return d, nil
}

// opensSocketIO says whether that door is open: soon after the process is ready.
func opensSocketIO(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+contract.PathSocketIO+"/", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		if response.StatusCode == http.StatusServiceUnavailable {
			err = errors.New("the Socket.IO door is closed")
		}
		return errors.Join(err, response.Body.Close())
	}
}

// service is a process of ours, and where it listens.
type service struct {
	process *process.Process
	address string
}

func (o *ours) run(ctx context.Context, component, name string, environment ...string) (service, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return service{}, err
	}
	internal, err := process.FreeAddress()
	if err != nil {
		return service{}, err
	}
	host, _, err := net.SplitHostPort(internal)
	if err != nil {
		return service{}, err
	}
	p, err := process.Start(process.Options{
		Name: name, Program: o.config.marketplane, Arguments: []string{component}, Logs: o.config.dir,
		Environment: append([]string{
			contract.EnvInstallation + "=" + installation,
			contract.EnvInstance + "=" + name,
			contract.EnvListen + "=" + address,
			contract.EnvInternalListen + "=" + internal,
			contract.EnvAddress + "=" + host, // where other processes forward to
			contract.EnvBusTokenFile + "=" + o.busToken,
		}, environment...),
	})
	if err != nil {
		return service{}, err
	}
	err = await(ctx, p, func(ctx context.Context) error {
		_, err := process.Fetch(ctx, "http://"+internal+contract.PathReady)
		return err
	})
	if err != nil {
		p.Stop()
		return service{}, err
	}
	return service{process: p, address: address}, nil
}
