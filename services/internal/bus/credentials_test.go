package bus_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/marketplane/marketplane/services/internal/bus"
)

// foreign runs a NATS that is not ours, until the returned function is called.
func foreign(t *testing.T, address string, change func(*natsserver.Options)) (stop func()) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	options := &natsserver.Options{Host: host, NoSigs: true, NoLog: true}
	if options.Port, err = net.LookupPort("tcp", port); err != nil {
		t.Fatal(err)
	}
	change(options)
	s, err := natsserver.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends by itself once it listens
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	var once sync.Once
	stop = func() { once.Do(func() { s.Shutdown(); s.WaitForShutdown() }) }
	t.Cleanup(stop)
	return stop
}

// logBuffer is a log that other goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b.Bytes(), []byte(text))
}

// connect connects and returns a channel of each connection made.
func connect(t *testing.T, url string, files bus.Files) (connected chan struct{}, log *logBuffer) {
	t.Helper()
	connected, log = make(chan struct{}, 10), &logBuffer{}
	conn, err := bus.Connect(bus.Options{
		URLs: []string{url}, Files: files, Name: "test",
		Log:       slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Connected: func() { connected <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return connected, log
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each kind of credentials works, and new ones do without a restart, however
// often the server has refused the old ones.
func TestCredentialsAreReadAgain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		server func(o *natsserver.Options, password string)
		files  map[string]string
		file   string
	}{
		"token": {
			server: func(o *natsserver.Options, password string) { o.Authorization = password },
			file:   "token",
		},
		"user": {
			server: func(o *natsserver.Options, password string) { o.Username, o.Password = "me", password },
			files:  map[string]string{"username": "me\n"}, file: "password",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, address := t.TempDir(), freeAddress(t)
			for file, content := range tt.files {
				write(t, dir, file, content)
			}
			write(t, dir, tt.file, "hunter2\n")
			stop := foreign(t, address, func(o *natsserver.Options) { tt.server(o, "hunter2") })
			connected, log := connect(t, "nats://"+address, bus.Files{CredentialsDir: dir})
			await(t, connected, "the first connection")

			stop()
			refused := make(chan struct{}, 3)
			foreign(t, address, func(o *natsserver.Options) {
				o.CustomClientAuthentication = authFunc(func(c natsserver.ClientAuthentication) bool {
					if opts := c.GetOpts(); opts.Token == "hunter3" || opts.Password == "hunter3" {
						return true
					}
					select {
					case refused <- struct{}{}:
					default: // The test has seen enough.
					}
					return false
				})
			})
			for range cap(refused) {
				await(t, refused, "a refusal of the old credentials")
			}
			write(t, dir, tt.file, "hunter3")
			await(t, connected, "a connection with the new credentials")
			if log.has("hunter") {
				t.Error("the log tells the credentials")
			}
		})
	}
}

type authFunc func(natsserver.ClientAuthentication) bool

func (f authFunc) Check(c natsserver.ClientAuthentication) bool { return f(c) }

func TestCredentialsFile(t *testing.T) {
	t.Parallel()
	operator, account, user := pairOf(t, nkeys.CreateOperator), pairOf(t, nkeys.CreateAccount), pairOf(t, nkeys.CreateUser)
	accountToken, err := jwt.NewAccountClaims(public(t, account)).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	userToken, err := jwt.NewUserClaims(public(t, user)).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(userToken, seed)
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	foreign(t, address, func(o *natsserver.Options) {
		resolver := &natsserver.MemAccResolver{}
		if err := resolver.Store(public(t, account), accountToken); err != nil {
			t.Fatal(err)
		}
		o.TrustedKeys, o.AccountResolver = []string{public(t, operator)}, resolver
	})
	dir := t.TempDir()
	connected, log := connect(t, "nats://"+address, bus.Files{CredentialsDir: dir})
	// The file comes later, as after a Secret that was forgotten.
	write(t, dir, "user.creds", string(creds))
	await(t, connected, "a connection")
	if log.has(string(seed)) {
		t.Error("the log tells the seed")
	}
}

func pairOf(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func public(t *testing.T, pair nkeys.KeyPair) string {
	t.Helper()
	key, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Behind tls:// the server must be whom it says it is, and the client may have
// to be, too.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority, authorityPEM := newAuthority(t)
	_, otherPEM := newAuthority(t)
	certificate, key := authority(t)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authorityPEM)
	address := freeAddress(t)
	foreign(t, address, func(o *natsserver.Options) {
		o.TLSConfig = &tls.Config{
			Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		}
	})
	dir := t.TempDir()
	own := bus.Files{Certificate: write(t, dir, "tls.crt", string(certificate)), Key: write(t, dir, "tls.key", string(key))}
	files := func(ca string) bus.Files { f := own; f.CA = ca; return f }

	connected, _ := connect(t, "tls://"+address, files(write(t, dir, "ca.crt", string(authorityPEM))))
	await(t, connected, "a connection")

	// An authority that is not trusted is refused, until it is.
	path := write(t, dir, "other.crt", string(otherPEM))
	connected, log := connect(t, "tls://"+address, files(path))
	missing, _ := connect(t, "tls://"+address, files(filepath.Join(dir, "missing.crt")))
	roots, _ := connect(t, "tls://"+address, own)
	select {
	case <-connected:
		t.Error("a server of another authority is trusted")
	case <-missing:
		t.Error("a server is trusted without the certificates to verify it with")
	case <-roots:
		t.Error("a server is trusted that no root vouches for")
	case <-time.After(3 * time.Second): // several tries of each
	}
	write(t, dir, "other.crt", string(authorityPEM))
	await(t, connected, "a connection with the new certificates")
	if log.has("PRIVATE") {
		t.Error("the log tells a key")
	}
}

// newAuthority makes an authority: what issues certificates for 127.0.0.1, and
// its own in PEM.
func newAuthority(t *testing.T) (issue func(*testing.T) (certificate, key []byte), authority []byte) {
	t.Helper()
	generate := func(t *testing.T) *ecdsa.PrivateKey {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	sign := func(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		t.Helper()
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	own := generate(t)
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authority = sign(t, parent, parent, own, own)
	issue = func(t *testing.T) ([]byte, []byte) {
		t.Helper()
		key := generate(t)
		encoded, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		return sign(t, template, parent, key, own), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
	}
	return issue, authority
}
