package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/marketplane/marketplane/hack/cluster/internal/kubeapi"
	"github.com/marketplane/marketplane/hack/cluster/internal/layout"
)

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Message string `json:"message"`
}

type conditioned struct {
	Metadata struct {
		Name       string `json:"name"`
		Generation int64  `json:"generation"`
	} `json:"metadata"`
	Status struct {
		ObservedGeneration int64 `json:"observedGeneration"`
		// Of a Deployment.
		Replicas        int `json:"replicas"`
		UpdatedReplicas int `json:"updatedReplicas"`

		Conditions []condition `json:"conditions"`
		NodeInfo   struct {
			KubeletVersion string `json:"kubeletVersion"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

// is returns whether a condition is true, and its message.
func (o conditioned) is(kind string) (bool, string) {
	for _, c := range o.Status.Conditions {
		if c.Type == kind {
			return c.Status == "True", c.Message
		}
	}
	return false, "not reported yet"
}

func getNode(ctx context.Context, api *kubeapi.Client, name string) (conditioned, error) {
	var node conditioned
	err := api.Get(ctx, "/api/v1/nodes/"+name, &node)
	return node, err
}

func nodesReady(ctx context.Context, api *kubeapi.Client) error {
	var errs []error
	for _, n := range layout.Nodes() {
		node, err := getNode(ctx, api, n.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if ok, message := node.is("Ready"); !ok {
			errs = append(errs, fmt.Errorf("%s is not ready: %s", n.Name, message))
		}
	}
	return errors.Join(errs...)
}

// available returns nil if a Deployment of the cluster's own is rolled out.
func available(ctx context.Context, api *kubeapi.Client, namespace, name string) error {
	var deployment conditioned
	if err := api.Get(ctx, "/apis/apps/v1/namespaces/"+namespace+"/deployments/"+name, &deployment); err != nil {
		return err
	}
	if err := deployment.rolledOut(); err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	return nil
}

// rolledOut returns nil if a Deployment is available, and of its newest pods
// alone: an old one that is about to go takes connections with it.
func (o conditioned) rolledOut() error {
	if ok, message := o.is("Available"); !ok {
		return fmt.Errorf("is not available: %s", message)
	}
	s := o.Status
	if s.ObservedGeneration != o.Metadata.Generation || s.UpdatedReplicas != s.Replicas {
		return errors.New("is being replaced")
	}
	return nil
}

// Status writes what runs and how it is. The error is not nil if anything is
// not as it should be.
func (c Cluster) Status(ctx context.Context, out io.Writer) error {
	if _, err := c.Kubeconfig(); err != nil {
		return err
	}
	var errs []error
	for _, name := range Components() {
		rec, err := c.processes().Find(name)
		state := "not started"
		switch {
		case err == nil && rec.Alive():
			state = fmt.Sprintf("runs, process %d since %s", rec.PID, rec.Started.Format("2006-01-02 15:04:05Z"))
		case err == nil:
			state = "ended, see " + rec.Log
			fallthrough
		default:
			errs = append(errs, fmt.Errorf("%s: %s", name, state))
		}
		_, _ = fmt.Fprintf(out, "%-26s %s\n", name, state)
	}
	api, err := kubeapi.New(layout.APIServerURL(), c.Dir.PKI())
	if err != nil {
		return err
	}
	for _, n := range layout.Nodes() {
		node, err := getNode(ctx, api, n.Name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ok, message := node.is("Ready")
		_, _ = fmt.Fprintf(out, "%-26s Ready=%t %s zone=%s pods=%s %s\n", n.Name, ok, n.Address, n.Zone, n.PodCIDR, node.Status.NodeInfo.KubeletVersion)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %s", n.Name, message))
		}
	}
	for _, addon := range []struct{ namespace, name, note string }{
		{namespace: "kube-system", name: "coredns"},
		{namespace: "kube-system", name: "metrics-server"},
		{namespace: "ingress", name: "ingress", note: ", http and https at " + layout.IngressAddress + ", class " + layout.IngressClass},
	} {
		if err := available(ctx, api, addon.namespace, addon.name); err != nil {
			errs = append(errs, err)
			continue
		}
		_, _ = fmt.Fprintf(out, "%-26s available%s\n", addon.name, addon.note)
	}
	return errors.Join(errs...)
}
