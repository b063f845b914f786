package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// row is one value.
type row struct {
	// path is its name with dots: image.tag.
	path string
	// kind says what it may be.
	kind string
	// standard is its default, as JSON.
	standard string
	// meaning is its comment, in one line.
	meaning string
}

// schema is the part of JSON Schema that says what a value may be.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 json.RawMessage   `json:"type"`
	Enum                 []string          `json:"enum"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties json.RawMessage   `json:"additionalProperties"`
	Items                *schema           `json:"items"`
	Minimum              *int              `json:"minimum"`
	Maximum              *int              `json:"maximum"`
	Definitions          map[string]schema `json:"definitions"`
}

// table lists the values in their order in values.yaml.
func table(values, schemaJSON []byte) ([]row, error) {
	var root schema
	if err := json.Unmarshal(schemaJSON, &root); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, fmt.Errorf("read the values: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("values.yaml holds no values")
	}
	// Helm gives every chart the values of its parent's "global".
	delete(root.Properties, "global")
	w := walker{definitions: root.Definitions}
	w.walk("", document.Content[0], root)
	return w.rows, errors.Join(w.errs...)
}

type walker struct {
	definitions map[string]schema
	rows        []row
	errs        []error
}

func (w *walker) problem(format string, args ...any) {
	w.errs = append(w.errs, fmt.Errorf(format, args...))
}

func (w *walker) walk(prefix string, node *yaml.Node, s schema) {
	known := map[string]bool{}
	if string(s.AdditionalProperties) != "false" {
		w.problem("values.schema.json: %s: unknown values are not refused (additionalProperties: false)", place(prefix))
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := prefix + key.Value
		known[key.Value] = true
		property, ok := s.Properties[key.Value]
		if !ok {
			w.problem("values.yaml: %s is not in values.schema.json", path)
			continue
		}
		property = w.resolve(property)
		if value.Kind == yaml.MappingNode && len(property.Properties) > 0 && len(value.Content) > 0 {
			w.walk(path+".", value, property)
			continue
		}
		w.add(path, key, value, property)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !known[name] {
			w.problem("values.schema.json: %s%s is not in values.yaml", prefix, name)
		}
	}
}

func place(prefix string) string {
	if prefix == "" {
		return "the whole"
	}
	return strings.TrimSuffix(prefix, ".")
}

func (w *walker) add(path string, key, value *yaml.Node, property schema) {
	meaning := comment(key.HeadComment)
	if meaning == "" {
		w.problem("values.yaml: %s has no comment", path)
	}
	var decoded any
	if err := value.Decode(&decoded); err != nil {
		w.problem("values.yaml: %s: %w", path, err)
		return
	}
	standard, err := json.Marshal(decoded)
	if err != nil {
		w.problem("values.yaml: %s: %w", path, err)
		return
	}
	w.rows = append(w.rows, row{path: path, kind: w.kind(property), standard: string(standard), meaning: meaning})
}

// comment makes one line of the last paragraph of a comment: what stands above
// it is about the file.
func comment(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		words = append(words, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "#"))...)
	}
	return strings.Join(words, " ")
}

func (w *walker) resolve(s schema) schema {
	name, ok := strings.CutPrefix(s.Ref, "#/definitions/")
	if !ok {
		return s
	}
	found, ok := w.definitions[name]
	if !ok {
		w.problem("values.schema.json: nothing is defined as %s", name)
	}
	return found
}

// kind says in words what a schema admits.
func (w *walker) kind(s schema) string {
	s = w.resolve(s)
	if len(s.Enum) > 0 {
		return "one of " + strings.Join(s.Enum, ", ")
	}
	var name string
	if json.Unmarshal(s.Type, &name) != nil {
		return "any of several"
	}
	switch {
	case name == "array" && s.Items != nil:
		return "list of " + plural(w.kind(*s.Items))
	case name == "object" && len(s.Properties) == 0:
		return "map"
	case name == "integer" && s.Minimum != nil && s.Maximum != nil:
		return fmt.Sprintf("%d to %d", *s.Minimum, *s.Maximum)
	}
	return name
}

func plural(kind string) string { return kind + "s" }
