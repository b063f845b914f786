// Package operator is the program that keeps Marketplaces true: its flags, its
// start, its rights in its own namespace. It is wiring only; package controllers
// is what it does.
package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
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

// Name is the operator's in Events, leases and what it prints.
const Name = "marketplane-operator"

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

// Run is the whole program: it returns when ctx ends or something it cannot
// work without fails. The error is flag.ErrHelp if it was asked for help.
func Run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
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
		Recorder: mgr.GetEventRecorder(Name),
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
	kubernetes.UserAgent = Name + "/" + contract.Release

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
