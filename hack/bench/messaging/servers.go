package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/hack/bench/internal/postgres"
	"github.com/marketplane/marketplane/hack/bench/internal/process"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// issuer is who the tokens of a run are from.
const issuer = "https://bench.marketplane.test"

// readiness is how long a server may take to start.
const readiness = 30 * time.Second

// grounds are what the servers of a run stand on: one PostgreSQL with a database
// of each one's own for every measurement, and one signing key.
type grounds struct {
	config   config
	postgres *postgres.Server
	keys     []byte // contract.SigningKeys
	jwks     string // the path of the public keys
}

// layout is who is there: see plan.Job.
type layout struct{ users, members int }

// side is one of the servers that are compared.
type side interface {
	name() string
	protocol() string
	// base is what it stands on.
	base() *grounds
	// prepare makes the template of its databases.
	prepare(ctx context.Context) error
	// seed writes the conversations of a layout into a database.
	seed(ctx context.Context, conn *pgx.Conn, l layout) error
	// start starts its processes on a database. What it returned before an error
	// is to be stopped all the same.
	start(ctx context.Context, database string, s setting) (*deployment, error)
}

// setting is how a server is started.
type setting struct {
	pods int
	// resuming says that connections are dropped, and come back.
	resuming bool
}

// deployment is a server, running.
type deployment struct {
	grounds *grounds
	// servers are its processes, targets their addresses, and beside what carries
	// messages between them: the bus, or Redis.
	servers []*process.Process
	targets []string
	beside  *process.Process
}

func (d *deployment) stop() {
	for _, s := range d.servers {
		s.Stop()
	}
	d.beside.Stop()
}

func (d *deployment) failed() error {
	errs := []error{d.grounds.postgres.Failed()}
	for _, s := range d.servers {
		errs = append(errs, s.Failed())
	}
	if d.beside != nil {
		errs = append(errs, d.beside.Failed())
	}
	return errors.Join(errs...)
}

// usage is what everything has used of the processors, and the memory that the
// server's processes have.
type usage struct {
	server, postgres, beside time.Duration
	memory                   int64
}

func (d *deployment) usage() (usage, error) {
	var u usage
	if err := d.failed(); err != nil {
		return u, err
	}
	for _, s := range d.servers {
		used, err := s.Processor()
		if err != nil {
			return u, err
		}
		now, _, err := s.Memory()
		if err != nil {
			return u, err
		}
		u.server += used
		u.memory += now
	}
	var err error
	if u.postgres, err = d.grounds.postgres.FamilyProcessor(); err != nil {
		return u, err
	}
	if d.beside != nil {
		u.beside, err = d.beside.Processor()
	}
	return u, err
}

func (u usage) since(before usage) usage {
	return usage{
		server: u.server - before.server, postgres: u.postgres - before.postgres,
		beside: u.beside - before.beside, memory: u.memory - before.memory,
	}
}

// await waits until check succeeds, for a process that starts.
func await(ctx context.Context, p *process.Process, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readiness)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.Failed()
		case <-ctx.Done():
			return fmt.Errorf("%s does not start: %w", p.Log(), err)
		case <-poll.C:
		}
	}
}

// layGrounds starts what all servers of a run share.
func layGrounds(ctx context.Context, c config) (*grounds, error) {
	g := &grounds{config: c}
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		return nil, err
	}
	keys := contract.SigningKeys{Keys: []contract.SigningKey{key}}
	if g.keys, err = keys.Marshal(); err != nil {
		return nil, err
	}
	public, err := keys.JWKS()
	if err != nil {
		return nil, err
	}
	if g.jwks, err = c.write("jwks.json", public); err != nil {
		return nil, err
	}
	// Of an earlier run in the same folder.
	if err := os.RemoveAll(c.path("postgresql")); err != nil { //nolint:gosec // G703: whoever runs it names the folder
		return nil, err
	}
	// A commit is on the disk before it is answered; that is PostgreSQL's default,
	// and stated here because it is what the figures rest on. The rest is what the
	// operator's own database is given.
	g.postgres, err = postgres.Start(ctx, c.path("postgresql"),
		"fsync=on", "synchronous_commit=on", "full_page_writes=on", "max_connections=200", "shared_buffers=256MB")
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return g, nil
}

func (g *grounds) base() *grounds { return g }

// exec runs statements as the superuser.
func (g *grounds) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, g.postgres.URL(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%.60s: %w", statement, err)
		}
	}
	return nil
}

// database makes a database for one measurement from a side's template, and
// seeds it.
func (g *grounds) database(ctx context.Context, s side, l layout) (name string, err error) {
	name = s.name() + "_run"
	err = g.exec(ctx, "postgres",
		"DROP DATABASE IF EXISTS "+name+" WITH (FORCE)",
		"CREATE DATABASE "+name+" TEMPLATE "+template(s))
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, g.postgres.URL(name))
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := s.seed(ctx, conn, l); err != nil {
		return "", fmt.Errorf("seed: %w", err)
	}
	// What the seeding left to do must not be done while something is measured.
	for _, statement := range []string{"VACUUM ANALYZE", "CHECKPOINT"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	return name, nil
}

// template is the name of the database that a side's others are copied from.
func template(s side) string { return s.name() + "_template" }

// memberships lists the members of a layout's conversations, as two columns.
func (l layout) memberships() (conversations, users []string) {
	for i := range l.users {
		conversations = append(conversations, plan.Conversation(i/l.members).String())
		users = append(users, plan.User(i).String())
	}
	return conversations, users
}
