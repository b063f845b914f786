package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/hack/bench/internal/process"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
)

// peer is the Node.js server of the folder peer, which see for its settings.
type peer struct {
	*grounds
	dir string
}

func newPeer(g *grounds) (*peer, error) {
	dir, err := filepath.Abs(g.config.peer)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil { //nolint:gosec // G703: whoever runs it names the folder
		return nil, fmt.Errorf("the peer's packages are not installed: run npm ci in %s, as make bench-messaging does", dir)
	}
	return &peer{grounds: g, dir: dir}, nil
}

func (p *peer) name() string     { return "peer" }
func (p *peer) protocol() string { return plan.SocketIO }

func (p *peer) prepare(ctx context.Context) error {
	if err := p.exec(ctx, "postgres", "CREATE DATABASE "+template(p)); err != nil {
		return err
	}
	schema, err := os.ReadFile(filepath.Join(p.dir, "schema.sql"))
	if err != nil {
		return err
	}
	return p.exec(ctx, template(p), string(schema))
}

func (p *peer) seed(ctx context.Context, conn *pgx.Conn, l layout) error {
	conversations, users := l.memberships()
	_, err := conn.Exec(ctx, `
		INSERT INTO members (conversation_id, user_id)
		SELECT conversation_id, user_id FROM unnest($1::uuid[], $2::uuid[]) AS m (conversation_id, user_id)`,
		conversations, users)
	return err
}

func (p *peer) start(ctx context.Context, database string, s setting) (*deployment, error) {
	d := &deployment{grounds: p.grounds}
	environment := []string{
		"DATABASE_URL=" + p.postgres.URL(database),
		"ISSUER=" + issuer,
		"JWKS_FILE=" + p.jwks,
		"POOL=" + strconv.Itoa(p.config.pool),
		// What the documentation of Express and of Node.js recommends where a
		// service is deployed.
		"NODE_ENV=production",
	}
	if s.resuming {
		environment = append(environment, "RECOVERY=1")
	}
	if s.pods > 1 {
		redis, address, err := p.startRedis(ctx)
		if err != nil {
			return d, err
		}
		d.beside = redis
		environment = append(environment, "REDIS_URL=redis://"+address)
	}
	for i := range s.pods {
		address, err := process.FreeAddress()
		if err != nil {
			return d, err
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return d, err
		}
		node, err := process.Start(process.Options{
			Name: fmt.Sprintf("peer-%d", i), Program: "node", Arguments: []string{"server.js"}, Dir: p.dir, Logs: p.config.dir,
			Environment: append([]string{"HOST=" + host, "PORT=" + port}, environment...),
		})
		if err != nil {
			return d, err
		}
		d.servers = append(d.servers, node)
		d.targets = append(d.targets, address)
		if err := await(ctx, node, dials(address)); err != nil {
			return d, err
		}
	}
	return d, nil
}

// startRedis starts a Redis that keeps nothing on the disk, as a bus needs not.
func (p *peer) startRedis(ctx context.Context) (*process.Process, string, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "", errors.New("there is no redis-server, by which two processes of the peer become one server: install the package redis-server")
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", err
	}
	redis, err := process.Start(process.Options{
		Name: "redis", Program: program, Logs: p.config.dir,
		Arguments: []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no"},
	})
	if err != nil {
		return nil, "", err
	}
	if err := await(ctx, redis, dials(address)); err != nil {
		redis.Stop()
		return nil, "", err
	}
	return redis, address, nil
}

// dials says whether somebody listens.
func dials(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
