package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

type object = map[string]any

const (
	definitionsPrefix = "#/definitions/"
	intOrString       = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
	quantity          = "io.k8s.apimachinery.pkg.api.resource.Quantity"
	// jsonSchemaProps holds any JSON Schema, which is stricter about itself in
	// its own ways than OpenAPI can say.
	jsonSchemaProps = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
)

// fileName is where kubeconform looks for a kind, with
// "{{.ResourceKind}}{{.KindSuffix}}.json" as its location: of the group it takes
// what stands before the first dot.
func fileName(group, version, kind string) string {
	parts := []string{kind, version}
	if group != "" {
		first, _, _ := strings.Cut(group, ".")
		parts = []string{kind, first, version}
	}
	return strings.ToLower(strings.Join(parts, "-")) + ".json"
}

// ofKubernetes returns the file of each kind of an OpenAPI version 2 document.
// Fields that a kind does not have are refused.
func ofKubernetes(document []byte) (map[string][]byte, error) {
	var api struct {
		Definitions map[string]object `json:"definitions"`
	}
	if err := json.Unmarshal(document, &api); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(api.Definitions) == 0 {
		return nil, errors.New("it defines nothing")
	}
	for name, definition := range api.Definitions {
		switch name {
		case intOrString:
			definition["type"] = []string{"integer", "string"}
		case quantity:
			definition["type"] = []string{"number", "string"}
		case jsonSchemaProps:
			api.Definitions[name] = object{"type": "object"}
			continue
		}
		delete(definition, "format") // Kubernetes' own: int-or-string
		if _, has := definition["properties"]; has {
			definition["additionalProperties"] = false
		}
		admitNull(definition)
	}
	files := map[string][]byte{}
	for name, definition := range api.Definitions {
		for _, k := range kindsOf(definition) {
			content, err := json.Marshal(object{"$ref": definitionsPrefix + name, "definitions": needed(api.Definitions, name)})
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", name, err)
			}
			files[fileName(k.Group, k.Version, k.Kind)] = content
		}
	}
	return files, nil
}

// admitNull lets optional fields be null, which the API server takes for
// absent; a chart may write `annotations:` and nothing.
func admitNull(definition object) {
	required := map[string]bool{}
	if names, ok := definition["required"].([]any); ok {
		for _, n := range names {
			if name, ok := n.(string); ok {
				required[name] = true
			}
		}
	}
	properties, _ := definition["properties"].(object)
	for name, p := range properties {
		if property, ok := p.(object); ok && !required[name] {
			if kind, ok := property["type"].(string); ok {
				property["type"] = []string{kind, "null"}
			}
		}
	}
}

type groupVersionKind struct{ Group, Version, Kind string }

func kindsOf(definition object) []groupVersionKind {
	list, _ := definition["x-kubernetes-group-version-kind"].([]any)
	var kinds []groupVersionKind
	for _, item := range list {
		if k, ok := item.(object); ok {
			text := func(name string) string { s, _ := k[name].(string); return s }
			kinds = append(kinds, groupVersionKind{text("group"), text("version"), text("kind")})
		}
	}
	return kinds
}

// needed returns a definition and those that it refers to, however far.
func needed(all map[string]object, name string) map[string]object {
	found := map[string]object{}
	var visit func(any)
	add := func(name string) {
		if _, seen := found[name]; !seen && all[name] != nil {
			found[name] = all[name]
			visit(all[name])
		}
	}
	visit = func(node any) {
		switch node := node.(type) {
		case object:
			if ref, ok := node["$ref"].(string); ok {
				add(strings.TrimPrefix(ref, definitionsPrefix))
			}
			for _, child := range node {
				visit(child)
			}
		case []any:
			for _, child := range node {
				visit(child)
			}
		}
	}
	add(name)
	return found
}

// ofDefinition adds the file of each version that a CustomResourceDefinition
// serves.
func ofDefinition(document []byte, files map[string][]byte) error {
	var d struct {
		Spec struct {
			Group    string                `json:"group"`
			Names    struct{ Kind string } `json:"names"`
			Versions []struct {
				Name   string `json:"name"`
				Schema struct {
					OpenAPIV3Schema object `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(document, &d); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if d.Spec.Group == "" || len(d.Spec.Versions) == 0 {
		return errors.New("it is no CustomResourceDefinition")
	}
	for _, v := range d.Spec.Versions {
		schema := v.Schema.OpenAPIV3Schema
		closed(schema, true)
		content, err := json.Marshal(schema)
		if err != nil {
			return fmt.Errorf("encode %s: %w", d.Spec.Names.Kind, err)
		}
		files[fileName(d.Spec.Group, v.Name, d.Spec.Names.Kind)] = content
	}
	return nil
}

// closed refuses fields that a schema does not list, at every depth, as the API
// server does for a request that wants strict validation.
func closed(node any, isSchema bool) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			closed(child, isSchema)
		}
	case object:
		if !isSchema {
			for _, child := range node {
				closed(child, true)
			}
			return
		}
		properties, ok := node["properties"].(object)
		_, open := node["additionalProperties"]
		// An object whose metadata says nothing is that of every object.
		if ok && len(properties) > 0 && !open && node["x-kubernetes-preserve-unknown-fields"] != true {
			node["additionalProperties"] = false
		}
		if node["x-kubernetes-int-or-string"] == true {
			delete(node, "anyOf")
			node["type"] = []string{"integer", "string"}
		}
		for name, child := range node {
			switch name {
			case "properties":
				closed(child, false)
			case "items", "additionalProperties":
				closed(child, true)
			}
		}
	}
}
