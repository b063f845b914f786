package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

// kubeletSysctls are the machine-wide settings that a kubelet changes.
var kubeletSysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// fixedPaths are folders that components make at places that no setting
// moves. The parent of a listed folder comes after it.
var fixedPaths = []string{
	"/var/lib/kubelet/device-plugins", "/var/lib/kubelet",
	"/var/log/containers", "/var/log/pods",
	"/var/lib/cni/results", "/var/lib/cni/cache", "/var/lib/cni",
	"/run/containerd/s", "/run/containerd/fifo", "/run/containerd",
}

type snapshot struct {
	Sysctls map[string]string `json:"sysctls"`
	// Absent are the fixed paths that were not there.
	Absent []string `json:"absent"`
}

// Remember writes what the host is like now, unless an earlier run that was
// never cleaned up wrote it already.
func Remember(dir layout.Dir) error {
	if _, err := os.Stat(dir.Host()); err == nil {
		return nil
	}
	s := snapshot{Sysctls: map[string]string{}}
	for _, name := range kubeletSysctls {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", name)); err == nil {
			s.Sysctls[name] = strings.TrimSpace(string(value))
		}
	}
	for _, path := range fixedPaths {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			s.Absent = append(s.Absent, path)
		}
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode host state: %w", err)
	}
	if err := os.WriteFile(dir.Host(), data, 0o600); err != nil {
		return fmt.Errorf("remember host state: %w", err)
	}
	return nil
}

// Restore puts back what Remember wrote and forgets it. Leftovers of the
// cluster at fixed places are removed; what others put there stays.
func Restore(dir layout.Dir) error {
	data, err := os.ReadFile(dir.Host())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read host state: %w", err)
	}
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("decode host state %s: %w", dir.Host(), err)
	}
	var errs []error
	for name, value := range s.Sysctls {
		path := filepath.Join("/proc/sys", name)
		if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) != value {
			errs = append(errs, os.WriteFile(path, []byte(value), 0o600))
		}
	}
	removeLinksInto("/var/log/containers", string(dir))
	removeMentioning("/var/lib/cni/results", string(dir))
	for _, path := range s.Absent {
		if path == "/var/lib/kubelet/device-plugins" {
			for _, file := range []string{"kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"} {
				_ = os.Remove(filepath.Join(path, file))
			}
		}
		// Remove takes a folder only when it is empty: what is somebody
		// else's by now keeps it.
		_ = os.Remove(path)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("restore kernel settings: %w", err)
	}
	return os.Remove(dir.Host())
}

// removeLinksInto removes the symbolic links of a folder that point under
// target.
func removeLinksInto(folder, target string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, target+"/") {
			_ = os.Remove(path)
		}
	}
}

// removeMentioning removes the files of a folder whose text names something
// under target: the CNI library's notes of pods' links name their namespaces.
func removeMentioning(folder, target string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), target+"/") {
			_ = os.Remove(path)
		}
	}
}
