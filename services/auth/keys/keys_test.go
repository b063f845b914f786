package keys

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/identity"
)

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func signing(t *testing.T) (id, document string) {
	t.Helper()
	key, err := contract.NewSigningKey(time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	content, err := contract.SigningKeys{Keys: []contract.SigningKey{key}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return key.ID, string(content)
}

func refreshKey(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, MinRefreshKey)) + "\n"
}

func TestFolderReloads(t *testing.T) {
	dir := t.TempDir()
	first, document := signing(t)
	write(t, dir, contract.FileSigningKeys, document)
	write(t, dir, contract.FileRefreshKey, refreshKey(1))
	var log bytes.Buffer
	folder, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when, id string, refresh byte) {
		t.Helper()
		if got := folder.SigningKeys().Keys[0].ID; got != id {
			t.Errorf("%s: signing key %s, want %s", when, got, id)
		}
		set, err := identity.ParseKeySet(folder.JWKS())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.Key(id); !ok {
			t.Errorf("%s: %s is not published", when, id)
		}
		if !bytes.Equal(folder.RefreshKey(), bytes.Repeat([]byte{refresh}, MinRefreshKey)) {
			t.Errorf("%s: another refresh key", when)
		}
	}
	expect("at the start", first, 1)

	folder.reload()
	expect("unchanged", first, 1)
	if log.Len() > 0 {
		t.Errorf("a reload without news was logged: %s", log.String())
	}

	write(t, dir, contract.FileSigningKeys, "{")
	folder.reload()
	expect("broken signing keys", first, 1)
	if !strings.Contains(log.String(), "not reloaded") {
		t.Error("a failed reload is not logged")
	}

	second, document := signing(t)
	write(t, dir, contract.FileSigningKeys, document)
	write(t, dir, contract.FileRefreshKey, "c2hvcnQ=")
	folder.reload()
	expect("short refresh key", first, 1)

	write(t, dir, contract.FileRefreshKey, refreshKey(2))
	folder.reload()
	expect("both new", second, 2)
	if !strings.Contains(log.String(), "refresh key is another one") {
		t.Error("a new refresh key is not logged")
	}
}

func TestOpenRefuses(t *testing.T) {
	_, document := signing(t)
	tests := map[string]struct {
		signing, refresh *string
		wantErr          string
	}{
		"no signing keys":    {nil, new(refreshKey(1)), contract.FileSigningKeys},
		"no refresh key":     {&document, nil, contract.FileRefreshKey},
		"refresh not base64": {&document, new("secret!"), "not base64"},
		"refresh too short":  {&document, new("c2VjcmV0"), "at least 32"},
		"signing not JSON":   {new("secret"), new(refreshKey(1)), "not the expected JSON"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.signing != nil {
				write(t, dir, contract.FileSigningKeys, *tt.signing)
			}
			if tt.refresh != nil {
				write(t, dir, contract.FileRefreshKey, *tt.refresh)
			}
			_, err := Open(dir, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "c2V") {
				t.Error("the error quotes key material")
			}
		})
	}
}
