package promql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// golden is what the operator renders; its own test keeps it current.
var golden = filepath.Join("..", "..", "controllers", "desired", "testdata", "monitoring.golden.yaml")

type objects struct {
	PrometheusRule struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Alert, Expr, For string }
			}
		}
	} `yaml:"PrometheusRule"`
	ConfigMap struct {
		Data map[string]struct {
			Panels []struct {
				Title   string
				Targets []struct {
					Expr string
				}
			}
		}
	} `yaml:"ConfigMap"`
}

func read(t *testing.T) objects {
	t.Helper()
	document, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var o objects
	if err := yaml.Unmarshal(document, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// variables are what Grafana puts in the place of its own.
var variables = strings.NewReplacer("$__rate_interval", "5m")

func TestExpressionsAreValid(t *testing.T) {
	o := read(t)
	parse := parser.NewParser(parser.Options{})
	count := 0
	for _, group := range o.PrometheusRule.Spec.Groups {
		for _, rule := range group.Rules {
			count++
			parsed, err := parse.ParseExpr(rule.Expr)
			if err != nil {
				t.Errorf("alert %s: %v", rule.Alert, err)
				continue
			}
			if parsed.Type() != parser.ValueTypeVector {
				t.Errorf("alert %s: a %s, want a vector", rule.Alert, parsed.Type())
			}
			if _, err := model.ParseDuration(rule.For); err != nil {
				t.Errorf("alert %s: for: %v", rule.Alert, err)
			}
		}
	}
	for _, dashboard := range o.ConfigMap.Data {
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				count++
				if _, err := parse.ParseExpr(variables.Replace(target.Expr)); err != nil {
					t.Errorf("panel %s: %v", panel.Title, err)
				}
			}
		}
	}
	if count < 40 {
		t.Errorf("only %d expressions were found in %s", count, golden)
	}
}
