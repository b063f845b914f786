package wsapi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/marketplane/marketplane/services/messaging/door"
)

// document is what of docs/asyncapi.yaml the code is compared with.
type document struct {
	Operations map[string]struct {
		Messages []reference `yaml:"messages"`
	} `yaml:"operations"`
	Components struct {
		Messages map[string]struct {
			Payload reference `yaml:"payload"`
		} `yaml:"messages"`
		Schemas map[string]struct {
			Required   []string `yaml:"required"`
			Properties map[string]struct {
				Const string   `yaml:"const"`
				Enum  []string `yaml:"enum"`
			} `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
	CloseCodes map[string]string `yaml:"x-close-codes"`
}

type reference struct {
	Ref string `yaml:"$ref"`
}

func (r reference) name() string { return r.Ref[strings.LastIndexByte(r.Ref, '/')+1:] }

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("../../../docs/asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Every op of the code is a command of the document, with its fields, and the
// other way round.
func TestAsyncAPIHasTheCommands(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	type shape struct{ Required, Properties []string }
	got := map[string]shape{}
	for _, message := range d.Operations["commands"].Messages {
		schema := d.Components.Schemas[d.Components.Messages[message.name()].Payload.name()]
		s := shape{Required: schema.Required}
		for name := range schema.Properties {
			s.Properties = append(s.Properties, name)
		}
		slices.Sort(s.Required)
		slices.Sort(s.Properties)
		got[schema.Properties["op"].Const] = s
	}
	want := map[string]shape{}
	for _, op := range append(door.Ops(), door.OpAuth) {
		required, optional := door.Fields(op)
		s := shape{Required: append(required, "op"), Properties: slices.Concat(required, optional, []string{"op"})}
		if !slices.Contains(required, "id") {
			s.Properties = append(s.Properties, "id")
		}
		slices.Sort(s.Required)
		slices.Sort(s.Properties)
		want[op] = s
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the code's commands are not the document's (-code +document):\n%s", diff)
	}
}

func TestAsyncAPIHasTheCloseCodes(t *testing.T) {
	t.Parallel()
	var want []string
	inspect(t, "codes.go", func(n ast.Node) {
		if spec, ok := n.(*ast.ValueSpec); ok {
			want = append(want, spec.Values[0].(*ast.BasicLit).Value)
		}
	})
	var got []string
	for code := range readDocument(t).CloseCodes {
		got = append(got, code)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the code's close codes are not the document's (-code +document):\n%s", diff)
	}
}

// beforeUpgrade are problems of HTTP, and elsewhere are those of operations that
// only HTTP has.
var (
	beforeUpgrade = []string{"upgrade_required", "subprotocol_required", "origin_not_allowed", "too_many_connects"}
	elsewhere     = []string{
		"conversation_full", "members_fixed", "not_an_agent", "range_ambiguous", "subject_invalid", "support_not_offered",
		"too_many_blocks", "user_id_invalid",
	}
)

// Every fault that a command can meet is an error of the document, and the other
// way round.
func TestAsyncAPIHasTheErrors(t *testing.T) {
	t.Parallel()
	want := map[string]bool{"internal": true} // fault.From's
	for _, dir := range []string{".", "..", "../commit", "../door", "../hub", "../store", "../../internal/identity", "../../internal/postgres"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			inspect(t, file, func(n ast.Node) {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 3 {
					return
				}
				if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "New" {
					return
				} else if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "fault" {
					return
				}
				code, err := strconv.Unquote(call.Args[1].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				want[code] = true
			})
		}
	}
	for _, code := range slices.Concat(beforeUpgrade, elsewhere) {
		if !want[code] {
			t.Errorf("there is no code %s any more", code)
		}
		delete(want, code)
	}
	got := map[string]bool{}
	for _, code := range readDocument(t).Components.Schemas["error"].Properties["code"].Enum {
		got[code] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the code's errors are not the document's (-code +document):\n%s", diff)
	}
}

func inspect(t *testing.T, file string, f func(ast.Node)) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		f(n)
		return true
	})
}
