package operator

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	defaults := config{
		image: "marketplane:v1", postgresImage: "postgres:17",
		metricsAddress: ":8080", probeAddress: ":8081", profileAddress: "0",
		electionID: Name, logLevel: slog.LevelInfo,
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
			want: func(c *config) { c.image, c.postgresImage = "marketplane:v2", "postgres:16" },
		},
		"the image of the release before is elsewhere": {
			args: []string{"--previous-image=mirror/marketplane:old"},
			want: func(c *config) { c.previousImage = "mirror/marketplane:old" },
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
		"beyond debug":      {args: []string{"--log-level=debug-4"}, wantErr: "--log-level=DEBUG-4 is more than debug"},
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

// The documentation has a row for every flag, and for no other.
func TestFlagsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## The operator's flags\n")
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, func(string) string { return "" }, &help); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	names := func(pattern, text string) []string {
		var all []string
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, found[1])
		}
		slices.Sort(all)
		return all
	}
	if diff := cmp.Diff(names(`(?m)^  -([a-z-]+)`, help.String()), names("(?m)^\\| `--([a-z-]+)` \\|", section)); diff != "" {
		t.Errorf("flags (-the program's +documented):\n%s", diff)
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
