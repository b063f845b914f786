// Package keys holds the auth service's secret keys, read from a folder again
// and again: the ones that sign access tokens, and the one that authenticates
// refresh tokens.
package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// MinRefreshKey is the shortest refresh key, in octets: the output of its
// HMAC-SHA256 (RFC 2104, section 3).
const MinRefreshKey = 32

// Folder is a folder with contract.FileSigningKeys and contract.FileRefreshKey.
type Folder struct {
	dir     string
	log     *slog.Logger
	current atomic.Pointer[material]
}

type material struct {
	signingFile, refreshFile []byte

	signing contract.SigningKeys
	jwks    []byte
	refresh []byte
}

// Open reads the folder for the first time.
func Open(dir string, log *slog.Logger) (*Folder, error) {
	f := &Folder{dir: dir, log: log}
	m, err := f.read()
	if err != nil {
		return nil, err
	}
	f.current.Store(m)
	return f, nil
}

// SigningKeys are the ones to sign access tokens with.
func (f *Folder) SigningKeys() contract.SigningKeys { return f.current.Load().signing }

// JWKS is the public document of all of them (RFC 7517), those included that do
// not sign yet.
func (f *Folder) JWKS() []byte { return f.current.Load().jwks }

// RefreshKey authenticates refresh tokens.
func (f *Folder) RefreshKey() []byte { return f.current.Load().refresh }

// Run reads the folder again until ctx ends. What can't be read leaves the keys
// as they are, and a line in the log.
func (f *Folder) Run(ctx context.Context) error {
	tick := time.NewTicker(identity.ReloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.reload()
		}
	}
}

func (f *Folder) reload() {
	m, err := f.read()
	if err != nil {
		f.log.Error("signing keys not reloaded", "error", err)
		return
	}
	before := f.current.Load()
	if m == before {
		return
	}
	f.current.Store(m)
	ids := make([]string, len(m.signing.Keys))
	for i, k := range m.signing.Keys {
		ids[i] = k.ID
	}
	f.log.Info("signing keys reloaded", "kids", ids)
	if !bytes.Equal(m.refresh, before.refresh) {
		f.log.Warn("the refresh key is another one: refresh tokens of before are not valid any more")
	}
}

// read returns the current material itself when the files are as they were.
func (f *Folder) read() (*material, error) {
	m := &material{}
	var err error
	if m.signingFile, err = f.file(contract.FileSigningKeys); err != nil {
		return nil, err
	}
	if m.refreshFile, err = f.file(contract.FileRefreshKey); err != nil {
		return nil, err
	}
	if c := f.current.Load(); c != nil && bytes.Equal(c.signingFile, m.signingFile) && bytes.Equal(c.refreshFile, m.refreshFile) {
		return c, nil
	}
	if m.signing, err = contract.ParseSigningKeys(m.signingFile); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, contract.FileSigningKeys), err)
	}
	if m.jwks, err = m.signing.JWKS(); err != nil {
		return nil, err
	}
	if m.refresh, err = parseRefreshKey(m.refreshFile); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, contract.FileRefreshKey), err)
	}
	return m, nil
}

func (f *Folder) file(name string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(f.dir, name)) //nolint:gosec // G304: the operator names the folder
	if err != nil {
		return nil, fmt.Errorf("read signing folder: %w", err)
	}
	return content, nil
}

// parseRefreshKey never quotes the key.
func parseRefreshKey(content []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(content)))
	if err != nil {
		return nil, errors.New("refresh key: not base64")
	}
	if len(key) < MinRefreshKey {
		return nil, fmt.Errorf("refresh key: has %d octets; at least %d are needed", len(key), MinRefreshKey)
	}
	return key, nil
}
