package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/internal/cgroups"
	"github.com/marketplane/marketplane/hack/cluster/internal/host"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/network"
	"github.com/marketplane/marketplane/hack/cluster/internal/process"
)

// Down ends the cluster and removes everything that it put on the machine,
// except the logs of the last run.
func (c Cluster) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("down needs root")
	}
	lock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	return c.Progress.Step(ctx, "take the cluster down", nil, c.clean)
}

// clean ends and removes what is there, in whatever state it is. It goes on
// after an error, so that one stubborn leftover does not keep all others.
func (c Cluster) clean(ctx context.Context) error {
	tree, err := cgroups.Detect()
	if err != nil {
		return err
	}
	var errs []error
	// Without the file that up writes last, an up that is cut off here is
	// taken for the half-made cluster that it is.
	if err := os.Remove(c.Dir.Ready()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, c.endProcesses(ctx, tree))
	errs = append(errs, c.removeShimSockets())
	errs = append(errs, unmountBelow(string(c.Dir)))
	errs = append(errs, network.Down(ctx))
	for _, n := range layout.Nodes() {
		errs = append(errs, retry(ctx, func() error { return tree.Remove(n.Namespace) }))
	}
	if err := errors.Join(errs...); err != nil {
		// What still runs or is mounted may lie in the folder: keep it.
		return fmt.Errorf("take down: %w", err)
	}
	if err := os.RemoveAll(c.Dir.State()); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return host.Restore(c.Dir)
}

// endProcesses ends the components, the containerd shims, and then the
// containers' processes, which the nodes' control groups list.
func (c Cluster) endProcesses(ctx context.Context, tree cgroups.Tree) error {
	// A shim that is being started while the list is read is found by the next
	// round.
	for range 5 {
		ours, err := c.processes().Ours()
		if err != nil {
			return err
		}
		for _, n := range layout.Nodes() {
			ours = append(ours, process.Identities(tree.Processes(n.Namespace))...)
		}
		if len(ours) == 0 {
			return nil
		}
		// Nothing here has anything to save: no patience.
		if err := process.End(ctx, ours, 0); err != nil {
			return err
		}
	}
	return errors.New("new processes keep appearing in the cluster's control groups")
}

// removeShimSockets removes the sockets that shims leave in containerd's
// fixed folder. Each shim's own folder says which is its.
func (c Cluster) removeShimSockets() error {
	var errs []error
	for _, n := range layout.Nodes() {
		files, err := filepath.Glob(filepath.Join(c.Dir.Node(n.Name).ContainerdState(), "io.containerd.runtime.v2.task", "*", "*", "address"))
		if err != nil {
			return fmt.Errorf("find shim sockets: %w", err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			socket := strings.TrimPrefix(strings.TrimSpace(string(data)), "unix://")
			if !strings.HasPrefix(socket, "/run/containerd/s/") {
				continue
			}
			if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// unmountBelow unmounts everything below a folder, the last mounted first.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var errs []error
	for _, target := range mountsBelow(string(mounts), dir) {
		// A lazy unmount: a process that is on its way out may still hold it.
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// mountsBelow reads a mountinfo table (proc(5)) and returns the mount points
// below a folder, in the order to unmount them.
func mountsBelow(mountinfo, dir string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var targets []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		const target = 4
		if len(fields) > target {
			if path := unescape.Replace(fields[target]); strings.HasPrefix(path, dir+"/") {
				targets = append(targets, path)
			}
		}
	}
	slices.Reverse(targets)
	return targets
}

// retry tries a few times: the kernel takes a moment to let go of a control
// group whose last process ended.
func retry(ctx context.Context, do func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 50 {
		if err = do(); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
	return err
}
