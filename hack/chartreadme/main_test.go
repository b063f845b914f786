package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// What the README says of the chart in this tree is true of it.
func TestTheChart(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run([]string{"../../charts/marketplane"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "| `image.pullPolicy` | one of Always, IfNotPresent, Never | `\"IfNotPresent\"` |"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}
