// Package local runs a PostgreSQL server of its own from the installation that
// is on the machine, for development and tests.
package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled says that no PostgreSQL server was found, and the remedy.
var ErrNotInstalled = errors.New("no PostgreSQL server found on this machine: " +
	"install one (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql), " +
	"or name a running one with --database-url")

// Server is a running PostgreSQL.
type Server struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Options say how to run it.
type Options struct {
	// Dir holds the data and the log; it is made if it is not there.
	Dir string
	// Ephemeral trades durability for speed; for tests only.
	Ephemeral bool
}

// Start makes a cluster in the folder if there is none, and starts it on a
// free loopback port. PostgreSQL refuses to run as root; as root it runs as
// the user postgres, or nobody. The superuser's password is new at every
// start.
func Start(ctx context.Context, options Options) (*Server, error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, err
	}
	account, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	if err := account.makeDir(dir); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	data := filepath.Join(dir, "data")
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		if err := initialise(ctx, bin, account, dir, data, options.Ephemeral); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("look at the data folder: %w", err)
	}
	password := rand.Text()
	if err := setPassword(ctx, bin, account, dir, data, password); err != nil {
		return nil, err
	}
	return run(ctx, bin, account, dir, data, password, options.Ephemeral)
}

func initialise(ctx context.Context, bin string, account account, dir, data string, ephemeral bool) error {
	// A folder that was half made by a killed start is thrown away: initdb
	// works beside it, and the rename is atomic.
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("clear a half-made cluster: %w", err)
	}
	args := []string{"-D", fresh, "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-host=scram-sha-256", "--auth-local=peer", "--data-checksums"}
	if ephemeral {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), args...) //nolint:gosec // G204: our own arguments
	cmd.Dir, cmd.SysProcAttr = dir, account.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("PostgreSQL's user can't enter %s: name a data folder that it can reach: %w", dir, err)
		}
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return os.Rename(fresh, data)
}

// setPassword uses single-user mode, which needs no password.
func setPassword(ctx context.Context, bin string, account account, dir, data, password string) error {
	if err := removeStaleLock(data); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--single", "-D", data, "postgres") //nolint:gosec // G204: our own arguments
	cmd.Dir, cmd.SysProcAttr = dir, account.attributes()
	cmd.Stdin = bytes.NewBufferString("ALTER ROLE postgres PASSWORD '" + password + "'\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prepare the PostgreSQL cluster in %s (is another one running on it?): %w: %s", data, err, bytes.TrimSpace(out))
	}
	return nil
}

// removeStaleLock lets a cluster start again after its machine or container
// went away, when its old process id belongs to somebody else by now.
// PostgreSQL itself refuses a start if a live server holds the shared memory.
func removeStaleLock(data string) error {
	path := filepath.Join(data, "postmaster.pid")
	content, err := os.ReadFile(path) //nolint:gosec // G304: inside our own folder
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read PostgreSQL's lock file: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err == nil {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && bytes.HasPrefix(name, []byte("postgres")) {
			return fmt.Errorf("a PostgreSQL server (process %d) is running on %s already: stop it, or use another data folder", pid, data)
		}
	}
	return os.Remove(path)
}

func run(ctx context.Context, bin string, account account, dir, data, password string, ephemeral bool) (*Server, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{
		"-D", data, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "max_connections=200", "-c", "shared_buffers=128MB",
	}
	if ephemeral {
		args = append(args, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // G304: inside our own folder
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer func() { _ = logFile.Close() }()                       // the child has its own copy
	cmd := exec.Command(filepath.Join(bin, "postgres"), args...) //nolint:gosec,noctx // G204: our own arguments; Stop ends it, gracefully
	cmd.Dir, cmd.SysProcAttr = dir, account.attributes()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	s := &Server{
		url: (&url.URL{
			Scheme: "postgres", User: url.UserPassword("postgres", password),
			Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/postgres", RawQuery: "sslmode=disable",
		}).String(),
		cmd:  cmd,
		done: make(chan struct{}),
	}
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	if err := s.waitReady(ctx); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("%w; see %s", err, logFile.Name()), s.Stop(stopping))
	}
	return s, nil
}

// URL is the superuser's. It holds the password: keep it out of logs.
func (s *Server) URL() string { return s.url }

// Done is closed when the server has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop asks for a fast shutdown (PostgreSQL's manual, section 19.5) and waits
// for it; when ctx ends first, it kills the server.
func (s *Server) Stop(ctx context.Context) error {
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it may have ended by itself
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		_ = s.cmd.Process.Kill()
		<-s.done
		return ctx.Err()
	}
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second) // crash recovery may take a while
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.url)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.done:
			return fmt.Errorf("PostgreSQL ended at its start: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL did not become ready: %w", err)
		case <-poll.C:
		}
	}
}

// findBinaries prefers Debian's versioned folders, the newest first: what
// stands in PATH there is a client wrapper.
func findBinaries() (string, error) {
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	slices.SortFunc(candidates, func(a, b string) int { return major(b) - major(a) })
	if path, err := exec.LookPath("initdb"); err == nil {
		candidates = append(candidates, path)
	}
	for _, path := range candidates {
		dir := filepath.Dir(path)
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", ErrNotInstalled
}

func major(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: %s is not a TCP address", l.Addr())
	}
	return address.Port, nil
}

// account is the user that PostgreSQL runs as; nil attributes mean "as we are".
type account struct{ credential *syscall.Credential }

func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as: run this as another user")
}

func (a account) attributes() *syscall.SysProcAttr {
	// Its own process group: a Ctrl-C on the terminal is for us alone, since
	// PostgreSQL must end after the services do.
	return &syscall.SysProcAttr{Credential: a.credential, Setpgid: true}
}

func (a account) makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // G301: another user must reach the data below; that is 0700
		return err
	}
	if a.credential == nil {
		return nil
	}
	return os.Chown(dir, int(a.credential.Uid), int(a.credential.Gid))
}
