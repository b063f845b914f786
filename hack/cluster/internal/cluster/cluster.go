// Package cluster brings the local cluster up and down. It is the one place
// that knows the order of things; what the things are, other packages say.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/internal/binaries"
	"github.com/marketplane/marketplane/hack/cluster/internal/cgroups"
	"github.com/marketplane/marketplane/hack/cluster/internal/component"
	"github.com/marketplane/marketplane/hack/cluster/internal/host"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/network"
	"github.com/marketplane/marketplane/hack/cluster/internal/pki"
	"github.com/marketplane/marketplane/hack/cluster/internal/process"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// format changes whenever a cluster that an older tool made must be made anew.
const format = 3

// Cluster is the local cluster of one run folder.
type Cluster struct {
	Dir      layout.Dir
	Builder  binaries.Builder
	Progress *run.Progress
}

// readyRecord is what Ready holds: what the running cluster was made of. What
// runs in pods is not in it: every up applies that, to a cluster that runs too.
type readyRecord struct {
	Format     int    `json:"format"`
	Kubernetes string `json:"kubernetes"`
}

func (c Cluster) processes() process.Manager {
	return process.Manager{Owner: string(c.Dir), Records: c.Dir.PIDs(), Logs: c.Dir.Logs()}
}

func (c Cluster) lock(ctx context.Context) (*run.Lock, error) {
	return run.TakeLock(ctx, c.Dir.Lock(), func() { c.Progress.Say("waiting: another run of this tool works on %s", c.Dir) })
}

// Up makes sure that the cluster runs and is ready for pods. A healthy one is
// left as it is; one of which only processes died gets them back; anything
// else is removed first.
func (c Cluster) Up(ctx context.Context) error {
	if err := host.Check(); err != nil {
		return err
	}
	kubernetes, err := c.Builder.Build(ctx, binaries.Kubernetes())
	if err != nil {
		return err
	}
	images, err := c.systemImages(ctx)
	if err != nil {
		return err
	}
	lock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	want := readyRecord{Format: format, Kubernetes: filepath.Base(kubernetes)}
	fresh := !c.complete(want)
	if fresh {
		if err := c.prepare(ctx); err != nil {
			return err
		}
	}
	if err := (&starter{Cluster: c, paths: component.Paths{Dir: c.Dir, Kubernetes: kubernetes}, images: images}).start(ctx, fresh); err != nil {
		return fmt.Errorf("%w\nlogs: %s; to start over: the down command, then up", err, c.Dir.Logs())
	}
	if fresh {
		data, err := json.Marshal(want)
		if err != nil {
			return fmt.Errorf("encode readiness: %w", err)
		}
		if err := os.WriteFile(c.Dir.Ready(), data, 0o600); err != nil {
			return fmt.Errorf("record readiness: %w", err)
		}
	}
	c.Progress.Say("the cluster is up; KUBECONFIG=%s", c.Dir.Kubeconfig())
	return nil
}

// complete says whether an earlier up finished, with the same programs, and
// what does not come back by starting processes is still there.
func (c Cluster) complete(want readyRecord) bool {
	data, err := os.ReadFile(c.Dir.Ready())
	if err != nil {
		return false
	}
	var have readyRecord
	if json.Unmarshal(data, &have) != nil || have != want {
		return false
	}
	return network.Exists() && !c.rebooted()
}

// rebooted says whether the machine was started anew since etcd was: then
// control groups and mounts are gone too.
func (c Cluster) rebooted() bool {
	rec, err := c.processes().Find("etcd")
	if err != nil {
		return true
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return err != nil || rec.Boot != string(boot[:len(boot)-1])
}

// prepare removes what is left of an earlier cluster and lays out a new one.
func (c Cluster) prepare(ctx context.Context) error {
	if err := c.Progress.Step(ctx, "clean what an earlier run left", nil, c.clean); err != nil {
		return err
	}
	if err := host.CheckRanges(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.Dir.Logs()); err != nil {
		return fmt.Errorf("remove old logs: %w", err)
	}
	dirs := []string{c.Dir.State(), c.Dir.Logs(), c.Dir.Config(), c.Dir.Bin(), c.Dir.Volumes()}
	for _, n := range layout.Nodes() {
		dirs = append(dirs, c.Dir.Node(n.Name).All()...)
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // secrets lie in folders and files of mode 0700 and 0600
			return fmt.Errorf("make folder: %w", err)
		}
	}
	// etcd wants its folder for itself alone.
	if err := os.MkdirAll(c.Dir.Etcd(), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := host.Remember(c.Dir); err != nil {
		return err
	}
	if err := pki.WriteCluster(c.Dir, time.Now()); err != nil {
		return err
	}
	if err := copySelf(filepath.Join(c.Dir.Bin(), "cluster")); err != nil {
		return err
	}
	tree, err := cgroups.Detect()
	if err != nil {
		return err
	}
	for _, n := range layout.Nodes() {
		if err := tree.Make(n.Namespace); err != nil {
			return err
		}
	}
	return c.Progress.Step(ctx, "make the nodes' networks", nil, network.Up)
}

// copySelf keeps a copy of this program: `go run` deletes its own when it
// ends, and the provisioner goes on.
func copySelf(to string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	defer func() { _ = self.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program
	if err != nil {
		return fmt.Errorf("copy this program: %w", err)
	}
	if _, err := io.Copy(out, self); err != nil {
		_ = out.Close()
		return fmt.Errorf("copy this program: %w", err)
	}
	return out.Close()
}

// Components returns the names of all components, in the order of their start.
func Components() []string {
	names := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	for _, n := range layout.Nodes() {
		names = append(names, "containerd-"+n.Name, "kubelet-"+n.Name, "kube-proxy-"+n.Name)
	}
	return append(names, "provisioner")
}

// ErrNotUp says that no cluster is there.
var ErrNotUp = errors.New("no cluster is up")

// Kubeconfig returns the path of the administrator's kubeconfig.
func (c Cluster) Kubeconfig() (string, error) {
	if _, err := os.Stat(c.Dir.Ready()); err != nil {
		return "", ErrNotUp
	}
	return c.Dir.Kubeconfig(), nil
}
