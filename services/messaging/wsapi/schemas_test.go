package wsapi_test

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// schemas are those of docs/asyncapi.yaml, by name.
var schemas = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	text, err := os.ReadFile("../../../docs/asyncapi.yaml")
	if err != nil {
		return nil, err
	}
	var document struct {
		Components struct {
			Schemas map[string]any `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(map[string]any{"components": map[string]any{"schemas": document.Components.Schemas}})
	if err != nil {
		return nil, err
	}
	resource, err := jsonschema.UnmarshalJSON(strings.NewReader(string(encoded)))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("asyncapi.json", resource); err != nil {
		return nil, err
	}
	out := map[string]*jsonschema.Schema{}
	for name := range document.Components.Schemas {
		if out[name], err = compiler.Compile("asyncapi.json#/components/schemas/" + name); err != nil {
			return nil, err
		}
	}
	return out, nil
})

// conforms fails the test unless an object that was sent or received is one of
// the document's.
func conforms(t testing.TB, name string, object []byte) {
	t.Helper()
	all, err := schemas()
	if err != nil {
		t.Errorf("docs/asyncapi.yaml: %v", err)
		return
	}
	schema, ok := all[name]
	if !ok {
		t.Errorf("docs/asyncapi.yaml has no schema %s, for %s", name, object)
		return
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(object)))
	if err != nil {
		t.Errorf("%s: %v", object, err)
		return
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s is not of docs/asyncapi.yaml: %v", object, err)
	}
}
