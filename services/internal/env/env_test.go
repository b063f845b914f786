package env_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/env"
)

func TestSourceTellsEveryMistake(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"DURATION": "soon", "LONG": "2h", "ADDRESS": "8080", "FOLDER": dir, "EMPTY": empty, "GONE": filepath.Join(dir, "gone"), "SWITCH": "yes",
	}
	s := env.New(func(name string) string { return values[name] })
	s.Required("MISSING")
	s.Duration("DURATION", time.Second, 0, time.Hour)
	s.Duration("LONG", time.Second, 0, time.Hour)
	s.Address("ADDRESS", ":1")
	s.File("FOLDER")
	s.Secret("EMPTY")
	s.Secret("GONE")
	s.Bool("SWITCH", true)
	err := s.Err()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"MISSING: must be set", "DURATION: is not a duration", "LONG: must be from 0s to 1h0m0s", "ADDRESS: is not an address",
		"FOLDER: ", "EMPTY: ", "GONE: ", "SWITCH: must be true or false",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestSourceReads(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"A": "a", "LIST": " x, ,y ", "D": "90s", "ADDRESS": "127.0.0.1:1", "SECRET": secret, "OFF": "false"}
	s := env.New(func(name string) string { return values[name] })
	got := []any{
		s.Required("A"), s.String("B", "default"), s.List("LIST"), s.List("NONE"),
		s.Duration("D", time.Second, 0, time.Hour), s.Duration("E", time.Second, 0, time.Hour), s.Address("ADDRESS", ":2"), s.Secret("SECRET"), s.Bool("OFF", true), s.Bool("ON", true),
	}
	want := []any{"a", "default", []string{"x", "y"}, []string(nil), 90 * time.Second, time.Second, "127.0.0.1:1", "s3cret", false, true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}
