package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/marketplane/marketplane/api/contract"
)

// What a service serves is routed to it from outside, and nothing is routed that
// no service serves: the operator knows the paths by the contract alone.
func TestPublicPathsAreThoseThatAreServed(t *testing.T) {
	signingDir, _, err := devKeys(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	adds := map[string]func(*platform) error{
		contract.ComponentAuth:      func(p *platform) error { return addAuth(p, authConfig{signingDir: signingDir}) },
		contract.ComponentTasks:     addTasks,
		contract.ComponentMessaging: func(p *platform) error { return addMessaging(p, nil) },
	}
	// Socket.IO clients find messaging at this path, which is theirs.
	used := map[string]bool{"/socket.io": true}
	for service, add := range adds {
		for _, route := range routesOf(t, service, add) {
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
		if route == path.Prefix || strings.HasPrefix(route, path.Prefix+"/") {
			all = append(all, path)
		}
	}
	return all
}

// routesOf returns the patterns of what a service serves on its public port. It
// is put together as in production, and not started.
func routesOf(t *testing.T, service string, add func(*platform) error) []string {
	t.Helper()
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
	var routes []string
	err = chi.Walk(p.router, func(_, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
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
