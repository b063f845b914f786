package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/marketplane/marketplane/api/contract"
)

// What a service serves is routed to it from outside, and nothing is routed that
// no service serves: the operator knows the paths by the contract alone.
func TestPublicPathsAreThoseThatAreServed(t *testing.T) {
	used := map[string]bool{}
	for _, service := range contract.Services() {
		for _, route := range routesOf(t, service) {
			covering := covering(route)
			if len(covering) != 1 || covering[0].Component != service {
				t.Errorf("%s serves %s, and contract.PublicPaths routes it by %+v", service, route, covering)
			}
			for _, path := range covering {
				used[path.Prefix] = true
			}
		}
	}
	for _, path := range contract.PublicPaths() {
		if !used[path.Prefix] {
			t.Errorf("contract.PublicPaths routes %s to %s, which serves nothing there", path.Prefix, path.Component)
		}
	}
}

func covering(route string) []contract.PublicPath {
	var all []contract.PublicPath
	for _, path := range contract.PublicPaths() {
		if route = strings.TrimSuffix(route, "/*"); route == path.Prefix || strings.HasPrefix(route, path.Prefix+"/") {
			all = append(all, path)
		}
	}
	return all
}

// The internal port tells, and takes no orders: whoever reaches it can read.
func TestInternalPortTakesNoOrders(t *testing.T) {
	for _, service := range contract.Services() {
		internal := assembled(t, service).internal
		for _, path := range []string{contract.PathLive, contract.PathReady, contract.PathMetrics, contract.PathLoad} {
			for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
				want := http.StatusMethodNotAllowed
				if path == contract.PathLoad && service != contract.ComponentMessaging {
					want = http.StatusNotFound
				}
				answer := httptest.NewRecorder()
				internal.ServeHTTP(answer, httptest.NewRequest(method, path, http.NoBody))
				if answer.Code != want {
					t.Errorf("%s: %s %s is answered with %d, want %d", service, method, path, answer.Code, want)
				}
			}
		}
	}
}

// assembled is a service that is put together as in production, and not
// started.
func assembled(t *testing.T, service string) *platform {
	t.Helper()
	signingDir, _, err := devKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	add := map[string]func(*platform) error{
		contract.ComponentAuth:      func(p *platform) error { return addAuth(p, authConfig{signingDir: signingDir}) },
		contract.ComponentTasks:     addTasks,
		contract.ComponentMessaging: func(p *platform) error { return addMessaging(p, messagingConfig{}) },
	}[service]
	p, err := newProcess(invocation{stderr: io.Discard}, processConfig{
		installation: "test", instance: "test", logLevel: "error", issuer: "http://auth",
		busURLs: []string{"nats://127.0.0.1:1"}, busToken: "unused",
	}, service)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := p.connectBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	pf, err := newPlatform(t.Context(), p, service, "postgres://nobody@127.0.0.1:1/none", conn, newSessions("http://auth", nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pf.pool.Close)
	if err := add(pf); err != nil {
		t.Fatal(err)
	}
	return pf
}

// routesOf returns the patterns of what a service serves on its public port.
func routesOf(t *testing.T, service string) []string {
	t.Helper()
	var routes []string
	err := chi.Walk(assembled(t, service).public, func(_, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) == 0 {
		t.Fatalf("%s serves nothing", service)
	}
	return routes
}
