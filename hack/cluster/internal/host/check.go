// Package host checks that a machine can run the cluster, installs what is
// missing, and remembers what the cluster's components change on it so that
// `down` can put it back.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/cgroups"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

// Check says everything that keeps this machine from running a cluster, or
// nil.
func Check() error {
	var problems []string
	if runtime.GOOS != "linux" {
		problems = append(problems, "this is "+runtime.GOOS+", not Linux")
	}
	if os.Geteuid() != 0 {
		problems = append(problems, "this is not root: namespaces, mounts and control groups need it")
	}
	if len(problems) == 0 {
		if missing := missingOf(runtimeDependencies(), lookPath); len(missing) > 0 {
			for _, d := range missing {
				problems = append(problems, fmt.Sprintf("%s is missing: it %s (Debian package %s; the deps command installs it)", d.file, d.purpose, d.pkg))
			}
		}
		tree, err := cgroups.Detect()
		if err == nil {
			err = tree.Check()
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
		if err := checkModules(); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return errors.New("this machine cannot run the local cluster:\n  - " + strings.Join(problems, "\n  - ") +
		"\nThe services also run as plain processes, without any of this: make dev")
}

// checkModules looks for the two kernel features that have no program to
// look for.
func checkModules() error {
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("read the kernel's file systems: %w", err)
	}
	if !strings.Contains(string(filesystems), "overlay") {
		return errors.New("the kernel has no overlay file system (modprobe overlay)")
	}
	return nil
}

// CheckRanges says if an address of the host lies in a range that the cluster
// uses. It is for a host on which no cluster runs.
func CheckRanges() error {
	ifaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, iface := range ifaces {
		addrs, err := iface.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addrs {
			ipnet, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, ok := netip.AddrFromSlice(ipnet.IP)
			if !ok {
				continue
			}
			for _, r := range layout.ClusterRanges() {
				if r.Contains(addr.Unmap()) {
					return fmt.Errorf("interface %s has the address %s, which lies in the cluster's range %s", iface.Name, addr, r)
				}
			}
		}
	}
	return nil
}
