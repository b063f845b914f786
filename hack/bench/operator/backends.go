package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	natsserver "github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Names of the Secrets, in every namespace, by which Marketplaces reach the
// external database and bus.
const (
	databaseSecret = "shared-database"
	busSecret      = "shared-bus"
	busToken       = "bench-bus-token"
)

// backends are one PostgreSQL and one NATS, which all Marketplaces share.
type backends struct {
	postgres    *exec.Cmd
	nats        *natsserver.Server
	databaseURL string
	busURL      string
}

func startBackends(ctx context.Context, dir string) (*backends, error) {
	b := &backends{}
	if err := b.startNATS(); err != nil {
		return nil, err
	}
	if err := b.startPostgres(ctx, filepath.Join(dir, "postgresql")); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *backends) stop() {
	if b.nats != nil {
		b.nats.Shutdown()
		b.nats.WaitForShutdown()
	}
	if b.postgres != nil {
		// An immediate shutdown: nobody needs the data.
		_ = b.postgres.Process.Signal(syscall.SIGQUIT)
		_ = b.postgres.Wait()
	}
}

func (b *backends) startNATS() error {
	server, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true, Authorization: busToken,
	})
	if err != nil {
		return err
	}
	server.Start()
	b.nats = server
	if !server.ReadyForConnections(10 * time.Second) {
		return errors.New("NATS does not start")
	}
	b.busURL = server.ClientURL()
	return nil
}

// startPostgres starts the newest PostgreSQL of the machine on an empty folder.
func (b *backends) startPostgres(ctx context.Context, dir string) error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return errors.New("there is no PostgreSQL in /usr/lib/postgresql: install the package postgresql")
	}
	bin := found[len(found)-1]
	address, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	as, err := unprivileged(dir)
	if err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+filepath.Join(dir, "data"), //nolint:gosec // It is the machine's own.
		"--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8")
	initdb.Dir, initdb.SysProcAttr = dir, as
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	b.postgres = exec.Command(filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), //nolint:gosec,noctx // stop ends it.
		"-c", "listen_addresses=127.0.0.1", "-c", "port="+port, "-c", "unix_socket_directories=", "-c", "fsync=off")
	b.postgres.Dir, b.postgres.SysProcAttr = dir, as
	if err := b.postgres.Start(); err != nil {
		b.postgres = nil
		return err
	}
	b.databaseURL = "postgres://postgres:bench@" + address + "/postgres?sslmode=disable"
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		connection, err := pgx.Connect(ctx, b.databaseURL)
		if err != nil {
			return false, nil //nolint:nilerr // It starts still.
		}
		return true, connection.Close(ctx)
	})
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

// secrets are those that Marketplaces of the namespace name.
func (b *backends) secrets(namespace string) []*corev1.Secret {
	secret := func(name, key, value string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			StringData: map[string]string{key: value},
		}
	}
	return []*corev1.Secret{
		secret(databaseSecret, "url", b.databaseURL),
		secret(busSecret, "token", busToken),
	}
}

// shape has a Marketplace use the external database and bus.
func (b *backends) shape(spec *v1alpha1.MarketplaceSpec) {
	spec.Database.External = &v1alpha1.ExternalDatabase{URLSecretRef: v1alpha1.SecretKeyReference{Name: databaseSecret}}
	spec.Bus.External = &v1alpha1.ExternalBus{
		URLs:                 []v1alpha1.BusURL{v1alpha1.BusURL(b.busURL)},
		CredentialsSecretRef: &v1alpha1.SecretReference{Name: busSecret},
	}
}
