// Command chartreadme writes the chart's README: what its values mean, from the
// comments in values.yaml, and what they may be, from values.schema.json. It
// fails on a value that has no comment, or that only one of the two knows.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chartreadme:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("name the chart's folder")
	}
	values, err := os.ReadFile(filepath.Join(args[0], "values.yaml")) //nolint:gosec // G703: whoever runs it names the chart
	if err != nil {
		return fmt.Errorf("read the values: %w", err)
	}
	schema, err := os.ReadFile(filepath.Join(args[0], "values.schema.json")) //nolint:gosec // G703: whoever runs it names the chart
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	rows, err := table(values, schema)
	if err != nil {
		return err
	}
	return write(out, rows)
}
