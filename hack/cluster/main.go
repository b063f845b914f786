// Command cluster runs a real two-node Kubernetes on one Linux machine, from
// source, with neither a container engine nor an image registry. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"github.com/marketplane/marketplane/hack/cluster/internal/binaries"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// tool is what every command gets.
type tool struct {
	dir      layout.Dir
	builder  binaries.Builder
	progress *run.Progress
	stdout   io.Writer
	stderr   io.Writer
}

type command struct {
	help string
	run  func(ctx context.Context, t tool, args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"deps":           {"install, with apt-get, the Debian packages that are missing", plain("deps", deps)},
		"up":             {"make sure that the cluster runs", plain("up", up)},
		"down":           {"end the cluster and remove what it put on the machine", plain("down", down)},
		"status":         {"say what runs and how it is", plain("status", status)},
		"kubeconfig":     {"print the path of the administrator's kubeconfig", plain("kubeconfig", kubeconfig)},
		"load-image":     {"import image archives into every node (ARCHIVE...)", loadImage},
		"image":          {"make an image of static programs (--out FILE --name NAME:TAG --file SRC=DST ...)", buildImage},
		"postgres-image": {"make an image of PostgreSQL out of Debian's packages (--out FILE)", postgresImage},
		// Not for people: up starts it.
		"provisioner": {"", provision},
		"build":       {"build every program into the cache ([--only envtest])", build},
		"assets":      {"print the folder of kube-apiserver, etcd and kubectl for envtest, building them if needed", assets},
	}
}

func dispatch(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	all := commands()
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(stdout, all)
		return nil
	}
	cmd, ok := all[args[0]]
	if !ok {
		usage(stderr, all)
		return fmt.Errorf("no command %q", args[0])
	}
	source, err := findSource()
	if err != nil && args[0] != "provisioner" {
		return err
	}
	cache, err := layout.Cache()
	if err != nil {
		return fmt.Errorf("find the cache folder: %w", err)
	}
	// Standard output is for results that scripts read, progress is not one.
	progress := run.NewProgress(stderr)
	err = cmd.run(ctx, tool{
		dir:      layout.DirFrom(getenv),
		builder:  binaries.Builder{Source: source, Cache: cache, Progress: progress},
		progress: progress, stdout: stdout, stderr: stderr,
	}, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func usage(w io.Writer, all map[string]command) {
	var names []string
	for name, c := range all {
		if c.help != "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	_, _ = fmt.Fprintln(w, "A real local Kubernetes for Marketplane. Commands:")
	for _, name := range names {
		_, _ = fmt.Fprintf(w, "  %-15s %s\n", name, all[name].help)
	}
}

// findSource returns the hack/cluster folder: where the program was compiled
// from, else the nearest one above the working folder.
func findSource() (string, error) {
	isSource := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "kubernetes", "go.mod"))
		return err == nil
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) && isSource(filepath.Dir(file)) {
		return filepath.Dir(file), nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find hack/cluster: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "hack", "cluster")} {
			if isSource(candidate) {
				return candidate, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find hack/cluster: not in %s or above", wd)
		}
	}
}

func newFlags(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	return f
}

func noArguments(f *flag.FlagSet) error {
	if f.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments, got %s", f.Name(), strings.Join(f.Args(), " "))
	}
	return nil
}

func build(ctx context.Context, t tool, args []string) error {
	f := newFlags("build", t.stderr)
	only := f.String("only", "", "build a part only: `envtest`")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noArguments(f); err != nil {
		return err
	}
	modules := []binaries.Module{binaries.Kubernetes(), binaries.CoreDNS(), binaries.MetricsServer(), binaries.Ingress()}
	switch *only {
	case "":
	case "envtest":
		modules = []binaries.Module{binaries.Kubernetes().Only(binaries.EnvtestPrograms...)}
	default:
		return fmt.Errorf("--only %q: want envtest", *only)
	}
	for _, m := range modules {
		dir, err := t.builder.Build(ctx, m)
		if err != nil {
			return err
		}
		t.progress.Say("%s", dir)
	}
	return nil
}

func assets(ctx context.Context, t tool, args []string) error {
	f := newFlags("assets", t.stderr)
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := noArguments(f); err != nil {
		return err
	}
	dir, err := t.builder.Build(ctx, binaries.Kubernetes().Only(binaries.EnvtestPrograms...))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.stdout, dir)
	return err
}
