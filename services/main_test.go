package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/testkit"
)

func TestMain(m *testing.M) {
	if os.Getenv(envProgram) != "" {
		main()
		return
	}
	testkit.Main(m)
}

// Every mistake in how the program is called ends it before it touches
// anything, with a line that names the remedy.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args    []string
		env     map[string]string
		wantErr []string
	}{
		"nothing":            {wantErr: []string{"name a subcommand"}},
		"unknown subcommand": {args: []string{"serve"}, wantErr: []string{`no subcommand "serve"`, "marketplane help"}},
		"service without configuration": {args: []string{"auth"}, wantErr: []string{
			"MARKETPLANE_INSTALLATION: must be set", "MARKETPLANE_DATABASE_URL_FILE: must be set", "MARKETPLANE_JWKS_FILE: must be set",
			"MARKETPLANE_ISSUER: must be set", "MARKETPLANE_BUS_URL: must be set", "MARKETPLANE_SIGNING_DIR: must be set",
		}},
		"service with an argument": {args: []string{"tasks", "--port=1"}, wantErr: []string{`unexpected argument "--port=1"`}},
		"service with a bad drain": {
			args: []string{"messaging"}, env: map[string]string{"MARKETPLANE_DRAIN_FLOOR": "ten"},
			wantErr: []string{"MARKETPLANE_DRAIN_FLOOR: is not a duration"},
		},
		"migrate without configuration": {args: []string{"migrate"}, wantErr: []string{"MARKETPLANE_ROLES_DIR: must be set"}},
		"two kinds of bus credentials": {
			args: []string{"auth"}, env: map[string]string{"MARKETPLANE_BUS_CREDENTIALS_DIR": "/a", "MARKETPLANE_BUS_TOKEN_FILE": "/b"},
			wantErr: []string{"MARKETPLANE_BUS_CREDENTIALS_DIR: excludes MARKETPLANE_BUS_TOKEN_FILE"},
		},
		"a bus certificate without its key": {
			args: []string{"auth"}, env: map[string]string{"MARKETPLANE_BUS_CERTIFICATE_FILE": "/a"},
			wantErr: []string{"MARKETPLANE_BUS_CERTIFICATE_FILE: goes with MARKETPLANE_BUS_KEY_FILE"},
		},
		"bus without a token":  {args: []string{"bus"}, wantErr: []string{"MARKETPLANE_BUS_TOKEN_FILE: must be set"}},
		"dev on a bad address": {args: []string{"dev", "--listen", "8080"}, wantErr: []string{"--listen"}},
		"dev with a bad database": {
			args: []string{"dev", "--listen", "127.0.0.1:0", "--database-url", "mysql://x", "--data-dir", t.TempDir()}, wantErr: []string{"database URL"},
		},
		"smoke without a URL":   {args: []string{"smoke"}, wantErr: []string{"--url: need a base URL"}},
		"smoke with a bad URL":  {args: []string{"smoke", "--url", "localhost"}, wantErr: []string{"--url: need a base URL"}},
		"smoke to a bad place":  {args: []string{"smoke", "--url", "http://a", "--connect-to", "a"}, wantErr: []string{"--connect-to \"a\": need an IP address"}},
		"smoke with a bad CA":   {args: []string{"smoke", "--url", "https://a", "--ca", "main.go"}, wantErr: []string{"--ca main.go: no certificate in it"}},
		"smoke with a bad part": {args: []string{"smoke", "--url", "http://a", "--tasks-url", "b"}, wantErr: []string{"--tasks-url"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(t.Context(), tt.args, func(name string) string { return tt.env[name] }, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.wantErr {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestHelpListsEverySubcommand(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"help"}, os.Getenv, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, c := range subcommands() {
		if !strings.Contains(out.String(), c.name) {
			t.Errorf("help does not list %s", c.name)
		}
	}
}

// dev is a running 'marketplane dev'.
type dev struct {
	url  string
	stop func() error
}

// startDev runs it until its ready line.
func startDev(t *testing.T, args ...string) dev {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"dev", "--listen", "127.0.0.1:0", "--log-level", "warn"}, args...), os.Getenv, in, testWriter{t})
		_ = in.CloseWithError(io.EOF)
		ended <- err
	}()
	stop := func() error {
		cancel()
		return <-ended
	}
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if err != nil {
		t.Fatalf("dev ended before it was ready: %v", stop())
	}
	match := regexp.MustCompile(`^ready: (http://[^,]+), WebSocket ws://`).FindSubmatch(line[:n])
	if match == nil {
		t.Fatalf("not the ready line: %q", line[:n])
	}
	return dev{url: string(match[1]), stop: stop}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func walk(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, []string{"smoke", "--url", url}, os.Getenv, &out, io.Discard); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log("\n" + out.String())
}

// The whole product in one process, with the PostgreSQL that it starts itself:
// the story passes, and passes again on the data of the first run.
func TestDevRunsTheStory(t *testing.T) {
	dir := t.TempDir()
	// The test's own folder is closed to PostgreSQL's user.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		d := startDev(t, "--data-dir", dir)
		walk(t, d.url)
		if err := d.stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
	}
}

// The same on a database of somebody else's.
func TestDevOnAGivenDatabase(t *testing.T) {
	d := startDev(t, "--data-dir", t.TempDir(), "--database-url", testkit.EmptyDatabase(t))
	walk(t, d.url)
	checkMetrics(t, d.url)
	if err := d.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

// checkMetrics: what all services tell after a whole story stands in the
// reference, and some of it has counted.
func checkMetrics(t *testing.T, url string) {
	t.Helper()
	reference, err := os.ReadFile(filepath.Join("..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile(`(?m)^# TYPE (marketplane_\S+) `).FindAllSubmatch(text, -1) {
		if !bytes.Contains(reference, []byte("`"+string(match[1])+"`")) {
			t.Errorf("%s is not in docs/metrics.md", match[1])
		}
	}
	for _, want := range []string{
		`marketplane_bus_connected 1`,
		`marketplane_database_connections_max{service="auth"} 10`,
		`marketplane_auth_registrations_total{result="ok"} 2`,
		`marketplane_event_consumer_lag_seconds{consumer="messaging.inbox"} `,
	} {
		if !bytes.Contains(text, []byte("\n"+want)) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
