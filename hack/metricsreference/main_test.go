package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheReferenceIsCurrent(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := run(filepath.Join("..", ".."), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/metrics.md is stale; make generate writes it anew (-file +sources):\n%s", diff)
	}
}

func TestReadSources(t *testing.T) {
	const imports = "package p\nimport \"github.com/prometheus/client_golang/prometheus\"\n"
	tests := map[string]struct {
		source  string
		want    []metric
		wantErr string
	}{
		"a counter with labels": {
			source: imports + "var c = prometheus.NewCounterVec(prometheus.CounterOpts{Name: `marketplane_a_total`, Help: `A.`}, []string{`x`, `y`})",
			want:   []metric{{name: "marketplane_a_total", kind: "counter", help: "A.", labels: []string{"x", "y"}}},
		},
		"a gauge with a constant label": {
			source: imports + "var g = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: `marketplane_b`, Help: `B.`, ConstLabels: prometheus.Labels{`z`: v}}, f)",
			want:   []metric{{name: "marketplane_b", kind: "gauge", help: "B.", labels: []string{"z"}}},
		},
		"a description": {
			source: imports + "var (\nof = []string{`x`}\nd = prometheus.NewDesc(`marketplane_c`, `C.`, append(slices.Clone(of), `y`), nil)\n)",
			want:   []metric{{name: "marketplane_c", kind: "gauge", help: "C.", labels: []string{"x", "y"}}},
		},
		"a counter's description": {
			source: imports + "var d = prometheus.NewDesc(`marketplane_c_total`, `C.`, nil, nil)",
			want:   []metric{{name: "marketplane_c_total", kind: "counter", help: "C."}},
		},
		"no metrics": {source: "package p\nvar x = prometheus.NewCounter()"},
		"a name that is computed": {
			source:  imports + "var c = prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + `a_total`, Help: `A.`})",
			wantErr: "must be written as they are",
		},
		"options from elsewhere": {
			source:  imports + "var c = prometheus.NewCounter(options)",
			wantErr: "written where it is made",
		},
		"a foreign name": {
			source:  imports + "var c = prometheus.NewCounter(prometheus.CounterOpts{Name: `a_total`, Help: `A.`})",
			wantErr: "does not begin with marketplane_",
		},
		"no help": {
			source:  imports + "var c = prometheus.NewCounter(prometheus.CounterOpts{Name: `marketplane_a_total`})",
			wantErr: "has no Help",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "p.go")
			if err := os.WriteFile(file, []byte(tt.source), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := inFile(file)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error = %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(metric{})); diff != "" {
				t.Errorf("metrics (-want +got):\n%s", diff)
			}
		})
	}
}
