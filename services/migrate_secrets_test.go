package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// Whatever becomes of a migration, what it says, which ends in logs and in the
// status of the Marketplace, holds no password.
func TestMigrateTellsNoPassword(t *testing.T) {
	t.Parallel()
	raw := testkit.EmptyDatabase(t)
	server, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	superuser, err := pgx.Connect(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = superuser.Close(t.Context()) }()
	admin := "boss_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	for _, statement := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD 'hunter2-boss'", admin),
		fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", pgx.Identifier{server.Path[1:]}.Sanitize(), admin),
	} {
		if _, err := superuser.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	with := func(password, host string) string {
		u := *server
		u.User = url.UserPassword(admin, password)
		if host != "" {
			u.Host = host
		}
		return u.String()
	}
	// In this order: a role that belongs to someone else is met only once it is
	// there.
	installation := uuid.NewString()
	tests := []struct {
		name, url string
		want      string // of what is said
		prepare   string // a statement, before
	}{
		{name: "success", url: with("hunter2-boss", ""), want: "the database is ready"},
		{name: "again", url: with("hunter2-boss", ""), want: "the database is ready"},
		{name: "wrong password", url: with("hunter2-wrong", ""), want: "password authentication failed"},
		{name: "nobody answers", url: with("hunter2-boss", "127.0.0.1:1"), want: "connection refused"},
		{name: "no URL", url: "postgres://boss:hunter2@[::1/shop", want: "not a valid postgres:// URL"},
		{
			name: "roles may not be changed", url: with("hunter2-boss", ""), want: "permission denied",
			prepare: "ALTER ROLE " + admin + " NOCREATEROLE",
		},
	}
	for _, tt := range tests {
		if tt.prepare != "" {
			if _, err := superuser.Exec(t.Context(), tt.prepare); err != nil {
				t.Fatal(err)
			}
		}
		dir := t.TempDir()
		write := func(content string, path ...string) string {
			file := filepath.Join(append([]string{dir}, path...)...)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			return file
		}
		for _, service := range contract.Services() {
			// A new one each time, so that each run changes the roles.
			write("hunter2-"+service+uuid.NewString(), "roles", service, contract.FilePassword)
		}
		environment := map[string]string{
			contract.EnvInstallation:    installation,
			contract.EnvDatabaseURLFile: write(tt.url, "url"),
			contract.EnvRolesDir:        filepath.Join(dir, "roles"),
			contract.EnvLogLevel:        "debug",
		}
		var said bytes.Buffer
		err := run(t.Context(), []string{contract.ComponentMigrate}, func(name string) string { return environment[name] }, &said, &said)
		if err != nil {
			fmt.Fprintln(&said, err)
		}
		if !strings.Contains(said.String(), tt.want) {
			t.Errorf("%s: %q is not in what is said:\n%s", tt.name, tt.want, &said)
		}
		if strings.Contains(said.String(), "hunter2") {
			t.Errorf("%s: a password is told:\n%s", tt.name, &said)
		}
	}
}
