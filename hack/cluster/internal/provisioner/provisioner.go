// Package provisioner makes a local volume for each claim on the cluster's
// StorageClass, on the node where the scheduler puts the claim's pod, and
// deletes it with the claim.
//
// It is level-triggered: a change only wakes it up, and each time it compares
// every claim with every volume. So it may be killed at any point.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/marketplane/marketplane/hack/cluster/internal/kubeapi"
)

// Annotations that the scheduler, the volume controller and provisioners
// speak by.
const (
	provisionerAnnotation = "volume.kubernetes.io/storage-provisioner"
	selectedNode          = "volume.kubernetes.io/selected-node"
	provisionedBy         = "pv.kubernetes.io/provisioned-by"
)

const (
	claimsPath  = "/api/v1/persistentvolumeclaims"
	volumesPath = "/api/v1/persistentvolumes"
	classesPath = "/apis/storage.k8s.io/v1/storageclasses/"
)

// Provisioner provisions for one provisioner name.
type Provisioner struct {
	// API is the cluster's API server.
	API *kubeapi.Client
	// Name is the provisioner's name in the StorageClass.
	Name string
	// Root is the folder under which volumes lie as NODE/VOLUME.
	Root string
	// Log hears of each volume.
	Log *slog.Logger
}

// Run provisions until ctx is done.
func (p Provisioner) Run(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default: // a look is due already, and will see this change too
		}
	}
	var watchers sync.WaitGroup
	for _, path := range []string{claimsPath, volumesPath} {
		watchers.Go(func() { p.watch(ctx, path, poke) })
	}
	defer watchers.Wait()
	for {
		retry := time.NewTimer(30 * time.Second)
		if err := p.reconcile(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("could not reconcile, trying again", "error", err)
			retry.Reset(time.Second)
		}
		select {
		case <-ctx.Done():
			retry.Stop()
			return nil
		case <-wake:
			retry.Stop()
		case <-retry.C:
		}
	}
}

// watch keeps a watch open until ctx is done.
func (p Provisioner) watch(ctx context.Context, path string, changed func()) {
	for ctx.Err() == nil {
		if err := p.API.Watch(ctx, path, 5*time.Minute, changed); err != nil && ctx.Err() == nil {
			p.Log.Warn("watch broke, opening it again", "path", path, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (p Provisioner) reconcile(ctx context.Context) error {
	var claims list[claim]
	var volumes list[volume]
	if err := p.API.Get(ctx, claimsPath, &claims); err != nil {
		return err
	}
	if err := p.API.Get(ctx, volumesPath, &volumes); err != nil {
		return err
	}
	var errs []error
	for _, c := range unprovisioned(p.Name, claims.Items, volumes.Items) {
		errs = append(errs, p.provision(ctx, c))
	}
	for _, v := range released(p.Name, volumes.Items) {
		errs = append(errs, p.remove(ctx, v))
	}
	return errors.Join(errs...)
}

// unprovisioned returns the claims that wait for a volume of ours and whose
// node is known.
func unprovisioned(name string, claims []claim, volumes []volume) []claim {
	made := map[string]bool{}
	for _, v := range volumes {
		made[v.Metadata.Name] = true
	}
	var want []claim
	for _, c := range claims {
		if c.Metadata.DeletionTimestamp == "" && c.Spec.VolumeName == "" &&
			c.Metadata.Annotations[provisionerAnnotation] == name &&
			c.Metadata.Annotations[selectedNode] != "" && !made[c.volumeName()] {
			want = append(want, c)
		}
	}
	return want
}

// released returns the volumes of ours whose claim is gone and that are to be
// deleted.
func released(name string, volumes []volume) []volume {
	var gone []volume
	for _, v := range volumes {
		if v.Metadata.Annotations[provisionedBy] == name && v.Metadata.DeletionTimestamp == "" &&
			v.Status.Phase == "Released" && v.Spec.ReclaimPolicy == "Delete" {
			gone = append(gone, v)
		}
	}
	return gone
}

func (p Provisioner) provision(ctx context.Context, c claim) error {
	key := c.Metadata.Namespace + "/" + c.Metadata.Name
	if c.Spec.VolumeMode == "Block" {
		p.Log.Warn("claims a block device, which this provisioner does not make", "claim", key)
		return nil
	}
	var class storageClass
	if err := p.API.Get(ctx, classesPath+c.Spec.StorageClassName, &class); err != nil {
		return fmt.Errorf("provision for %s: %w", key, err)
	}
	node := c.Metadata.Annotations[selectedNode]
	path, err := p.path(node, c.volumeName())
	if err != nil {
		return fmt.Errorf("provision for %s: %w", key, err)
	}
	// Owned by root, as a new file system on a disk is: a pod that is not
	// root needs its fsGroup here as it will in production.
	if err := os.MkdirAll(path, 0o755); err != nil { //nolint:gosec // as above
		return fmt.Errorf("provision for %s: %w", key, err)
	}
	err = p.API.Create(ctx, volumesPath, newVolume(p.Name, c, class, node, path))
	if err != nil && !kubeapi.IsStatus(err, http.StatusConflict) {
		return fmt.Errorf("provision for %s: %w", key, err)
	}
	p.Log.Info("provisioned", "claim", key, "volume", c.volumeName(), "node", node)
	return nil
}

func (p Provisioner) remove(ctx context.Context, v volume) error {
	if v.Spec.Local == nil {
		return nil
	}
	// The path came from the API, where anybody might have written it: only
	// what lies where this provisioner puts volumes is deleted.
	path, err := p.path(filepath.Base(filepath.Dir(v.Spec.Local.Path)), v.Metadata.Name)
	if err != nil || path != v.Spec.Local.Path {
		return fmt.Errorf("volume %s: path %q is not one of ours", v.Metadata.Name, v.Spec.Local.Path)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("delete volume %s: %w", v.Metadata.Name, err)
	}
	if err := p.API.Delete(ctx, volumesPath+"/"+v.Metadata.Name); err != nil && !kubeapi.IsStatus(err, http.StatusNotFound) {
		return fmt.Errorf("delete volume %s: %w", v.Metadata.Name, err)
	}
	p.Log.Info("deleted", "volume", v.Metadata.Name)
	return nil
}

// path returns a volume's folder, or an error if a name is not a plain one.
func (p Provisioner) path(node, name string) (string, error) {
	for _, part := range []string{node, name} {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, `/\`) {
			return "", fmt.Errorf("bad name %q", part)
		}
	}
	return filepath.Join(p.Root, node, name), nil
}
