package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/internal/component"
	"github.com/marketplane/marketplane/hack/cluster/internal/kubeapi"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
	"github.com/marketplane/marketplane/hack/cluster/internal/process"
	"github.com/marketplane/marketplane/hack/cluster/internal/run"
)

// starter is one run of up: it starts what does not run, in order.
type starter struct {
	Cluster
	paths    component.Paths
	images   systemImages
	api      *kubeapi.Client
	launched []string
}

// start starts every component that does not run and waits until pods can
// run. Everything in it may be done again to a cluster that runs.
func (s *starter) start(ctx context.Context, fresh bool) error {
	files, err := s.paths.Files()
	if err != nil {
		return err
	}
	if fresh {
		for path, data := range files {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return fmt.Errorf("write configuration: %w", err)
			}
		}
	}
	if s.api, err = kubeapi.New(layout.APIServerURL(), s.Dir.PKI()); err != nil {
		return err
	}
	if err := s.startControlPlane(ctx); err != nil {
		return err
	}
	if err := s.startNodes(ctx); err != nil {
		return err
	}
	if err := s.launch(s.paths.Provisioner()); err != nil {
		return err
	}
	if err := s.Progress.Step(ctx, "apply CoreDNS, metrics-server, the ingress proxy and the StorageClass", nil, s.applyAddons); err != nil {
		return err
	}
	if err := s.wait(ctx, "both nodes are Ready", time.Minute, func(ctx context.Context) error { return nodesReady(ctx, s.api) }); err != nil {
		return err
	}
	// metrics-server is not waited for: it has nothing to tell before its
	// second look at the kubelets, and only autoscaling needs it.
	return s.wait(ctx, "CoreDNS and the ingress proxy are available", time.Minute, func(ctx context.Context) error {
		return errors.Join(available(ctx, s.api, "kube-system", "coredns"), available(ctx, s.api, "ingress", "ingress"))
	})
}

func (s *starter) startControlPlane(ctx context.Context) error {
	components := []component.Component{s.paths.Etcd(), s.paths.APIServer()}
	for _, n := range layout.Nodes() {
		// The runtimes come up while the API server does.
		components = append(components, s.paths.Containerd(n))
	}
	if err := s.launch(components...); err != nil {
		return err
	}
	if err := s.wait(ctx, "kube-apiserver is ready", time.Minute, s.api.Healthy); err != nil {
		return err
	}
	return s.launch(s.paths.ControllerManager(), s.paths.Scheduler())
}

func (s *starter) startNodes(ctx context.Context) error {
	for _, n := range layout.Nodes() {
		if err := registerNode(ctx, s.api, n); err != nil {
			return err
		}
		if err := s.wait(ctx, "containerd of "+n.Name+" answers", 30*time.Second, func(ctx context.Context) error {
			return run.Quiet(ctx, "ctr", "--address", s.Dir.Node(n.Name).Socket(), "version")
		}); err != nil {
			return err
		}
	}
	if err := s.load(ctx, s.images.archives); err != nil {
		return err
	}
	for _, n := range layout.Nodes() {
		if err := s.launch(s.paths.Kubelet(n), s.paths.KubeProxy(n)); err != nil {
			return err
		}
	}
	return nil
}

// applyAddons applies what runs in the cluster.
func (s *starter) applyAddons(ctx context.Context) error {
	manifest, err := component.Addons(s.images.addons)
	if err != nil {
		return err
	}
	path := filepath.Join(s.Dir.Config(), "addons.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		return fmt.Errorf("write addons: %w", err)
	}
	return run.Quiet(ctx, filepath.Join(s.paths.Kubernetes, "kubectl"), "--kubeconfig", s.Dir.Kubeconfig(),
		"apply", "--server-side", "--force-conflicts", "--field-manager=marketplane-cluster", "-f", path)
}

// launch starts components, those that do not run yet.
func (s *starter) launch(components ...component.Component) error {
	for _, comp := range components {
		if _, err := s.processes().Start(comp.Name, comp.Args); err != nil {
			return err
		}
		s.launched = append(s.launched, comp.Name)
	}
	return nil
}

// wait asks again until ready returns nil. It gives up early, with the end of
// its log, when a component ended.
func (s *starter) wait(ctx context.Context, what string, limit time.Duration, ready func(context.Context) error) error {
	return s.Progress.Step(ctx, what, nil, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			err := ready(ctx)
			if err == nil {
				return nil
			}
			if dead := s.dead(); dead != nil {
				return fmt.Errorf("%s ended; its log %s ends so:\n%s", dead.Name, dead.Log, dead.LogTail(15))
			}
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			case <-tick.C:
			}
		}
	})
}

// dead returns the record of a component that this up launched, or found
// running, and that does not run any more.
func (s *starter) dead() *process.Record {
	for _, name := range s.launched {
		if rec, err := s.processes().Find(name); err == nil && !rec.Alive() {
			return &rec
		}
	}
	return nil
}

// registerNode makes the Node object before its kubelet does, with the pod
// range that its network was made for.
func registerNode(ctx context.Context, api *kubeapi.Client, n layout.Node) error {
	type object map[string]any
	err := api.Create(ctx, "/api/v1/nodes", object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": n.Name, "labels": map[string]string{
			"topology.kubernetes.io/zone": n.Zone, "kubernetes.io/hostname": n.Name,
			"kubernetes.io/os": "linux",
		}},
		"spec": object{"podCIDR": n.PodCIDR, "podCIDRs": []string{n.PodCIDR}},
	})
	if err != nil && !kubeapi.IsStatus(err, 409) {
		return fmt.Errorf("register %s: %w", n.Name, err)
	}
	return nil
}
