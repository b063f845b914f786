package reach_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/internal/testpg"
	"github.com/marketplane/marketplane/controllers/reach"
)

// startNATS runs a server until the test ends, and returns its host:port.
func startNATS(t *testing.T, change func(*natsserver.Options)) string {
	t.Helper()
	options := &natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true}
	if change != nil {
		change(options)
	}
	s, err := natsserver.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends by itself once it listens
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s.Addr().String()
}

func TestBus(t *testing.T) {
	t.Parallel()
	authority, other := testpg.NewAuthority(t), testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "127.0.0.1")
	clientCertificate, clientKey := authority.Issue(t, "client")
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority.PEM)

	open := startNATS(t, nil)
	token := startNATS(t, func(o *natsserver.Options) { o.Authorization = password })
	users := startNATS(t, func(o *natsserver.Options) {
		o.Users = []*natsserver.User{
			{Username: "master", Password: password},
			{Username: "masterly", Password: password, Permissions: &natsserver.Permissions{
				Publish:   &natsserver.SubjectPermission{Allow: []string{"mp.a.>"}},
				Subscribe: &natsserver.SubjectPermission{Allow: []string{"mp.a.>"}},
			}},
		}
	})
	secure := startNATS(t, func(o *natsserver.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	})
	mutual := startNATS(t, func(o *natsserver.Options) {
		o.TLSConfig = &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
		}
	})

	tests := map[string]struct {
		bus         reach.Bus
		wantReason  string
		wantMessage string
	}{
		"open":       {reach.Bus{URLs: []string{"nats://" + open}}, v1alpha1.ReasonReady, "external bus " + open + ": NATS takes connections"},
		"token":      {reach.Bus{URLs: []string{"nats://" + token}, Token: password}, v1alpha1.ReasonReady, ""},
		"a password": {reach.Bus{URLs: []string{"nats://" + users}, Username: "master", Password: password}, v1alpha1.ReasonReady, ""},
		"a wrong token": {
			reach.Bus{URLs: []string{"nats://" + token}, Token: "hunter2"},
			v1alpha1.ReasonAuthenticationFailed, "it refuses the credentials",
		},
		"no credentials": {reach.Bus{URLs: []string{"nats://" + users}}, v1alpha1.ReasonAuthenticationFailed, "it refuses the credentials"},
		"rights below the prefix": {
			reach.Bus{URLs: []string{"nats://" + users}, Username: "masterly", Password: password, Prefix: "mp.a"},
			v1alpha1.ReasonReady, "",
		},
		"no rights below the prefix": {
			reach.Bus{URLs: []string{"nats://" + users}, Username: "masterly", Password: password, Prefix: "mp.b"},
			v1alpha1.ReasonUnsupported, "allow mp.b.>",
		},
		"credentials that are none": {
			reach.Bus{URLs: []string{"nats://" + open}, Creds: []byte("hunter2 " + password)},
			v1alpha1.ReasonSecretInvalid, "holds no JWT with its seed",
		},
		"the second server": {reach.Bus{URLs: []string{"nats://127.0.0.1:1", "nats://" + open}}, v1alpha1.ReasonReady, ""},
		"nobody listens":    {reach.Bus{URLs: []string{"nats://127.0.0.1:1"}}, v1alpha1.ReasonUnreachable, "127.0.0.1:1: connection refused"},
		"no such host":      {reach.Bus{URLs: []string{"nats://bus.invalid:4222"}}, v1alpha1.ReasonUnreachable, `the host "bus.invalid"`},
		"TLS":               {reach.Bus{URLs: []string{"tls://" + secure}, CA: authority.PEM}, v1alpha1.ReasonReady, ""},
		"TLS that only the server asks for": {
			reach.Bus{URLs: []string{"nats://" + secure}, CA: authority.PEM}, v1alpha1.ReasonReady, "",
		},
		"another authority": {
			reach.Bus{URLs: []string{"tls://" + secure}, CA: other.PEM}, v1alpha1.ReasonUnreachable, "signed by an authority that is not trusted",
		},
		"the image's own roots": {
			reach.Bus{URLs: []string{"tls://" + secure}}, v1alpha1.ReasonUnreachable, "signed by an authority that is not trusted",
		},
		"another host": {
			reach.Bus{URLs: []string{"tls://" + strings.Replace(secure, "127.0.0.1", "localhost", 1)}, CA: authority.PEM},
			v1alpha1.ReasonUnreachable, `not for the host "localhost"`,
		},
		"no TLS there": {reach.Bus{URLs: []string{"tls://" + open}}, v1alpha1.ReasonUnreachable, "it does not offer TLS"},
		"a client's certificate": {
			reach.Bus{URLs: []string{"tls://" + mutual}, CA: authority.PEM, Certificate: clientCertificate, Key: clientKey},
			v1alpha1.ReasonReady, "",
		},
		"no client's certificate": {
			reach.Bus{URLs: []string{"tls://" + mutual}, CA: authority.PEM}, v1alpha1.ReasonUnreachable, "",
		},
		"a key of another certificate": {
			reach.Bus{URLs: []string{"tls://" + mutual}, CA: authority.PEM, Certificate: clientCertificate, Key: key},
			v1alpha1.ReasonSecretInvalid, "do not fit together",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.bus.Prefix == "" {
				tt.bus.Prefix = "mp.a"
			}
			check(t, probe(t, tt.bus), tt.wantReason, tt.wantMessage)
		})
	}
}

// Servers that do not answer leave the last one its time.
func TestBusWithSilentServers(t *testing.T) {
	t.Parallel()
	var urls []string
	for range 4 {
		urls = append(urls, "nats://"+silentServer(t))
	}
	bus := reach.Bus{URLs: append(urls, "nats://"+startNATS(t, nil)), Prefix: "mp.a"}
	check(t, probe(t, bus), v1alpha1.ReasonReady, "NATS takes connections")
}
