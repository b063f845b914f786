//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client"
)

// atOnce is how many users do the same thing at the same time. It stays below
// what auth queues for, as users who come one by one would.
const atOnce = 16

// all calls do for 0 to n-1, atOnce at a time, and fails the test if any failed.
func all(t *testing.T, n int, what string, do func(ctx context.Context, i int) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	errs := make([]error, n)
	slots := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := do(ctx, i); err != nil {
				errs[i] = fmt.Errorf("%d: %w", i, err)
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s: %d in %s", what, n, time.Since(began).Round(100*time.Millisecond))
}

// signUp registers n users.
func signUp(t *testing.T, api *client.Client, n int) []*client.Session {
	t.Helper()
	sessions := make([]*client.Session, n)
	all(t, n, "sign up", func(ctx context.Context, i int) (err error) {
		sessions[i], err = api.Register(ctx, fmt.Sprintf("%s@example.com", uuid.Must(uuid.NewV7())), rand.Text(), "User")
		return err
	})
	return sessions
}

// connectAll opens a socket for each of the given sessions, and closes them
// when the test ends.
func connectAll(t *testing.T, sessions []*client.Session) []*client.Socket {
	t.Helper()
	sockets := make([]*client.Socket, len(sessions))
	t.Cleanup(func() { closeAll(sockets) })
	all(t, len(sessions), "connect", func(ctx context.Context, i int) (err error) {
		sockets[i], err = sessions[i].Dial(ctx)
		return err
	})
	return sockets
}

func closeAll(sockets []*client.Socket) {
	var running sync.WaitGroup
	for _, s := range sockets {
		if s != nil {
			running.Go(s.Close)
		}
	}
	running.Wait()
}
