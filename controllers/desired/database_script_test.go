package desired_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"k8s.io/apimachinery/pkg/util/wait"
)

// databasePod runs the scripts of the database's pod on this machine, with its
// folders and its port in places of the test's own.
type databasePod struct {
	t    *testing.T
	dir  string
	port int
	// as is the user that the server runs as: PostgreSQL refuses root.
	as *syscall.Credential
}

func newDatabasePod(t *testing.T) *databasePod {
	t.Helper()
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) == 0 {
		t.Skip("no PostgreSQL under /usr/lib/postgresql: install the package postgresql")
	}
	// A path of its own: a socket's must stay short, and the server's user must
	// get there.
	dir, err := os.MkdirTemp("", "mp-db-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &databasePod{t: t, dir: dir, port: freePort(t)}
	if os.Getuid() == 0 {
		p.as = unprivileged(t)
	}
	replace := strings.NewReplacer(
		"/var/lib/marketplane", p.path("volume"),
		"/run/marketplane", p.path("socket"),
		"/etc/marketplane/database-scripts", p.path("scripts"),
		"/etc/marketplane/database/", p.path("password")+"/",
		"5432", strconv.Itoa(p.port),
		"flock -w 20", "flock -w 1",
		"-U postgres", fmt.Sprintf("-p %d -U postgres", p.port),
	)
	for _, folder := range []string{"volume", "socket", "scripts", "password"} {
		if err := os.Mkdir(p.path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, script := range []string{"start.sh", "binaries.sh", "ready.sh", "pg_hba.conf"} {
		content, err := os.ReadFile(filepath.Join("database", script))
		if err != nil {
			t.Fatal(err)
		}
		p.write(filepath.Join("scripts", script), replace.Replace(string(content)))
	}
	return p
}

func (p *databasePod) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

// write writes a file, and gives everything to the server's user.
func (p *databasePod) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if p.as == nil {
		return
	}
	err := filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(p.as.Uid), int(p.as.Gid)))
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *databasePod) command(script string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", p.path("scripts", script))
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as, Setpgid: true}
	return cmd
}

// container is one run of start.sh.
type container struct {
	pod  *databasePod
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

func (c *container) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.output.Write(b)
}

func (c *container) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.output.String()
}

func (p *databasePod) start() *container {
	p.t.Helper()
	c := &container{pod: p, cmd: p.command("start.sh"), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait() // The test looks at the state.
	}()
	p.t.Cleanup(c.kill)
	return c
}

// kill ends the container as the kernel would, with all its processes.
func (c *container) kill() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.done
}

// awaitReady waits until the readiness probe succeeds.
func (c *container) awaitReady() {
	c.pod.t.Helper()
	err := wait.PollUntilContextTimeout(c.pod.t.Context(), 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		select {
		case <-c.done:
			return false, errors.New("it ended")
		default:
			return c.pod.command("ready.sh").Run() == nil, nil
		}
	})
	if err != nil {
		c.pod.t.Fatalf("the database is not ready: %v\n%s", err, c.log())
	}
}

// awaitEnd waits until the container ends by itself, and returns its exit code.
func (c *container) awaitEnd() int {
	c.pod.t.Helper()
	select {
	case <-c.done:
	case <-time.After(time.Minute):
		c.pod.t.Fatalf("it does not end:\n%s", c.log())
	}
	return c.cmd.ProcessState.ExitCode()
}

func (p *databasePod) connect(password string) (*pgx.Conn, error) {
	return pgx.Connect(p.t.Context(), fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/marketplane?sslmode=disable", password, p.port))
}

func (p *databasePod) mustConnect(password string) *pgx.Conn {
	p.t.Helper()
	conn, err := p.connect(password)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(p.t.Context())) })
	return conn
}

// One volume's life: made after a first try that was killed half-way, crashed,
// met by a new password, stopped under a client, and never shared.
func TestDatabaseScripts(t *testing.T) {
	p := newDatabasePod(t)
	if err := os.MkdirAll(p.path("volume", "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write("volume/data.new/PG_VERSION", "half")
	p.write("password/password", "first-Password_1")

	c := p.start()
	c.awaitReady()
	conn := p.mustConnect("first-Password_1")
	var encoding, checksums string
	if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_encoding'), current_setting('data_checksums')").
		Scan(&encoding, &checksums); err != nil {
		t.Fatal(err)
	}
	if encoding != "UTF8" || checksums != "on" {
		t.Errorf("encoding %s, checksums %s", encoding, checksums)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 7 AS number"); err != nil {
		t.Fatal(err)
	}

	c.kill()
	p.write("password/password", "second")
	c = p.start()
	c.awaitReady()
	conn = p.mustConnect("second")
	var number int
	if err := conn.QueryRow(t.Context(), "SELECT number FROM kept").Scan(&number); err != nil || number != 7 {
		t.Errorf("after a crash: %d, %v", number, err)
	}
	var refused *pgconn.PgError
	if _, err := p.connect("first-Password_1"); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("with the old password: %v, want error 28P01", err)
	}
	if strings.Contains(c.log(), "second") {
		t.Error("the log tells the password")
	}

	// A second server on the volume is refused, and the first one unharmed.
	other := p.start()
	if code := other.awaitEnd(); code != 1 || !strings.Contains(other.log(), "another PostgreSQL still runs on this volume") {
		t.Errorf("a second server ended with %d: %s", code, other.log())
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the first server suffered: %v", err)
	}

	// stop.sh sends this to process 1. A client that stays does not hold it up.
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := c.awaitEnd(); code != 0 || !strings.Contains(c.log(), "database system is shut down") {
		t.Errorf("it stopped with %d: %s", code, c.log())
	}
}

func TestDatabaseScriptsRefuse(t *testing.T) {
	tests := map[string]struct {
		version, password string
		want              string
	}{
		"a volume of another major version": {"9", "secret", "set spec.database.embedded.image to an image of PostgreSQL 9"},
		"a password that needs quoting":     {"", "it's", "must be of A-Z a-z 0-9 _ - alone"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := newDatabasePod(t)
			p.write("password/password", tt.password)
			if tt.version != "" {
				if err := os.Mkdir(p.path("volume", "data"), 0o700); err != nil {
					t.Fatal(err)
				}
				p.write("volume/data/PG_VERSION", tt.version+"\n")
			}
			c := p.start()
			if code := c.awaitEnd(); code != 1 || !strings.Contains(c.log(), tt.want) {
				t.Errorf("it ended with %d, want 1 and %q:\n%s", code, tt.want, c.log())
			}
			if strings.Contains(c.log(), tt.password) {
				t.Error("the log tells the password")
			}
		})
	}
}

// unprivileged is a user that the server may run as.
func unprivileged(t *testing.T) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Skip("neither a user postgres nor nobody: PostgreSQL refuses to run as root")
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("a %T is no TCP address", listener.Addr())
	}
	return address.Port
}
