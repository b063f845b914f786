package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	defaults := config{
		image: "marketplane:v1", postgresImage: "postgres:17",
		metricsAddress: ":8080", probeAddress: ":8081", profileAddress: "0",
		electionID: name, logLevel: slog.LevelInfo,
	}
	tests := map[string]struct {
		args    []string
		env     map[string]string
		want    func(*config)
		wantErr string
	}{
		"defaults": {want: func(*config) {}},
		"flags win over the environment": {
			args: []string{"--image=marketplane:v2", "--postgres-image=postgres:16"},
			env:  map[string]string{envPostgresImage: "postgres:15"},
			want: func(c *config) { c.image, c.postgresImage = "marketplane:v2", "postgres:16" },
		},
		"the image of the release before is elsewhere": {
			args: []string{"--previous-image=mirror/marketplane:old"},
			want: func(c *config) { c.previousImage = "mirror/marketplane:old" },
		},
		"the environment wins over defaults": {
			env:  map[string]string{envPostgresImage: "postgres:15"},
			want: func(c *config) { c.postgresImage = "postgres:15" },
		},
		"namespaces": {
			args: []string{"--watch-namespaces=a, b,,", "--leader-elect", "--log-level=debug"},
			want: func(c *config) {
				c.watchNamespaces, c.leaderElect, c.logLevel = []string{"a", "b"}, true, slog.LevelDebug
			},
		},
		"its own namespace": {
			args: []string{"--namespace=ops"},
			want: func(c *config) { c.namespace = "ops" },
		},
		"no image":          {env: map[string]string{envImage: ""}, wantErr: "set --image or MARKETPLANE_IMAGE"},
		"unknown flag":      {args: []string{"--colour"}, wantErr: "not defined: -colour"},
		"an argument":       {args: []string{"run"}, wantErr: `unexpected argument "run"`},
		"a wrong log level": {args: []string{"--log-level=loud"}, wantErr: "log-level"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			getenv := func(key string) string {
				if value, ok := tt.env[key]; ok {
					return value
				}
				return map[string]string{envImage: "marketplane:v1"}[key]
			}
			got, err := parse(tt.args, getenv, &bytes.Buffer{})
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error = %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := defaults
			tt.want(&want)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{})); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOwnNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "namespace")
	if got, err := ownNamespace(file); got != "" || err != nil {
		t.Errorf("outside a cluster: %q, %v; want none", got, err)
	}
	if err := os.WriteFile(file, []byte("marketplane-system\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ownNamespace(file); got != "marketplane-system" || err != nil {
		t.Errorf("in a cluster: %q, %v", got, err)
	}
}
