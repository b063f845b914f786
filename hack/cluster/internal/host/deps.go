package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// dependency is a program or file that the cluster needs and the Debian
// package that brings it.
type dependency struct {
	file    string // looked up in PATH, or absolute
	pkg     string
	purpose string
}

// CNIPlugins is where Debian puts the CNI plugins.
const CNIPlugins = "/usr/lib/cni"

func runtimeDependencies() []dependency {
	return []dependency{
		{"containerd", "containerd", "runs the nodes' containers"},
		{"ctr", "containerd", "imports images"},
		{"runc", "runc", "starts containers"},
		{filepath.Join(CNIPlugins, "ptp"), "containernetworking-plugins", "connects pods"},
		{filepath.Join(CNIPlugins, "host-local"), "containernetworking-plugins", "gives pods their addresses"},
		{filepath.Join(CNIPlugins, "portmap"), "containernetworking-plugins", "serves hostPort"},
		{"nft", "nftables", "kube-proxy's rules"},
		{"iptables", "iptables", "the kubelet's and portmap's rules"},
		{"conntrack", "conntrack", "kube-proxy forgets dead end points"},
		{"socat", "socat", "kubectl port-forward"},
		{"ip", "iproute2", "network namespaces, links and routes"},
		{"nsenter", "util-linux", "enters a node's network"},
		{"mount", "mount", "the kubelet's volumes"},
	}
}

// imageDependencies are needed only to make an image out of Debian packages.
func imageDependencies() []dependency {
	return []dependency{{"debootstrap", "debootstrap", "makes the PostgreSQL image"}}
}

// lookPath finds a program also where a non-login shell's PATH may not reach.
func lookPath(file string) bool {
	if filepath.IsAbs(file) {
		_, err := os.Stat(file)
		return err == nil
	}
	if _, err := exec.LookPath(file); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return true
		}
	}
	return false
}

func missingOf(deps []dependency, has func(string) bool) []dependency {
	var missing []dependency
	for _, d := range deps {
		if !has(d.file) {
			missing = append(missing, d)
		}
	}
	return missing
}

func packagesOf(deps []dependency) []string {
	var pkgs []string
	seen := map[string]bool{}
	for _, d := range deps {
		if !seen[d.pkg] {
			seen[d.pkg] = true
			pkgs = append(pkgs, d.pkg)
		}
	}
	return pkgs
}

// policyFile decides whether a package's installation may start its service.
const policyFile = "/usr/sbin/policy-rc.d"

// CanInstall says whether InstallMissing has what it needs.
func CanInstall() bool { return os.Geteuid() == 0 && lookPath("apt-get") }

// InstallMissing installs, with apt-get, the Debian packages of what is
// missing. No service is started: each node brings a containerd of its own.
func InstallMissing(ctx context.Context, progress *run.Progress) error {
	pkgs := packagesOf(missingOf(append(runtimeDependencies(), imageDependencies()...), lookPath))
	if len(pkgs) == 0 {
		progress.Say("every Debian package is there")
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("installing %s needs root", strings.Join(pkgs, " "))
	}
	if !lookPath("apt-get") {
		return fmt.Errorf("there is no apt-get; install what brings these Debian packages' programs: %s", strings.Join(pkgs, " "))
	}
	if err := progress.Step(ctx, "apt-get update", nil, func(ctx context.Context) error {
		return run.Quiet(ctx, "apt-get", "update", "-qq")
	}); err != nil {
		return err
	}
	restore, err := forbidServices()
	if err != nil {
		return err
	}
	defer restore()
	return progress.Step(ctx, "apt-get install "+strings.Join(pkgs, " "), nil, func(ctx context.Context) error {
		args := append([]string{"DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends"}, pkgs...)
		return run.Quiet(ctx, "env", args...)
	})
}

// forbidServices makes invoke-rc.d refuse to start services until the
// returned function is called. A policy of the machine's own is left alone.
func forbidServices() (restore func(), err error) {
	file, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // must be executable by dpkg
	if os.IsExist(err) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forbid services to start: %w", err)
	}
	_, err = file.WriteString("#!/bin/sh\nexit 101\n")
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	restore = func() { _ = os.Remove(policyFile) }
	if err != nil {
		restore()
		return nil, fmt.Errorf("forbid services to start: %w", err)
	}
	return restore, nil
}
