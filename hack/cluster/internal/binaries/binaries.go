// Package binaries builds the programs that the cluster runs from their
// public Go modules, at the versions that the nested go.mod files pin, into a
// folder outside the repository. It does not know what the programs are for.
package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// Program is one program to build.
type Program struct {
	// Name is the file's name in the cache.
	Name string
	// Package is the main package.
	Package string
}

// Module is a nested module and the programs that come from it.
type Module struct {
	// Folder is the module's folder under hack/cluster.
	Folder string
	// Requires is the module path in its go.mod whose version names the
	// cache folder.
	Requires string
	// Programs are what is built from it.
	Programs []Program
	// VersionPackage, if set, is the package whose gitVersion, gitMajor and
	// gitMinor variables the linker sets.
	VersionPackage string
}

// EnvtestPrograms are what a test of a controller needs: an API server, its
// store, and kubectl.
var EnvtestPrograms = []string{"kube-apiserver", "etcd", "kubectl"}

// Kubernetes is the module of every Kubernetes component and etcd.
func Kubernetes() Module {
	m := Module{
		Folder: "kubernetes", Requires: "k8s.io/kubernetes", VersionPackage: "k8s.io/component-base/version",
		Programs: []Program{{Name: "etcd", Package: "go.etcd.io/etcd/server/v3"}},
	}
	for _, name := range []string{"kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"} {
		m.Programs = append(m.Programs, Program{Name: name, Package: "k8s.io/kubernetes/cmd/" + name})
	}
	return m
}

// CoreDNS is the module of the cluster's DNS server.
func CoreDNS() Module {
	return Module{
		Folder: "coredns", Requires: "github.com/coredns/coredns",
		Programs: []Program{{Name: "coredns", Package: "."}},
	}
}

// MetricsServer is the module of the server of the metrics.k8s.io API.
func MetricsServer() Module {
	return Module{
		Folder: "metricsserver", Requires: "sigs.k8s.io/metrics-server",
		Programs: []Program{{Name: "metrics-server", Package: "sigs.k8s.io/metrics-server/cmd/metrics-server"}},
	}
}

// Ingress is the module of the cluster's ingress proxy. Its program is ours;
// what it stands on is Caddy.
func Ingress() Module {
	return Module{
		Folder: "ingress", Requires: "github.com/caddyserver/caddy/v2",
		Programs: []Program{{Name: "ingress", Package: "."}},
	}
}

// Only returns the module with just the named programs.
func (m Module) Only(names ...string) Module {
	var kept []Program
	for _, p := range m.Programs {
		for _, n := range names {
			if p.Name == n {
				kept = append(kept, p)
			}
		}
	}
	m.Programs = kept
	return m
}

// Builder builds modules of one source tree into one cache.
type Builder struct {
	// Source is the hack/cluster folder.
	Source string
	// Cache is the folder that holds a folder per module and version.
	Cache string
	// Progress hears of each step.
	Progress *run.Progress
}

// Dir returns where a module's programs are or will be. The name carries the
// pinned version, and a digest of the pins: another pin is another folder.
func (b Builder) Dir(m Module) (string, error) {
	version, digest, err := pins(filepath.Join(b.Source, m.Folder), m.Requires)
	if err != nil {
		return "", err
	}
	return filepath.Join(b.Cache, m.Folder+"-"+version+"-"+digest), nil
}

// Version returns the version that a module pins.
func (b Builder) Version(m Module) (string, error) {
	version, _, err := pins(filepath.Join(b.Source, m.Folder), m.Requires)
	return version, err
}

// Build builds what is missing of a module and returns the folder. It is safe
// to run several at once: the second waits, then finds everything built.
func (b Builder) Build(ctx context.Context, m Module) (string, error) {
	dir, err := b.Dir(m)
	if err != nil {
		return "", err
	}
	if len(missing(dir, m.Programs)) == 0 {
		return dir, nil
	}
	lock, err := run.TakeLock(ctx, dir+".lock", func() { b.Progress.Say("waiting for another build of %s", m.Folder) })
	if err != nil {
		return "", err
	}
	defer lock.Release()
	want := missing(dir, m.Programs)
	if len(want) == 0 {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs in a cache are for every user to run
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	// Building beside the target keeps the rename on one file system, and so
	// atomic. A folder left by a killed build is removed first.
	tmp := filepath.Join(dir, ".building")
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("clear build folder: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil { //nolint:gosec // as above
		return "", fmt.Errorf("make build folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	var names []string
	for _, p := range want {
		names = append(names, p.Name)
	}
	version, err := b.Version(m)
	if err != nil {
		return "", err
	}
	var compiled atomic.Int64
	err = b.Progress.Step(ctx, fmt.Sprintf("build %s %s from source", strings.Join(names, " "), version),
		func() string { return fmt.Sprintf("%d packages compiled", compiled.Load()) },
		func(ctx context.Context) error { return b.compile(ctx, m, version, tmp, want, &compiled) })
	if err != nil {
		return "", err
	}
	for _, p := range want {
		if err := os.Rename(filepath.Join(tmp, p.Name), filepath.Join(dir, p.Name)); err != nil {
			return "", fmt.Errorf("put %s in the cache: %w", p.Name, err)
		}
	}
	return dir, nil
}

func (b Builder) compile(ctx context.Context, m Module, version, tmp string, want []Program, compiled *atomic.Int64) error {
	args := []string{"build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", ldflags(m.VersionPackage, version), "-o", tmp + "/"}
	for _, p := range want {
		args = append(args, p.Package)
	}
	if err := GoTool(ctx, filepath.Join(b.Source, m.Folder), compiled, args...); err != nil {
		return err
	}
	for _, p := range want {
		if from := goBinaryName(p.Package, m.Folder); from != p.Name {
			if err := os.Rename(filepath.Join(tmp, from), filepath.Join(tmp, p.Name)); err != nil {
				return fmt.Errorf("name %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// GoTool runs the go command in a folder, without cgo, at a lower priority:
// a cold build of Kubernetes takes minutes of every core. Each line that the
// command writes to its standard error counts in lines.
func GoTool(ctx context.Context, dir string, lines *atomic.Int64, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the go command with arguments of our own
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	stderr := &tailCounter{lines: lines}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go %s: %w", args[0], err)
	}
	// Not being nice is no reason not to build.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, 5)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, stderr.last.String())
	}
	return nil
}

// tailCounter counts lines and keeps the last few thousand bytes.
type tailCounter struct {
	lines *atomic.Int64
	last  bytes.Buffer
}

func (t *tailCounter) Write(p []byte) (int, error) {
	const keep = 4096
	if t.lines != nil {
		t.lines.Add(int64(bytes.Count(p, []byte{'\n'})))
	}
	t.last.Write(p)
	if extra := t.last.Len() - keep; extra > 0 {
		t.last.Next(extra)
	}
	return len(p), nil
}

func missing(dir string, programs []Program) []Program {
	var want []Program
	for _, p := range programs {
		if info, err := os.Stat(filepath.Join(dir, p.Name)); err != nil || !info.Mode().IsRegular() {
			want = append(want, p)
		}
	}
	return want
}

// goBinaryName is the file name that `go build` gives a package: the last
// element of its path that is not a major version.
func goBinaryName(pkg, folder string) string {
	if pkg == "." {
		return folder
	}
	parts := strings.Split(pkg, "/")
	last := parts[len(parts)-1]
	if len(parts) > 1 && len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		return parts[len(parts)-2]
	}
	return last
}

func ldflags(versionPackage, version string) string {
	flags := "-s -w"
	if versionPackage == "" {
		return flags
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	return fmt.Sprintf("%s -X %[2]s.gitVersion=%[3]s -X %[2]s.gitMajor=%[4]s -X %[2]s.gitMinor=%[5]s", flags, versionPackage, version, major, minor)
}

// pins reads a nested module's required version, and a digest of the files
// that decide what is built.
func pins(dir, requires string) (version, digest string, err error) {
	sources, err := sources(dir)
	if err != nil {
		return "", "", fmt.Errorf("list sources: %w", err)
	}
	sum := sha256.New()
	for _, name := range append([]string{"go.mod", "go.sum"}, sources...) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", "", fmt.Errorf("read pins: %w", err)
		}
		if name == "go.mod" {
			if version, err = requiredVersion(data, requires); err != nil {
				return "", "", fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
			}
		}
		_, _ = sum.Write(data)
	}
	return version, hex.EncodeToString(sum.Sum(nil))[:8], nil
}

// sources lists a module's own Go files, without its tests, in a fixed order.
func sources(dir string) ([]string, error) {
	var found []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

func requiredVersion(gomod []byte, module string) (string, error) {
	for line := range strings.Lines(string(gomod)) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("no version of %s is required", module)
}
