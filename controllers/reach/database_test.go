package reach_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/databaseurl"
	"github.com/marketplane/marketplane/controllers/internal/testpg"
	"github.com/marketplane/marketplane/controllers/reach"
)

// password is what no message may hold.
const password = "hunter2-Zq/9"

func parse(t *testing.T, url string, tls *v1alpha1.DatabaseTLS) databaseurl.Server {
	t.Helper()
	s, err := databaseurl.Parse(url, tls)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func check(t *testing.T, got reach.Result, wantReason, wantMessage string) {
	t.Helper()
	if got.Reason != wantReason || !strings.Contains(got.Message, wantMessage) {
		t.Errorf("result = %+v, want %s with %q", got, wantReason, wantMessage)
	}
	for _, secret := range []string{password, "hunter2", "hunter2-Zq%2F9", "master"} {
		if strings.Contains(got.Message, secret) {
			t.Errorf("message %q tells %q", got.Message, secret)
		}
	}
}

func probe(t *testing.T, target reach.Target) reach.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), reach.Timeout)
	defer cancel()
	return target.Probe(ctx)
}

func TestDatabase(t *testing.T) {
	t.Parallel()
	authority := testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "127.0.0.1")
	pg := testpg.Start(t, testpg.Options{Certificate: certificate, Key: key})
	pg.Exec("postgres",
		"CREATE DATABASE shop", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0",
		"CREATE DATABASE closed", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
		"CREATE ROLE master LOGIN CREATEROLE PASSWORD '"+password+"'", "GRANT CREATE ON DATABASE shop, latin TO master",
		"CREATE ROLE mastermind LOGIN PASSWORD '"+password+"'", "GRANT CREATE ON DATABASE shop TO mastermind",
		"CREATE ROLE masterly LOGIN CREATEROLE PASSWORD '"+password+"'",
		"CREATE ROLE masterread LOGIN CREATEROLE PASSWORD '"+password+"'", "ALTER ROLE masterread SET default_transaction_read_only = on",
	)
	ca := &v1alpha1.DatabaseTLS{CASecretRef: &v1alpha1.SecretKeyReference{Name: "ca"}}
	other := testpg.NewAuthority(t)
	_, port, err := net.SplitHostPort(pg.Host)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		url         string
		tls         *v1alpha1.DatabaseTLS
		ca          []byte
		wantReason  string
		wantMessage string
	}{
		"all is well": {
			url: pg.URL("master", password, "shop", ""), tls: ca, ca: authority.PEM,
			wantReason: v1alpha1.ReasonReady, wantMessage: "external database " + pg.Host + ": PostgreSQL 1",
		},
		"the superuser": {
			url:        pg.URL("postgres", pg.Password, "shop", "sslmode=require"),
			wantReason: v1alpha1.ReasonReady,
		},
		"the second of two hosts": {
			url:        strings.Replace(pg.URL("master", password, "shop", "sslmode=disable"), pg.Host, "127.0.0.1:1,"+pg.Host, 1),
			wantReason: v1alpha1.ReasonReady,
		},
		"a wrong password": {
			url:        pg.URL("master", "hunter2", "shop", "sslmode=disable"),
			wantReason: v1alpha1.ReasonAuthenticationFailed, wantMessage: "password authentication failed",
		},
		"no such database": {
			url:        pg.URL("master", password, "nowhere", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: `database "nowhere" does not exist (SQLSTATE 3D000)`,
		},
		"no right to connect": {
			url:        pg.URL("master", password, "closed", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: "lacks a right",
		},
		"no right to create roles": {
			url:        pg.URL("mastermind", password, "shop", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: "ALTER ROLE … CREATEROLE",
		},
		"no right to create schemas": {
			url:        pg.URL("masterly", password, "shop", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: "GRANT CREATE ON DATABASE",
		},
		"another encoding": {
			url:        pg.URL("master", password, "latin", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: "LATIN1",
		},
		"no writes": {
			url:        pg.URL("masterread", password, "shop", "sslmode=disable"),
			wantReason: v1alpha1.ReasonUnsupported, wantMessage: "takes no writes",
		},
		"nobody listens": {
			url:        "postgres://master:hunter2@127.0.0.1:1/shop?sslmode=disable",
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: "127.0.0.1:1: connection refused",
		},
		"no such host": {
			url:        "postgres://master:hunter2@db.invalid/shop",
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: `the host "db.invalid"`,
		},
		"an authority that is not trusted": {
			url: pg.URL("master", password, "shop", ""), tls: ca, ca: other.PEM,
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: "signed by an authority that is not trusted",
		},
		"the image's own roots": {
			url:        pg.URL("master", password, "shop", ""),
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: "signed by an authority that is not trusted",
		},
		"a certificate of another host": {
			url: "postgres://master:hunter2@localhost:" + port + "/shop", tls: ca, ca: authority.PEM,
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: `not for the host "localhost"`,
		},
		"the host is not verified": {
			url: strings.Replace(pg.URL("master", password, "shop", ""), "127.0.0.1", "localhost", 1),
			tls: &v1alpha1.DatabaseTLS{Mode: v1alpha1.DatabaseTLSVerifyCA, CASecretRef: ca.CASecretRef}, ca: authority.PEM,
			wantReason: v1alpha1.ReasonReady,
		},
		"only the authority is verified, and is another": {
			url: pg.URL("master", password, "shop", ""),
			tls: &v1alpha1.DatabaseTLS{Mode: v1alpha1.DatabaseTLSVerifyCA, CASecretRef: ca.CASecretRef}, ca: other.PEM,
			wantReason: v1alpha1.ReasonUnreachable, wantMessage: "not trusted",
		},
		"no certificate at all": {
			url: pg.URL("master", password, "shop", ""), tls: ca, ca: []byte("hunter2"),
			wantReason: v1alpha1.ReasonSecretInvalid, wantMessage: "no certificate in PEM",
		},
		"a port that is none": {
			url:        "postgres://master:hunter2@127.0.0.1:99999/shop",
			wantReason: v1alpha1.ReasonSecretInvalid, wantMessage: "the driver cannot read the URL",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := probe(t, reach.Database{Server: parse(t, tt.url, tt.tls), CA: tt.ca, Namespace: "market"})
			check(t, got, tt.wantReason, tt.wantMessage)
		})
	}
}

func TestDatabaseWithoutTLS(t *testing.T) {
	t.Parallel()
	pg := testpg.Start(t, testpg.Options{})
	got := probe(t, reach.Database{Server: parse(t, pg.URL("postgres", pg.Password, "postgres", ""), nil)})
	check(t, got, v1alpha1.ReasonUnreachable, "the server does not offer TLS")
}

// fakeURL leads to a server that answers with what answer sends.
func fakeURL(t *testing.T, answer func(*pgproto3.Backend)) string {
	t.Helper()
	return "postgres://master:hunter2@" + testpg.Fake(t, answer) + "/shop?sslmode=disable"
}

func TestDatabaseTooOld(t *testing.T) {
	t.Parallel()
	url := fakeURL(t, testpg.Greet("14.11 (hunter2)"))
	check(t, probe(t, reach.Database{Server: parse(t, url, nil)}), v1alpha1.ReasonUnsupported, "it is version 14.11 (***), and 15 or newer is needed")
}

// What a server says may hold what we said to it.
func TestDatabaseThatTellsThePassword(t *testing.T) {
	t.Parallel()
	url := fakeURL(t, func(b *pgproto3.Backend) {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: `no "hunter2" for master`})
		_ = b.Flush()
	})
	check(t, probe(t, reach.Database{Server: parse(t, url, nil)}), v1alpha1.ReasonAuthenticationFailed, `no "***" for ***`)
}

// silentServer takes connections, and says nothing; it returns its host:port.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestDatabaseThatIsSilent(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got := reach.Database{Server: parse(t, "postgres://master:hunter2@"+silentServer(t)+"/shop?sslmode=disable", nil)}.Probe(ctx)
	check(t, got, v1alpha1.ReasonUnreachable, "no answer within 5s")
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("the probe ended before its time: %v", ctx.Err())
	}
}

// Of a pair, the one that does not answer leaves the other its time.
func TestDatabasePairWithASilentServer(t *testing.T) {
	t.Parallel()
	pg := testpg.Start(t, testpg.Options{})
	url := strings.Replace(pg.URL("postgres", pg.Password, "postgres", "sslmode=disable"), pg.Host, silentServer(t)+","+pg.Host, 1)
	check(t, probe(t, reach.Database{Server: parse(t, url, nil)}), v1alpha1.ReasonReady, "takes connections")
}
