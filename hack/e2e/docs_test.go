//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// manual runs commands of the documentation as they stand there.
type manual struct {
	steps map[string]string
	dir   string
	env   []string
}

var (
	// step is a block of commands with a name, in Markdown.
	step = regexp.MustCompile("(?s)<!-- journey: ([a-z-]+) -->\n```sh\n(.*?)```")
	// file is a file that a step reads.
	file = regexp.MustCompile("(?s)<!-- file: ([a-z-]+\\.yaml) -->\n```yaml\n(.*?)```")
)

// openManual reads the steps of a document, and puts its files down. The steps
// run in a folder of their own, for a Marketplace.
func openManual(t *testing.T, document string, m marketplace) manual {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", document))
	if err != nil {
		t.Fatal(err)
	}
	assets, err := exec.CommandContext(t.Context(), "go", "run", "-C", filepath.Join("..", "cluster"), ".", "assets").Output()
	if err != nil {
		t.Fatalf("find kubectl: %v", err)
	}
	kubeconfig, err := filepath.Abs(os.Getenv(clientcmd.RecommendedConfigPathEnvVar))
	if err != nil {
		t.Fatal(err)
	}
	man := manual{steps: map[string]string{}, dir: t.TempDir(), env: append(os.Environ(),
		"PATH="+strings.TrimSpace(string(assets))+":"+os.Getenv("PATH"),
		clientcmd.RecommendedConfigPathEnvVar+"="+kubeconfig,
		"NAMESPACE="+m.namespace, "NAME="+m.name,
	)}
	for _, found := range step.FindAllStringSubmatch(string(text), -1) {
		man.steps[found[1]] = found[2]
	}
	for _, found := range file.FindAllStringSubmatch(string(text), -1) {
		man.put(t, found[1], []byte(found[2]))
	}
	return man
}

// follow runs one step, with variables beside NAMESPACE and NAME.
func (man manual) follow(t *testing.T, name string, variables ...string) {
	t.Helper()
	commands, ok := man.steps[name]
	if !ok {
		t.Fatalf("the document has no step %q", name)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir, cmd.Env = man.dir, slices.Concat(man.env, variables)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("step %q of the documentation: %v\n%s", name, err, out.String())
	}
	t.Logf("step %q: %s", name, time.Since(began).Round(100*time.Millisecond))
}

// put writes a file that a step reads.
func (man manual) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(man.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// take reads a file that a step wrote.
func (man manual) take(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(man.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
