package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSources(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		parse func(string) []source
		text  string
		want  []source
	}{
		"one line": {
			parse: parseOneLine,
			text: `# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # trailing
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://other.example/debian bookworm-updates main
deb http://flat.example/ ./
`,
			want: []source{
				{uri: "http://mirror.example/debian", suite: "bookworm", components: []string{"main", "contrib"}},
				{uri: "http://other.example/debian", suite: "bookworm-updates", components: []string{"main"}},
			},
		},
		"one line, options never closed": {parse: parseOneLine, text: "deb [arch=amd64 http://mirror.example/debian bookworm main\n"},
		"stanzas": {
			parse: parseDeb822,
			text: `# A comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/a.gpg

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
`,
			want: []source{
				{uri: "http://mirror.example/debian", suite: "bookworm", components: []string{"main"}},
				{uri: "http://mirror.example/debian", suite: "bookworm-updates", components: []string{"main"}},
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, tc.parse(tc.text), cmp.AllowUnexported(source{})); diff != "" {
				t.Errorf("sources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindMirror(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sources.list.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sources.list":                  "deb http://tools.example/apt tools-bookworm main\n",
		"sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := findMirror(dir, "bookworm")
	if err != nil || got != "http://mirror.example/debian" {
		t.Errorf("findMirror = %q, %v", got, err)
	}
	if _, err := findMirror(dir, "trixie"); err == nil || !strings.Contains(err.Error(), "trixie") {
		t.Errorf("a suite that no source has: error %v, want one that names it", err)
	}
}

func TestRenumberLine(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text    string
		fields  []int
		want    string
		wantWas int
		wantErr bool
	}{
		"passwd":       {text: "root:x:0:0::/root:/bin/sh\npostgres:x:100:102::/var/lib/postgresql:/bin/bash\n", fields: []int{2, 3}, want: "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/bash\n", wantWas: 100},
		"group":        {text: "postgres:x:102:\n", fields: []int{2}, want: "postgres:x:999:\n", wantWas: 102},
		"no such user": {text: "root:x:0:0::/root:/bin/sh\n", fields: []int{2}, wantErr: true},
		"short line":   {text: "postgres:x\n", fields: []int{2}, wantErr: true},
		"no number":    {text: "postgres:x:y:\n", fields: []int{2}, wantErr: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, was, err := renumberLine(tc.text, "postgres", tc.fields)
			if (err != nil) != tc.wantErr {
				t.Fatalf("error = %v, want one: %t", err, tc.wantErr)
			}
			if got != tc.want || was != tc.wantWas {
				t.Errorf("renumberLine = %q, %d; want %q, %d", got, was, tc.want, tc.wantWas)
			}
		})
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/usr/lib/postgresql/15/bin/postgres":       true,
		"/usr/lib/postgresql/15/lib/llvmjit.so":     false,
		"/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1": false,
		"/usr/share/doc":                            false,
		"/usr/share/postgresql/15/extension":        true,
		"/var/lib/apt/lists":                        false,
		"/usr/lib/x86_64-linux-gnu/libpq.so.5":      true,
		"/var/lib/postgresql/15":                    false,
	} {
		if got := keep(path); got != want {
			t.Errorf("keep(%q) = %t, want %t", path, got, want)
		}
	}
}
