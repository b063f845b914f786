//go:build e2e

// Package e2e tells, on a real cluster, the stories that users of Marketplane
// would tell. Every journey has a namespace and a Marketplace of its own. The
// machine that runs it must reach the cluster's Services and pods by their
// addresses, and the operator must be installed in marketplane-system.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// systemNamespace is where the operator runs.
const systemNamespace = "marketplane-system"

// cluster is what all journeys share, which run one after the other.
var cluster struct {
	config    *rest.Config
	kube      kube.WithWatch
	logs      kubernetes.Interface
	metadata  metadata.Interface
	discovery discovery.DiscoveryInterface
	// program is the path of the services' program, built from this checkout.
	program string
	// left are the namespaces of journeys that have ended.
	left []*corev1.Namespace
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "marketplane-e2e-")
	if err == nil {
		err = connect(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
		if err := leftNothing(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// connect builds the program into dir, and the clients of the cluster that
// KUBECONFIG names.
func connect(dir string) error {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		return errors.New("KUBECONFIG must name the cluster to test on; 'make kubeconfig' prints that of the local one")
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return fmt.Errorf("read KUBECONFIG: %w", err)
	}
	config.QPS, config.Burst = 100, 200
	config.WarningHandler = rest.NoWarnings{} // listing every kind touches those on their way out
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	cluster.config = config
	var errs [4]error
	cluster.kube, errs[0] = kube.NewWithWatch(config, kube.Options{Scheme: scheme})
	cluster.logs, errs[1] = kubernetes.NewForConfig(config)
	cluster.metadata, errs[2] = metadata.NewForConfig(config)
	cluster.discovery, errs[3] = discovery.NewDiscoveryClientForConfig(config)
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("make clients of the cluster: %w", err)
	}
	cluster.program = filepath.Join(dir, "marketplane")
	build := exec.Command("go", "build", "-o", cluster.program, "../../services")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// eventually waits until check finds nothing missing any more, and fails the
// test with what was missing last.
func eventually(t *testing.T, within time.Duration, what string, check func(ctx context.Context) error) {
	t.Helper()
	started := time.Now()
	missing := poll(t.Context(), within, check)
	took := time.Since(started).Round(100 * time.Millisecond)
	if missing != nil {
		t.Fatalf("%s: not after %s: %v", what, took, missing)
	}
	t.Logf("%s: after %s", what, took)
}

// poll returns nil once check does, or what was missing when the time was up.
func poll(ctx context.Context, within time.Duration, check func(ctx context.Context) error) error {
	var missing error
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		found := check(ctx)
		if ctx.Err() == nil || missing == nil {
			missing = found // past the deadline check tells of nothing but that
		}
		return found == nil, nil
	})
	if err == nil {
		return nil
	}
	return errors.Join(missing, err)
}
