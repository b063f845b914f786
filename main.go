// Command marketplane-operator keeps Marketplaces true. This file is wiring
// only: see controllers for what it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers"
	"github.com/marketplane/marketplane/controllers/load"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// name is the operator's name in Events, field management and leases.
const name = "marketplane-operator"

// envImage is the one environment variable that the operator reads: in a
// Deployment its value can be derived from the image of the operator's own
// container, wherever that comes from. The flag wins over it.
const envImage = "MARKETPLANE_IMAGE"

// How fast the operator may talk to the API server. The defaults of client-go
// (5 requests a second) would make hundreds of Marketplaces wait for minutes.
const (
	queriesPerSecond = 100
	queryBurst       = 200
)

// garbagePercent is how much garbage may lie beside what is in use before it is
// collected, as GOGC says, which wins over it. The operator has more processor
// time to spare than memory: most of it holds the caches, which only grow.
const garbagePercent = 50

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// config is what the operator was started with.
type config struct {
	image             string
	previousImage     string
	postgresImage     string
	metricsAddress    string
	probeAddress      string
	profileAddress    string
	leaderElect       bool
	electionID        string
	electionNamespace string
	namespace         string
	watchNamespaces   []string
	logLevel          slog.Level
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	var (
		c          config
		namespaces string
	)
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.image, "image", getenv(envImage), "image of the services; by default that of "+envImage)
	flags.StringVar(&c.previousImage, "previous-image", "", "image of the services of release "+contract.PreviousRelease+
		"; by default what a Marketplace ran it from before, else that of --image with the tag "+strings.TrimPrefix(contract.PreviousRelease, "v"))
	flags.StringVar(&c.postgresImage, "postgres-image", "postgres:17", "image of embedded databases that name no other")
	flags.StringVar(&c.metricsAddress, "metrics-bind-address", ":8080", "address of the metrics, over plain HTTP; 0 for none")
	flags.StringVar(&c.probeAddress, "health-probe-bind-address", ":8081", "address of the probes")
	flags.StringVar(&c.profileAddress, "pprof-bind-address", "0", "address of Go's profiles; 0 for none")
	flags.BoolVar(&c.leaderElect, "leader-elect", false, "let one of several operators work at a time")
	flags.StringVar(&c.electionID, "leader-election-id", name, "name of the lease; operators that look after different namespaces need different ones")
	flags.StringVar(&c.electionNamespace, "leader-election-namespace", "", "namespace of the lease; by default the operator's own")
	flags.StringVar(&c.namespace, "namespace", "", "the operator's own namespace, which NetworkPolicies admit to the services' internal port; by default that of its service account, and everyone is admitted where there is none")
	flags.StringVar(&namespaces, "watch-namespaces", "", "comma-separated namespaces to look after; by default all")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if c.logLevel < slog.LevelDebug {
		// From there on the Kubernetes client logs what it reads and writes, Secrets
		// included.
		return c, fmt.Errorf("--log-level=%s is more than debug, and would log Secrets", c.logLevel)
	}
	if c.image == "" {
		return c, fmt.Errorf("the image of the services is not known: set --image or %s", envImage)
	}
	for ns := range strings.SplitSeq(namespaces, ",") {
		if ns = strings.TrimSpace(ns); ns != "" {
			c.watchNamespaces = append(c.watchNamespaces, ns)
		}
	}
	return c, nil
}

// commit is what the program was built from, where the build stamped that.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return setting.Value
			}
		}
	}
	return "unknown"
}

// run is the whole program: it returns when ctx ends or something it cannot
// work without fails.
func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	c, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	log := logr.FromSlogHandler(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: c.logLevel}))
	ctrl.SetLogger(log)
	klog.SetLogger(log)

	kubernetes, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	if err := awaitAPIServer(ctx, kubernetes, c.probeAddress, log); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // It is told to stop.
		}
		return fmt.Errorf("wait for the API server: %w", err)
	}
	mgr, err := newManager(kubernetes, c)
	if err != nil {
		return err
	}
	if c.namespace == "" {
		if c.namespace, err = ownNamespace(serviceAccountNamespace); err != nil {
			return err
		}
	}
	// The registry that the manager serves is the library's own.
	registry := ctrlmetrics.Registry
	reconciler := &controllers.Reconciler{
		Client:   mgr.GetClient(),
		Live:     mgr.GetAPIReader(),
		Recorder: mgr.GetEventRecorder(name),
		Load:     load.NewHTTPReader(contract.InternalPort),
		Changes:  metrics.NewChanges(registry),
		Now:      time.Now,
		Config: controllers.Config{
			Release:         contract.Release,
			Image:           c.image,
			PreviousRelease: contract.PreviousRelease,
			PreviousImage:   c.previousImage,
			PostgresImage:   c.postgresImage,
			Namespace:       c.namespace,
		},
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return err
	}
	registry.MustRegister(metrics.NewMarketplaces(mgr.GetClient(), mgr.Elected(), log.WithName("metrics")))
	log.Info("starting", "release", contract.Release, "commit", commit(), "image", c.image)
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

// serviceAccountNamespace is where a pod with a service account finds its own
// namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace reads the operator's namespace; empty outside a cluster.
func ownNamespace(path string) (string, error) {
	content, err := os.ReadFile(path) //nolint:gosec // The path is the constant above, or a test's.
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the operator's namespace: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

func newManager(kubernetes *rest.Config, c config) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	kubernetes.QPS, kubernetes.Burst = queriesPerSecond, queryBurst
	kubernetes.UserAgent = name + "/" + contract.Release

	mgr, err := ctrl.NewManager(kubernetes, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(c.watchNamespaces),
		Metrics:                       metricsserver.Options{BindAddress: c.metricsAddress},
		HealthProbeBindAddress:        c.probeAddress,
		PprofBindAddress:              c.profileAddress,
		LeaderElection:                c.leaderElect,
		LeaderElectionID:              c.electionID,
		LeaderElectionNamespace:       c.electionNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	for _, add := range []func(string, healthz.Checker) error{mgr.AddHealthzCheck, mgr.AddReadyzCheck} {
		if err := add("ping", healthz.Ping); err != nil {
			return nil, fmt.Errorf("set up probes: %w", err)
		}
	}
	return mgr, nil
}
