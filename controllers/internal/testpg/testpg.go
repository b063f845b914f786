// Package testpg runs a PostgreSQL from the installation that is on the
// machine, for the operator's tests. The operator knows nothing of the
// services, so it has a starter of its own.
package testpg

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Server is a running PostgreSQL on a loopback port.
type Server struct {
	// Host is host:port.
	Host string
	// Password is that of the superuser, postgres.
	Password string

	t    testing.TB
	dir  string
	as   *syscall.Credential
	cmd  *exec.Cmd
	done chan struct{}
}

// Options say how it is run.
type Options struct {
	// Certificate and Key, in PEM, are what it shows; without them it speaks no
	// TLS.
	Certificate, Key []byte
}

// Start runs a server until the test ends. Without a PostgreSQL on the machine
// the test is skipped.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	bin := binaries(t)
	// A path of its own: the server's user must get there.
	dir, err := os.MkdirTemp("", "mp-pg-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{t: t, dir: dir, as: unprivileged(t), Password: rand.Text(), Host: net.JoinHostPort("127.0.0.1", freePort(t))}
	s.write("password", []byte(s.Password))
	out, err := s.command(bin, "initdb", "-D", s.path("data"), "-U", "postgres", "-E", "UTF8", "--locale=C",
		"--auth=scram-sha-256", "--pwfile", s.path("password"), "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	_, port, _ := net.SplitHostPort(s.Host) // It was joined above.
	args := []string{
		"-D", s.path("data"), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=200",
	}
	if options.Certificate != nil {
		s.write("tls.crt", options.Certificate)
		s.write("tls.key", options.Key)
		args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+s.path("tls.crt"), "-c", "ssl_key_file="+s.path("tls.key"))
	}
	s.cmd = s.command(bin, "postgres", args...)
	var log bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // Stop says what is to be known.
	}()
	t.Cleanup(s.Stop)
	var last error
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		conn, err := pgx.Connect(ctx, s.URL("postgres", s.Password, "postgres", "sslmode=disable"))
		if err == nil {
			_ = conn.Close(ctx)
		}
		last = err
		return err == nil, nil
	})
	if err != nil {
		s.Stop()
		t.Fatalf("PostgreSQL does not start: %v\n%s", last, log.String())
	}
	return s
}

// URL is that of a role on a database.
func (s *Server) URL(role, password, database, query string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword(role, password), Host: s.Host, Path: "/" + database, RawQuery: query,
	}).String()
}

// Exec runs statements as the superuser in a database.
func (s *Server) Exec(database string, statements ...string) {
	s.t.Helper()
	ctx := context.WithoutCancel(s.t.Context())
	conn, err := pgx.Connect(ctx, s.URL("postgres", s.Password, database, "sslmode=disable"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// Stop ends the server; its clients are cut off.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // It may have ended already.
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if s.as == nil {
		return
	}
	for _, path := range []string{s.dir, s.path(name)} {
		if err := os.Chown(path, int(s.as.Uid), int(s.as.Gid)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *Server) command(bin, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), args...) //nolint:gosec,noctx // G204: our own arguments; Stop ends it
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Setpgid: true}
	return cmd
}

func binaries(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Skip("no PostgreSQL under /usr/lib/postgresql: install the package postgresql")
	}
	return found[len(found)-1]
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It does not wait.
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// unprivileged is a user that the server may run as: PostgreSQL refuses root.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			if err1 == nil && err2 == nil {
				return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
			}
		}
	}
	t.Fatal(fmt.Errorf("there is no user to run PostgreSQL as"))
	return nil
}
