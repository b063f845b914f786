//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// helmRelease is what the operator is installed as.
const helmRelease = "marketplane"

// A marketplace of the release before goes on as it is while the operator and
// the CRD are upgraded by Helm; it is brought to this release, migration first,
// and back again, all while clients of the release before walk through it.
//
// The one operator of the cluster is exchanged for that of the release before,
// which looks after the journey's namespace alone, so that two never look after
// the same.
func TestUpgradeFromTheReleaseBefore(t *testing.T) {
	before := loadReleaseBefore(t)
	namespace := makeNamespace(t, "upgrade")
	installed := currentInstallation(t)
	oldImage := installed.Image.Repository + ":" + strings.TrimPrefix(contract.PreviousRelease, "v")
	newImage := installed.Image.Repository + ":" + installed.Image.Tag

	installed.install(t, filepath.Join(before.sources, "charts", "marketplane"), namespace,
		"image.repository="+installed.Image.Repository)
	m := marketplace{name: "upgrade", namespace: namespace}
	m.apply(t, small())
	m.waitReady(t)
	urls := m.urls(t)
	walks := tellStoriesWith(t, filepath.Join(before.programs, "marketplane"), urls)
	pods, workloads := m.allPods(t), m.workloads(t)

	installed.install(t, filepath.Join("..", "..", "charts", "marketplane"), namespace,
		"image.repository="+installed.Image.Repository, "image.tag="+installed.Image.Tag)
	eventually(t, 2*time.Minute, "the new operator has pinned the release", m.isOf(contract.PreviousRelease, oldImage))
	walks.another(t)
	if diff := cmp.Diff(pods, m.allPods(t)); diff != "" {
		t.Errorf("an upgrade of the operator changed pods (-before +after, as UID and restarts):\n%s", diff)
	}
	if diff := cmp.Diff(workloads, m.workloads(t)); diff != "" {
		t.Errorf("an upgrade of the operator changed workloads (-before +after, as UID and generation):\n%s", diff)
	}

	m.change(t, func(spec *v1alpha1.MarketplaceSpec) { spec.Version = contract.Release })
	eventually(t, readyWithin, "the marketplace is of "+contract.Release, m.isOf(contract.Release, newImage))
	walks.another(t)
	if out, err := walkThrough(t.Context(), urls); err != nil {
		t.Errorf("a client of this release: %v\n%s", err, out)
	}
	database := m.name + "-" + contract.ComponentDatabase + "-0"
	if is := m.allPods(t)[database]; is == "" || is != pods[database] {
		t.Errorf("the database was %q and is %q, though it is of no release", pods[database], is)
	}

	m.change(t, func(spec *v1alpha1.MarketplaceSpec) { spec.Version = contract.PreviousRelease })
	eventually(t, readyWithin, "the marketplace is of "+contract.PreviousRelease+" again", m.isOf(contract.PreviousRelease, oldImage))
	walks.another(t)
	told, err := walks.end()
	if err != nil {
		t.Error(err)
	}
	t.Log(told)
}

// releaseBefore is where the release before lies.
type releaseBefore struct {
	sources, programs string
}

// loadReleaseBefore builds the release before, if need be, and loads its image.
func loadReleaseBefore(t *testing.T) releaseBefore {
	t.Helper()
	script := func(verb string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join("..", "release.sh"), verb)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 3 && os.Getenv("CI") == "" {
			// Not in CI, which would pass without the journey from then on.
			t.Skip(said.String())
		}
		if err != nil {
			t.Fatalf("get the release before: %v\n%s", err, said.String())
		}
		return strings.TrimSpace(string(out))
	}
	return releaseBefore{sources: script("sources"), programs: script("load")}
}

// installation is the operator as Helm knows it.
type installation struct {
	helm  string
	Image struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
	} `json:"image"`
	Postgres struct {
		Image string `json:"image"`
	} `json:"postgres"`
}

// installedOperator reads how the operator is installed.
func installedOperator(t *testing.T) installation {
	t.Helper()
	tool := exec.CommandContext(t.Context(), "go", "tool", "-modfile=hack/tools/go.mod", "-n", "helm")
	tool.Dir = filepath.Join("..", "..")
	path, err := tool.Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	i := installation{helm: strings.TrimSpace(string(path))}
	if err := json.Unmarshal(i.run(t.Context(), t, "get", "values", helmRelease, "--all", "--output=json"), &i); err != nil {
		t.Fatalf("read the operator's values: %v", err)
	}
	return i
}

// currentInstallation reads how the operator is installed, and puts that back
// when the test ends.
func currentInstallation(t *testing.T) installation {
	t.Helper()
	i := installedOperator(t)
	var revisions []struct {
		Revision int `json:"revision"`
	}
	if err := json.Unmarshal(i.run(t.Context(), t, "history", helmRelease, "--max=1", "--output=json"), &revisions); err != nil || len(revisions) != 1 {
		t.Fatalf("read the operator's revision: %v, %v", revisions, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		i.run(ctx, t, "rollback", helmRelease, strconv.Itoa(revisions[0].Revision), "--wait", "--timeout=2m")
	})
	return i
}

// install exchanges the operator, and the CRD, for those of a chart.
func (i installation) install(t *testing.T, chart, namespace string, values ...string) {
	t.Helper()
	args := []string{
		"upgrade", helmRelease, chart, "--reset-values", "--wait", "--timeout=3m",
		"--set=watchNamespaces={" + namespace + "}",
		"--set-string=postgres.image=" + i.Postgres.Image,
	}
	for _, value := range values {
		args = append(args, "--set-string="+value)
	}
	began := time.Now()
	i.run(t.Context(), t, args...)
	t.Logf("installed %s: after %s", chart, time.Since(began).Round(100*time.Millisecond))
}

func (i installation) run(ctx context.Context, t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(ctx, i.helm, append(args, "--namespace="+systemNamespace)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", args[0], err, said.String())
	}
	return out
}

// isOf says what is missing until the Marketplace is ready, of this release,
// and every pod of its program runs this image.
func (m marketplace) isOf(release, image string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := m.isReady(ctx); err != nil {
			return err
		}
		object, err := m.get(ctx)
		if err != nil {
			return err
		}
		if s := object.Status; s.Version != release || s.Image != image {
			return fmt.Errorf("status: version %q, image %q, want %q, %q", s.Version, s.Image, release, image)
		}
		for _, component := range append(contract.Services(), contract.ComponentBus) {
			pods, err := m.pods(ctx, component)
			if err != nil {
				return err
			}
			for _, pod := range pods {
				if got := pod.Spec.Containers[0].Image; pod.DeletionTimestamp == nil && got != image {
					return fmt.Errorf("pod %s runs %s", pod.Name, got)
				}
			}
		}
		return nil
	}
}

// allPods are the Marketplace's pods by name: who they are, and how often they
// were restarted.
func (m marketplace) allPods(t *testing.T) map[string]string {
	t.Helper()
	list := &corev1.PodList{}
	if err := cluster.kube.List(t.Context(), list, kube.InNamespace(m.namespace), kube.MatchingLabels{
		contract.LabelMarketplace: m.name, desired.LabelManagedBy: desired.ManagedBy,
	}); err != nil {
		t.Fatal(err)
	}
	pods := map[string]string{}
	for _, pod := range list.Items {
		restarts := int32(0)
		for _, container := range pod.Status.ContainerStatuses {
			restarts += container.RestartCount
		}
		pods[pod.Name] = fmt.Sprintf("%s, %d", pod.UID, restarts)
	}
	return pods
}

// workloads are what makes the Marketplace's pods, by name: who they are, and
// how often their spec was changed.
func (m marketplace) workloads(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, list := range []kube.ObjectList{&appsv1.DeploymentList{}, &appsv1.StatefulSetList{}, &batchv1.JobList{}} {
		if err := cluster.kube.List(t.Context(), list, kube.InNamespace(m.namespace)); err != nil {
			t.Fatal(err)
		}
		if err := apimeta.EachListItem(list, func(object runtime.Object) error {
			o, err := apimeta.Accessor(object)
			if err != nil {
				return err
			}
			found[o.GetName()] = fmt.Sprintf("%s, %d", o.GetUID(), o.GetGeneration())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return found
}
