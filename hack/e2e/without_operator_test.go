//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Someone uninstalls the operator: what runs goes on, and users notice nothing.
// Then they take the second step that the chart's NOTES name, and everything
// goes, without an operator.
//
// It is the last journey, since files run in the order of their names: it takes
// every Marketplace of the cluster with it. The operator is installed again
// afterwards, with the CRD, as it was.
func TestUninstallKeepsMarketplacesUntilTheCRDGoes(t *testing.T) {
	m := marketplace{name: "kept", namespace: makeNamespace(t, "uninstall")}
	empty := everythingIn(t, m.namespace)
	m.apply(t, small())
	m.waitReady(t)
	urls, pods := m.urls(t), m.allPods(t)
	installed := installedOperator(t)
	removeAll := removalIn(t, string(installed.run(t.Context(), t, "get", "notes", helmRelease)))

	installed.reinstallAtTheEnd(t)
	installed.run(t.Context(), t, "uninstall", helmRelease, "--wait", "--timeout=2m")
	eventually(t, time.Minute, "no operator is left", func(ctx context.Context) error {
		left, err := operatorPods(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d pods of it", len(left))
		}
		return err
	})
	if out, err := walkThrough(t.Context(), urls); err != nil {
		t.Errorf("the walk without an operator failed: %v\n%s", err, out)
	}
	if _, err := m.get(t.Context()); err != nil {
		t.Errorf("the Marketplace went with the operator: %v", err)
	}
	if diff := cmp.Diff(pods, m.allPods(t)); diff != "" {
		t.Errorf("pods changed (-before +after, as UID and restarts):\n%s", diff)
	}

	kubectl(t, removeAll)
	eventually(t, time.Minute, "the kind is gone", func(context.Context) error {
		if err := crdIsGone(t.Context()); err != nil {
			return err
		}
		// What lists all kinds must not be told of this one any more.
		if _, err := cluster.discovery.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String()); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it can still be discovered: %w", err)
		}
		return nil
	})
	m.waitEverythingGone(t, empty)
}

// removal is the command in the NOTES that takes away what an uninstall keeps.
var removal = regexp.MustCompile(`(?m)^kubectl (delete crd \S+)$`)

func removalIn(t *testing.T, notes string) []string {
	t.Helper()
	found := removal.FindStringSubmatch(notes)
	if found == nil {
		t.Fatalf("the NOTES do not say how to remove everything:\n%s", notes)
	}
	return strings.Fields(found[1])
}

// reinstallAtTheEnd installs the operator as it is now when the test ends,
// whatever the test has left of it.
func (i installation) reinstallAtTheEnd(t *testing.T) {
	t.Helper()
	values := filepath.Join(t.TempDir(), "values.json")
	if err := os.WriteFile(values, i.run(t.Context(), t, "get", "values", helmRelease, "--output=json"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		i.run(ctx, t, "upgrade", helmRelease, filepath.Join("..", "..", "charts", "marketplane"),
			"--install", "--values="+values, "--wait", "--timeout=3m")
	})
}

// kubectl runs the local cluster's own.
func kubectl(t *testing.T, args []string) {
	t.Helper()
	assets, err := exec.CommandContext(t.Context(), "go", "run", "-C", filepath.Join("..", "cluster"), ".", "assets").Output()
	if err != nil {
		t.Fatalf("find kubectl: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(assets)), "kubectl"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

// crdIsGone says what is missing until the CustomResourceDefinition is not
// there any more.
func crdIsGone(ctx context.Context) error {
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	_, err := cluster.metadata.Resource(crds).Get(ctx, "marketplaces."+v1alpha1.GroupVersion.Group, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	}
	return errors.New("the CustomResourceDefinition is still there")
}
