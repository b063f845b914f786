// Command kubeschemas writes JSON Schemas as kubeconform reads them: of every
// kind of Kubernetes from its OpenAPI document, and of kinds that
// CustomResourceDefinitions bring. So manifests are checked offline, against the
// version of Kubernetes that the local cluster runs.
//
//	kubeschemas OUT OPENAPI [CRD...]
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kubeschemas:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	const positional = 2
	if len(args) < positional {
		return errors.New("name the folder to write, Kubernetes' OpenAPI document, and CustomResourceDefinitions")
	}
	document, err := os.ReadFile(args[1]) //nolint:gosec // G703: whoever runs it names the files
	if err != nil {
		return fmt.Errorf("read the OpenAPI document: %w", err)
	}
	files, err := ofKubernetes(document)
	if err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	for _, path := range args[positional:] {
		definition, err := os.ReadFile(path) //nolint:gosec // G304: as above
		if err != nil {
			return fmt.Errorf("read a CustomResourceDefinition: %w", err)
		}
		if err := ofDefinition(definition, files); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // schemas are for everyone to read
		return fmt.Errorf("make the folder: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(args[0], name), content, 0o644); err != nil { //nolint:gosec // as above
			return fmt.Errorf("write a schema: %w", err)
		}
	}
	return nil
}
