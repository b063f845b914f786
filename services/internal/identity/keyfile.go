package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/marketplane/marketplane/api/contract"
)

// ReloadInterval is how often key files are read again. Kubelets update
// mounted files late anyway; a new key waits much longer before it signs.
const ReloadInterval = contract.KeyReload

// KeySet is an immutable set of public keys.
type KeySet map[string]*ecdsa.PublicKey

// Key implements Keys.
func (s KeySet) Key(id string) (*ecdsa.PublicKey, bool) {
	key, ok := s[id]
	return key, ok
}

// ParseKeySet reads a JWK Set (RFC 7517). Only ES256 keys count that are for
// signatures (section 4.2) or do not say what for; a set without one is an
// error.
func ParseKeySet(document []byte) (KeySet, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(document, &set); err != nil {
		return nil, fmt.Errorf("JWK set: %w", err)
	}
	keys := KeySet{}
	for _, k := range set.Keys {
		key, ok := k.Key.(*ecdsa.PublicKey)
		if ok && key.Curve == elliptic.P256() && k.Algorithm == string(jose.ES256) && (k.Use == "" || k.Use == "sig") && k.KeyID != "" {
			keys[k.KeyID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("JWK set: no ES256 key in it")
	}
	return keys, nil
}

// KeyFile is a JWK Set in a file that is read again and again.
type KeyFile struct {
	path    string
	log     *slog.Logger
	content []byte
	keys    atomic.Pointer[KeySet]
}

// OpenKeyFile reads the file for the first time.
func OpenKeyFile(path string, log *slog.Logger) (*KeyFile, error) {
	f := &KeyFile{path: path, log: log}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Key implements Keys.
func (f *KeyFile) Key(id string) (*ecdsa.PublicKey, bool) { return f.keys.Load().Key(id) }

// Run reads the file again until ctx ends. A file that can't be read leaves
// the keys as they are, and a line in the log.
func (f *KeyFile) Run(ctx context.Context) error {
	tick := time.NewTicker(ReloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := f.load(); err != nil {
				f.log.Error("public keys not reloaded", "error", err)
			}
		}
	}
}

func (f *KeyFile) load() error {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("read public keys: %w", err)
	}
	if bytes.Equal(content, f.content) {
		return nil
	}
	keys, err := ParseKeySet(content)
	if err != nil {
		return fmt.Errorf("read public keys from %s: %w", f.path, err)
	}
	f.content = content
	f.keys.Store(&keys)
	return nil
}
