package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

const testSchema = `{
  "additionalProperties": false,
  "properties": {
    "global": {"type": "object"},
    "replicas": {"type": "integer", "minimum": 0, "maximum": 10},
    "image": {"type": "object", "additionalProperties": false, "properties": {
      "policy": {"enum": ["Always", "Never"]},
      "secrets": {"type": "array", "items": {"$ref": "#/definitions/name"}},
      "labels": {"$ref": "#/definitions/strings"}
    }}
  },
  "definitions": {"name": {"type": "string"}, "strings": {"type": "object", "additionalProperties": {"type": "string"}}}
}`

func TestTable(t *testing.T) {
	t.Parallel()
	const values = `# About the file.

# How many
# pods.
replicas: 1
image:
  # When to pull | not.
  policy: Always
  # Whose.
  secrets: []
  # More.
  labels: {a: b}
`
	for name, test := range map[string]struct {
		values   string
		wantRows []row
		wantErr  string
	}{
		"all is said": {values: values, wantRows: []row{
			{"replicas", "0 to 10", "1", "How many pods."},
			{"image.policy", "one of Always, Never", `"Always"`, "When to pull | not."},
			{"image.secrets", "list of strings", "[]", "Whose."},
			{"image.labels", "map", `{"a":"b"}`, "More."},
		}},
		"no comment":        {values: strings.Replace(values, "  # Whose.\n", "", 1), wantErr: "values.yaml: image.secrets has no comment"},
		"not in the schema": {values: values + "# New.\nnew: 1\n", wantErr: "values.yaml: new is not in values.schema.json"},
		"not in the values": {values: strings.Replace(values, "  # More.\n  labels: {a: b}\n", "", 1), wantErr: "values.schema.json: image.labels is not in values.yaml"},
		"no values":         {values: "", wantErr: "values.yaml holds no values"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rows, err := table([]byte(test.values), []byte(testSchema))
			if test.wantErr != "" {
				if err == nil || err.Error() != test.wantErr {
					t.Fatalf("error %v, want %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.wantRows, rows, cmp.AllowUnexported(row{})); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
		})
	}
}

// defaultsAlone are the values that no value set of the chart changes.
func defaultsAlone(chart string) ([]string, error) {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return nil, err
	}
	schema, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		return nil, err
	}
	rows, err := table(values, schema)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(chart, "ci", "*-values.yaml"))
	if err != nil {
		return nil, err
	}
	tried := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var set map[string]any
		if err := yaml.Unmarshal(content, &set); err != nil {
			return nil, err
		}
		for _, r := range rows {
			value, ok := valueAt(set, strings.Split(r.path, "."))
			if !ok {
				continue
			}
			text, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			tried[r.path] = tried[r.path] || string(text) != r.standard
		}
	}
	var untried []string
	for _, r := range rows {
		if !tried[r.path] {
			untried = append(untried, r.path)
		}
	}
	return untried, nil
}

func valueAt(values any, path []string) (any, bool) {
	for _, name := range path {
		fields, ok := values.(map[string]any)
		if !ok {
			return nil, false
		}
		if values, ok = fields[name]; !ok {
			return nil, false
		}
	}
	return values, true
}

// What the README says of the chart in this tree is true of it, and every value
// is rendered with something that is not its default.
func TestTheChart(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run([]string{"../../charts/marketplane"}, &out); err != nil {
		t.Fatal(err)
	}
	untried, err := defaultsAlone("../../charts/marketplane")
	if err != nil {
		t.Fatal(err)
	}
	if len(untried) > 0 {
		t.Errorf("no value set in ci/ sets %s to anything but its default", strings.Join(untried, ", "))
	}
	if want := "| `image.pullPolicy` | one of Always, IfNotPresent, Never | `\"IfNotPresent\"` |"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}
