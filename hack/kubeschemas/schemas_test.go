package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testAPI = `{"definitions": {
  "io.Deployment": {
    "type": "object", "required": ["kind"],
    "properties": {"kind": {"type": "string"}, "note": {"type": "string"}, "spec": {"$ref": "#/definitions/io.Spec"}},
    "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}]
  },
  "io.Spec": {"type": "object", "properties": {"again": {"type": "array", "items": {"$ref": "#/definitions/io.Spec"}}}},
  "io.Pod": {"type": "object", "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}]},
  "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"}
}}`

const testCRD = `
spec:
  group: marketplane.dev
  names: {kind: Marketplace}
  versions:
  - name: v1alpha1
    schema:
      openAPIV3Schema:
        type: object
        properties:
          metadata: {type: object}
          spec:
            type: object
            properties:
              port: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}
              free: {type: object, additionalProperties: {type: string}}
`

func TestSchemas(t *testing.T) {
	t.Parallel()
	out, in := filepath.Join(t.TempDir(), "schemas"), t.TempDir()
	api, crd := filepath.Join(in, "swagger.json"), filepath.Join(in, "crd.yaml")
	for path, text := range map[string]string{api: testAPI, crd: testCRD} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run([]string{out, api, crd}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"pod-v1.json": `{"$ref":"#/definitions/io.Pod","definitions":{"io.Pod":{"type":"object","x-kubernetes-group-version-kind":[{"group":"","kind":"Pod","version":"v1"}]}}}`,
		"deployment-apps-v1.json": `{"$ref":"#/definitions/io.Deployment","definitions":{` +
			`"io.Deployment":{"additionalProperties":false,"properties":{"kind":{"type":"string"},"note":{"type":["string","null"]},"spec":{"$ref":"#/definitions/io.Spec"}},"required":["kind"],"type":"object","x-kubernetes-group-version-kind":[{"group":"apps","kind":"Deployment","version":"v1"}]},` +
			`"io.Spec":{"additionalProperties":false,"properties":{"again":{"items":{"$ref":"#/definitions/io.Spec"},"type":["array","null"]}},"type":"object"}}}`,
		"marketplace-marketplane-v1alpha1.json": `{"additionalProperties":false,"properties":{"metadata":{"type":"object"},"spec":{"additionalProperties":false,"properties":{` +
			`"free":{"additionalProperties":{"type":"string"},"type":"object"},"port":{"type":["integer","string"],"x-kubernetes-int-or-string":true}},"type":"object"}},"type":"object"}`,
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(out, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(content) {
			t.Errorf("%s is no JSON", e.Name())
		}
		got[e.Name()] = string(content)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Fatalf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("schemas (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoInput(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.json")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"nothing": {}, "no document": {t.TempDir(), "/nowhere"}, "an empty document": {t.TempDir(), empty},
	} {
		if err := run(args); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := ofDefinition([]byte("{}"), map[string][]byte{}); err == nil {
		t.Error("an empty definition: no error")
	}
}
