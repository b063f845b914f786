// Package postgres runs a PostgreSQL for a benchmark: the newest of the machine,
// on an empty folder.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/hack/bench/internal/process"
)

// Server is a PostgreSQL, running.
type Server struct {
	*process.Process
	address string
}

// Start makes a cluster in dir and starts it with the settings, each like
// "fsync=off".
func Start(ctx context.Context, dir string, settings ...string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	as, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+data, //nolint:gosec // It is the machine's own.
		"--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8")
	initdb.Dir, initdb.SysProcAttr = dir, as
	if output, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, output)
	}
	arguments := []string{"-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "port=" + port, "-c", "unix_socket_directories="}
	for _, setting := range settings {
		arguments = append(arguments, "-c", setting)
	}
	s := &Server{address: address}
	s.Process, err = process.Start(process.Options{
		Name: "postgresql", Program: filepath.Join(bin, "postgres"), Arguments: arguments,
		Logs: filepath.Dir(dir), Dir: dir, As: as,
		End: syscall.SIGQUIT, // an immediate shutdown: nobody needs the data
	})
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// URL is the superuser's, of the given database.
func (s *Server) URL(database string) string { return s.UserURL("postgres", "bench", database) }

// UserURL is another role's.
func (s *Server) UserURL(role, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, password), Host: s.address, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		connection, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return connection.Close(ctx)
		}
		select {
		case <-s.Done():
			return s.Failed()
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not start: %w; see %s", err, s.Log())
		case <-poll.C:
		}
	}
}

func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.New("there is no PostgreSQL in /usr/lib/postgresql: install the package postgresql")
	}
	return slices.MaxFunc(found, func(a, b string) int { return release(a) - release(b) }), nil
}

// release is the 15 of /usr/lib/postgresql/15/bin.
func release(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// Version is that of the server that Start would start.
func Version(ctx context.Context) (string, error) {
	bin, err := programs()
	if err != nil {
		return "", err
	}
	output, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output() //nolint:gosec // It is the machine's own.
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(output)) // postgres (PostgreSQL) 15.1 (…)
	if len(fields) < 3 {
		return "", fmt.Errorf("PostgreSQL's version reads %q", output)
	}
	return fields[2], nil
}

// unprivileged returns how a process runs that refuses to run as root, and
// gives it dir.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	// It must be able to reach its folder.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { //nolint:gosec // Others may pass, not look.
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}
