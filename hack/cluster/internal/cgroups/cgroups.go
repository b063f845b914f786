// Package cgroups makes, lists and removes the nodes' control groups, in
// version 1 (one tree a controller) and version 2 (one tree).
package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// required are the controllers that the kubelet does not run without.
var required = []string{"cpu", "cpuacct", "cpuset", "memory", "pids"}

// requiredV2 is required for version 2, where cpuacct is part of cpu.
var requiredV2 = []string{"cpu", "cpuset", "memory", "pids"}

// Hierarchy is one mounted control-group file system.
type Hierarchy struct {
	// Controllers are those of a version 1 hierarchy; a named one has none.
	Controllers []string
	// Version2 says that it is the version 2 hierarchy, which names its
	// controllers in a file instead.
	Version2 bool
}

// Tree is the machine's control-group hierarchies.
type Tree struct {
	// Mounts maps each mount point to its hierarchy.
	Mounts map[string]Hierarchy
	// Unified says that the controllers are in a version 2 hierarchy.
	Unified bool
}

// Detect reads the machine's hierarchies.
func Detect() (Tree, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return Tree{}, fmt.Errorf("read mounts: %w", err)
	}
	known, err := os.ReadFile("/proc/cgroups")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Tree{}, fmt.Errorf("read controllers: %w", err)
	}
	return parse(string(mounts), string(known)), nil
}

// parse reads /proc/self/mounts, and /proc/cgroups to tell a controller's name
// from a mount option.
func parse(mounts, known string) Tree {
	controllers := map[string]bool{}
	for line := range strings.Lines(known) {
		if fields := strings.Fields(line); len(fields) >= 4 && !strings.HasPrefix(line, "#") {
			controllers[fields[0]] = true
		}
	}
	t := Tree{Mounts: map[string]Hierarchy{}}
	v1 := false
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		switch fields[2] {
		case "cgroup":
			var own []string
			for option := range strings.SplitSeq(fields[3], ",") {
				if controllers[option] {
					own = append(own, option)
					v1 = true
				}
			}
			t.Mounts[fields[1]] = Hierarchy{Controllers: own}
		case "cgroup2":
			t.Mounts[fields[1]] = Hierarchy{Version2: true}
		}
	}
	t.Unified = !v1
	return t
}

// Check says which controllers the kubelet would miss.
func (t Tree) Check() error {
	have := map[string]bool{}
	want := required
	if t.Unified {
		want = requiredV2
		for mount := range t.Mounts {
			data, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
			if err != nil {
				continue
			}
			for _, c := range strings.Fields(string(data)) {
				have[c] = true
			}
		}
	} else {
		for _, h := range t.Mounts {
			for _, c := range h.Controllers {
				have[c] = true
			}
		}
	}
	var missing []string
	for _, c := range want {
		if !have[c] {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("control-group controllers are not mounted: %s", strings.Join(missing, ", "))
	}
	return nil
}

// Make creates the group in every hierarchy: the kubelet insists on the named
// ones too. On a machine with both versions, version 2 has no controllers and
// is left out.
func (t Tree) Make(name string) error {
	for mount, h := range t.Mounts {
		if h.Version2 && !t.Unified {
			continue
		}
		if t.Unified {
			// A child has only the controllers that its parent delegates.
			if err := writeFile(filepath.Join(mount, "cgroup.subtree_control"), "+"+strings.Join(requiredV2, " +")); err != nil {
				return fmt.Errorf("delegate controllers: %w", err)
			}
		}
		path := filepath.Join(mount, name)
		if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // the control-group file system's usual mode
			return fmt.Errorf("make control group %s: %w", path, err)
		}
		if !slices.Contains(h.Controllers, "cpuset") {
			continue
		}
		// A version 1 cpuset starts empty, and takes no process until it
		// names processors and memory nodes.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(mount, file))
			if err != nil {
				return fmt.Errorf("read parent's %s: %w", file, err)
			}
			if err := writeFile(filepath.Join(path, file), strings.TrimSpace(string(value))); err != nil {
				return fmt.Errorf("set %s of %s: %w", file, path, err)
			}
		}
	}
	return nil
}

func writeFile(path, value string) error { return os.WriteFile(path, []byte(value), 0o600) }

// groups returns the group's folders in all hierarchies, the deepest first.
func (t Tree) groups(name string) []string {
	var all []string
	for mount := range t.Mounts {
		var here []string
		_ = filepath.WalkDir(filepath.Join(mount, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				here = append(here, path)
			}
			return nil // a group that vanishes meanwhile is what is wanted
		})
		slices.Reverse(here)
		all = append(all, here...)
	}
	return all
}

// Processes returns the ids of the processes in the group and below it.
func (t Tree) Processes(name string) []int {
	seen := map[int]bool{}
	for _, group := range t.groups(name) {
		data, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				seen[pid] = true
			}
		}
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// Remove removes the group and everything below it. The processes must be
// gone. It returns what could not be removed.
func (t Tree) Remove(name string) error {
	var errs []error
	for _, group := range t.groups(name) {
		if err := os.Remove(group); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
