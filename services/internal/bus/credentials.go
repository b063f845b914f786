package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/marketplane/marketplane/api/contract"
)

// Files are what a connection is secured with. They are read again at each
// connection, so that new ones take effect without a restart; one that is gone
// fails the connection, not the process. No error holds what is in them.
type Files struct {
	// CredentialsDir is a folder with the file "token"; or "username" and
	// "password"; or "user.creds". Empty for none.
	CredentialsDir string
	// CA are the certificates, in PEM, that servers are verified with; empty for
	// the machine's own roots.
	CA string
	// Certificate and Key, in PEM, are shown to the servers; empty for none.
	Certificate, Key string
}

// options are those of the connection.
func (f Files) options() []nats.Option {
	var options []nats.Option
	if f.CredentialsDir != "" {
		options = append(options,
			nats.TokenHandler(func() string { return f.credential(contract.FileBusToken) }),
			nats.UserInfoHandler(func() (string, string) {
				return f.credential(contract.FileBusUsername), f.credential(contract.FilePassword)
			}),
			nats.UserJWT(f.token, f.sign),
			// The files may be as new as the server's before long.
			nats.IgnoreAuthErrorAbort(),
		)
	}
	if f.CA != "" || f.Certificate != "" {
		options = append(options, f.secure)
	}
	return options
}

// credential reads a file of the folder; empty where there is none.
func (f Files) credential(name string) string {
	content, err := f.read(name)
	if err != nil {
		return "" // The server's refusal tells.
	}
	return strings.TrimSpace(string(content))
}

func (f Files) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(f.CredentialsDir, name)) //nolint:gosec // G304: the operator names the folder
}

// token returns the JWT of the credentials file; empty where there is none.
func (f Files) token() (string, error) {
	content, err := f.read(contract.FileBusCreds)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the bus's credentials: %w", err)
	}
	token, err := nkeys.ParseDecoratedJWT(content)
	if err != nil {
		return "", errors.New("the bus's credentials file holds no JWT")
	}
	return token, nil
}

// sign answers the server's challenge with the seed of the credentials file.
func (f Files) sign(nonce []byte) ([]byte, error) {
	content, err := f.read(contract.FileBusCreds)
	if err != nil {
		return nil, fmt.Errorf("read the bus's credentials: %w", err)
	}
	pair, err := nkeys.ParseDecoratedNKey(content)
	if err != nil {
		return nil, errors.New("the bus's credentials file holds no seed")
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// secure asks for TLS. The driver's own options would refuse to start without
// the files.
func (f Files) secure(o *nats.Options) error {
	o.Secure = true
	o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		o.RootCAsCB = func() (*x509.CertPool, error) {
			content, err := os.ReadFile(f.CA)
			if err != nil {
				return nil, fmt.Errorf("read the bus's CA certificates: %w", err)
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(content) {
				return nil, fmt.Errorf("%s holds no certificate in PEM", f.CA)
			}
			return pool, nil
		}
	}
	if f.Certificate != "" {
		o.TLSCertCB = func() (tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
			if err != nil {
				return tls.Certificate{}, fmt.Errorf("%s and %s are no certificate with its key", f.Certificate, f.Key)
			}
			return pair, nil
		}
	}
	return nil
}
