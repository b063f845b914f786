package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/hack/bench/internal/postgres"
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
	postgres *postgres.Server
	nats     *natsserver.Server
	busURL   string
}

func startBackends(ctx context.Context, dir string) (*backends, error) {
	b := &backends{}
	if err := b.startNATS(); err != nil {
		return nil, err
	}
	var err error
	if b.postgres, err = postgres.Start(ctx, filepath.Join(dir, "postgresql"), "fsync=off"); err != nil {
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
		b.postgres.Stop()
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

// secrets are those that Marketplaces of the namespace name.
func (b *backends) secrets(namespace string) []*corev1.Secret {
	secret := func(name, key, value string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			StringData: map[string]string{key: value},
		}
	}
	return []*corev1.Secret{
		secret(databaseSecret, "url", b.postgres.URL("postgres")),
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
