package identity_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/identity"
)

// A process learns of a key that is published while it runs, and of one that is
// not published any more; a file that can't be read changes nothing.
func TestKeyFileFollowsTheFile(t *testing.T) {
	var (
		first, second = newSigningKey(t), newSigningKey(t)
		path          = filepath.Join(t.TempDir(), contract.FileJWKS)
		log           bytes.Buffer
	)
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(keys ...contract.SigningKey) {
		t.Helper()
		document, err := contract.SigningKeys{Keys: keys}.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		write(document)
	}
	publish(first)
	synctest.Test(t, func(t *testing.T) {
		keys, err := identity.OpenKeyFile(path, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- keys.Run(ctx) }()
		expect := func(when string, knowsFirst, knowsSecond bool) {
			t.Helper()
			time.Sleep(identity.ReloadInterval) // the bubble's time
			synctest.Wait()
			if _, ok := keys.Key(first.ID); ok != knowsFirst {
				t.Errorf("%s: the first key is known: %v", when, ok)
			}
			if _, ok := keys.Key(second.ID); ok != knowsSecond {
				t.Errorf("%s: the second key is known: %v", when, ok)
			}
		}
		publish(first, second)
		expect("both published", true, true)
		write([]byte(`{"keys": [`))
		expect("broken", true, true)
		if !strings.Contains(log.String(), "public keys not reloaded") {
			t.Error("a broken file is not logged")
		}
		publish(second)
		expect("the first retired", false, true)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func newSigningKey(t *testing.T) contract.SigningKey {
	t.Helper()
	key, err := contract.NewSigningKey(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return key
}
