package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

const (
	// apiServerTimeout bounds one question at the start.
	apiServerTimeout = 5 * time.Second
	// apiServerPause is between two of them.
	apiServerPause = 2 * time.Second
	// apiServerReminder is how often it is logged that there is no answer.
	apiServerReminder = 30 * time.Second
)

// awaitAPIServer waits until the API server answers, whatever it says: without
// it nothing can be set up. Meanwhile the probes tell that the program lives and
// is not ready. An operator that ended instead would be started again and again,
// after longer and longer pauses, and come late when the server is back.
func awaitAPIServer(ctx context.Context, kubernetes *rest.Config, probeAddress string, log logr.Logger) error {
	kubernetes = rest.CopyConfig(kubernetes)
	kubernetes.Timeout = apiServerTimeout
	client, err := discovery.NewDiscoveryClientForConfig(kubernetes)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	err = askAPIServer(client)
	if err == nil {
		return nil
	}
	stop, errProbes := serveProbes(ctx, probeAddress)
	if errProbes != nil {
		return errProbes
	}
	defer stop()
	log.Error(err, "the API server does not answer; waiting for it")
	told := time.Now()
	return wait.PollUntilContextCancel(ctx, apiServerPause, false, func(context.Context) (bool, error) {
		err := askAPIServer(client)
		if err != nil && time.Since(told) >= apiServerReminder {
			log.Error(err, "the API server does not answer still")
			told = time.Now()
		}
		return err == nil, nil
	})
}

func askAPIServer(client discovery.ServerVersionInterface) error {
	_, err := client.ServerVersion()
	if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
		// It answers; what is wrong is told by whatever needs the right.
		return nil
	}
	return err
}

// serveProbes answers the kubelet until stop is called.
func serveProbes(ctx context.Context, address string) (stop func(), err error) {
	if address == "" || address == "0" {
		return func() {}, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve the probes: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the API server does not answer", http.StatusServiceUnavailable)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: apiServerTimeout}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			_ = listener.Close()
		}
	}, nil
}
