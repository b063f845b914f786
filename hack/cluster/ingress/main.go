// Command ingress is the local cluster's ingress proxy: Caddy, told what to
// serve by the Ingress objects of one class, which it follows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/proxy"
	"github.com/marketplane/marketplane/hack/cluster/ingress/internal/watch"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ingress:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	class, address, probes string
	listen                 proxy.Listen
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("ingress", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.class, "class", "local", "serve the Ingress objects of this `class`")
	f.StringVar(&o.address, "address", "", "the `IP` at which clients reach this proxy, for the objects' status")
	f.StringVar(&o.listen.HTTP, "http", ":8080", "listen here for HTTP, a `HOST:PORT`")
	f.StringVar(&o.listen.HTTPS, "https", ":8443", "listen here for HTTPS, a `HOST:PORT`")
	f.StringVar(&o.probes, "probes", ":8081", "answer /healthz and /readyz here, a `HOST:PORT`")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if net.ParseIP(o.address) == nil {
		return options{}, fmt.Errorf("--address %q: need the IP at which clients reach this proxy", o.address)
	}
	return o, nil
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	config, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	cluster, err := watch.New(config, o.class)
	if err != nil {
		return err
	}
	var ready atomic.Bool
	probes, err := startProbes(ctx, o.probes, &ready)
	if err != nil {
		return err
	}
	defer probes()
	defer cluster.Start(ctx)()
	loop := &loop{cluster: cluster, listen: o.listen, address: o.address, ready: &ready, log: log}
	return errors.Join(loop.run(ctx), proxy.Stop())
}

// startProbes answers the kubelet until the returned function is called.
func startProbes(ctx context.Context, address string, ready *atomic.Bool) (stop func(), err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "nothing is configured yet", http.StatusServiceUnavailable)
		}
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for probes: %w", err)
	}
	const limit = 5 * time.Second
	server := &http.Server{Handler: mux, ReadHeaderTimeout: limit, WriteTimeout: limit}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	return func() {
		_ = server.Close()
		<-done
	}, nil
}
