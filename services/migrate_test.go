package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/migration"
	"github.com/marketplane/marketplane/services/internal/testkit"
)

// shared is a database on which two installations live, made by administrators
// who are no superusers.
type shared struct {
	url           *url.URL
	installations []string
	passwords     map[string]string // by role
}

// as connects as a role.
func (s shared) as(t *testing.T, role, password string) *pgx.Conn {
	t.Helper()
	u := *s.url
	u.User = url.UserPassword(role, password)
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatalf("connect as %s: %v", role, err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// newShared migrates a database for two installations with all there is, each
// twice and at the same time.
func newShared(t *testing.T) shared {
	t.Helper()
	raw := testkit.EmptyDatabase(t)
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	superuser, err := pgx.Connect(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = superuser.Close(t.Context()) }()
	s := shared{url: u, passwords: map[string]string{}}
	var wg sync.WaitGroup
	for range 2 {
		installation := uuid.NewString()
		admin := "boss_" + strings.ReplaceAll(installation, "-", "")
		// What the documentation asks for, and no more.
		for _, statement := range []string{
			fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE PASSWORD 'boss'", admin),
			fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", pgx.Identifier{u.Path[1:]}.Sanitize(), admin),
		} {
			if _, err := superuser.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		s.installations = append(s.installations, installation)
		own := *u
		own.User = url.UserPassword(admin, "boss")
		plan := migrationPlan(installation, func(service string) string {
			role := contract.DatabaseRole(installation, service)
			s.passwords[role] = "p-" + service + installation
			return s.passwords[role]
		})
		for range 2 {
			wg.Go(func() {
				if err := migration.Apply(t.Context(), own.String(), plan, testkit.Logger(t)); err != nil {
					t.Errorf("migrate %s as an administrator who is no superuser: %v", installation, err)
				}
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return s
}

// table is a table, and a column of it that can be set.
type table struct{ schema, name, column string }

// tables are all of Marketplane, as the catalogue has them.
func (s shared) tables(t *testing.T) (tables []table, schemas []string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.url.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), `
		SELECT n.nspname, c.relname, (
			SELECT a.attname FROM pg_attribute a
			WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
			ORDER BY a.attnum LIMIT 1)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname LIKE 'mp\_%' AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) {
		return t, row.Scan(&t.schema, &t.name, &t.column)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if !slices.Contains(schemas, table.schema) {
			schemas = append(schemas, table.schema)
		}
	}
	return tables, schemas
}

// code is the SQLSTATE that a statement ends with; it is rolled back.
func code(t *testing.T, conn *pgx.Conn, statement string) string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), statement)
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &pg):
		return pg.Code
	default:
		t.Fatal(err)
		return ""
	}
}

// Every role tries everything on every table of every installation on the
// server: what the catalogue has decides, not what this test knows of.
func TestRolesMeetNobodyElse(t *testing.T) {
	t.Parallel()
	const (
		refused = "42501" // insufficient_privilege
		unfit   = "42809" // wrong_object_type: what is done to tables, done to a view
	)
	s := newShared(t)
	tables, schemas := s.tables(t)
	if len(schemas) != 8 || len(tables) < 30 {
		t.Fatalf("%d schemas with %d tables: the migrations of two installations make more", len(schemas), len(tables))
	}
	for _, installation := range s.installations {
		for _, service := range contract.Services() {
			role := contract.DatabaseRole(installation, service)
			t.Run(role, func(t *testing.T) {
				conn := s.as(t, role, s.passwords[role])
				for _, table := range tables {
					name := pgx.Identifier{table.schema, table.name}.Sanitize()
					column := pgx.Identifier{table.column}.Sanitize()
					var want []string
					switch {
					case table.name == goose.DefaultTablename:
					case table.schema == contract.DatabaseSchema(installation, service):
						want = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
					case table.schema == contract.EventsSchema(installation) && table.name == "events":
						want = []string{"SELECT", "INSERT"}
					case table.schema == contract.EventsSchema(installation) && table.name == "consumers":
						want = []string{"SELECT", "INSERT", "UPDATE"}
					}
					var got []string
					for _, try := range [][2]string{
						{"SELECT", "SELECT FROM " + name + " LIMIT 0"},
						{"INSERT", "INSERT INTO " + name + " SELECT * FROM " + name + " LIMIT 0"},
						{"UPDATE", "UPDATE " + name + " SET " + column + " = DEFAULT WHERE false"},
						{"DELETE", "DELETE FROM " + name + " WHERE false"},
						{"TRUNCATE", "TRUNCATE " + name},
						{"ALTER", "ALTER TABLE " + name + " ADD COLUMN more int"},
						{"DROP", "DROP TABLE " + name},
						{"DROP VIEW", "DROP VIEW " + name},
						{"TRIGGER", "CREATE TRIGGER t BEFORE INSERT ON " + name + " EXECUTE FUNCTION suppress_redundant_updates_trigger()"},
						{"LOCK", "LOCK TABLE " + name + " IN ACCESS EXCLUSIVE MODE"},
					} {
						if answer := code(t, conn, try[1]); answer != refused && answer != unfit {
							got = append(got, try[0])
						}
					}
					// Whoever may change rows may lock them, which PostgreSQL does not
					// tell apart.
					got = slices.DeleteFunc(got, func(s string) bool { return s == "LOCK" && slices.Contains(want, "UPDATE") })
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("rights on %s (-want +got):\n%s", name, diff)
					}
				}
				for _, schema := range schemas {
					if got := code(t, conn, "CREATE TABLE "+pgx.Identifier{schema, "more"}.Sanitize()+" ()"); got != refused {
						t.Errorf("it makes tables in %s: %q", schema, got)
					}
				}
				for other := range s.passwords {
					if got := code(t, conn, "SET ROLE "+pgx.Identifier{other}.Sanitize()); other != role && got != refused {
						t.Errorf("it acts as %s: %q", other, got)
					}
				}
				for _, statement := range []string{"CREATE SCHEMA more", "CREATE ROLE more", "CREATE TABLE public.more ()", "ALTER ROLE CURRENT_USER CREATEROLE"} {
					if got := code(t, conn, statement); got != refused {
						t.Errorf("%s: %q", statement, got)
					}
				}
			})
		}
	}
}

// The administrator of one installation has no right on the data of another. On
// PostgreSQL 15 it can take itself one: there, who may make roles may change and
// join every role that is no superuser, its own or not.
func TestAdministratorsMeetNobodyElse(t *testing.T) {
	t.Parallel()
	const refused = "42501" // insufficient_privilege
	s := newShared(t)
	tables, _ := s.tables(t)
	for n, installation := range s.installations {
		id := strings.ReplaceAll(installation, "-", "")
		conn := s.as(t, "boss_"+id, "boss")
		for _, table := range tables {
			own := strings.HasPrefix(table.schema, "mp_"+id+"_")
			got := code(t, conn, "SELECT FROM "+pgx.Identifier{table.schema, table.name}.Sanitize()+" LIMIT 0")
			if own != (got != refused) {
				t.Errorf("table %s.%s: own %v, answer %q", table.schema, table.name, own, got)
			}
		}

		var version int
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			t.Fatal(err)
		}
		want := refused
		if version < 160000 {
			want = ""
		}
		other := s.installations[1-n]
		roles := []string{"boss_" + strings.ReplaceAll(other, "-", "")}
		for _, service := range contract.Services() {
			roles = append(roles, contract.DatabaseRole(other, service))
		}
		for _, role := range roles {
			role = pgx.Identifier{role}.Sanitize()
			for _, statement := range []string{"GRANT " + role + " TO CURRENT_USER", "ALTER ROLE " + role + " PASSWORD 'boss'"} {
				if got := code(t, conn, statement); got != want {
					t.Errorf("on PostgreSQL %d, %s: answer %q, want %q", version, statement, got, want)
				}
			}
		}
	}
}
