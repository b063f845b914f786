//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/client"
)

// walkThrough runs `marketplane smoke` once, as its own process.
func walkThrough(ctx context.Context, urls client.URLs) (string, error) {
	return walkThroughWith(ctx, cluster.program, urls)
}

// walkThroughWith does it with the program of some release.
func walkThroughWith(ctx context.Context, program string, urls client.URLs) (string, error) {
	cmd := exec.CommandContext(ctx, program, "smoke",
		"--auth-url", urls.Auth, "--tasks-url", urls.Tasks, "--messaging-url", urls.Messaging)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// stories are walks through a deployment, one after the other without a pause,
// so that whatever happens, it happens during one of them.
type stories struct {
	mu      sync.Mutex
	passed  int
	longest time.Duration
	failed  error
	out     string // of the walk that failed

	first  chan struct{} // closed when the first one has passed
	stop   chan struct{}
	done   chan struct{}
	finish sync.Once
}

// tellStories begins to walk, and returns when the first walk has passed.
func tellStories(t *testing.T, urls client.URLs) *stories {
	t.Helper()
	return tellStoriesWith(t, cluster.program, urls)
}

// tellStoriesWith does it with the program of some release.
func tellStoriesWith(t *testing.T, program string, urls client.URLs) *stories {
	t.Helper()
	s := &stories{first: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run(t.Context(), program, urls)
	t.Cleanup(func() { _, _ = s.end() })
	select {
	case <-s.first:
	case <-s.done:
		t.Fatalf("the first walk failed: %v\n%s", s.failed, s.out)
	}
	return s
}

func (s *stories) run(ctx context.Context, program string, urls client.URLs) {
	defer close(s.done)
	for {
		began := time.Now()
		out, err := walkThroughWith(ctx, program, urls)
		s.mu.Lock()
		if err != nil {
			s.failed, s.out = err, out
			s.mu.Unlock()
			return
		}
		s.passed++
		s.longest = max(s.longest, time.Since(began))
		if s.passed == 1 {
			s.longest = 0 // it warmed things up, and nothing happened to it
			close(s.first)
		}
		s.mu.Unlock()
		select {
		case <-s.stop:
			return
		default:
		}
	}
}

// another waits until a walk that begins from now on has passed.
func (s *stories) another(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	want := s.passed + 2 // the one that is under way, and the next
	s.mu.Unlock()
	eventually(t, 4*time.Minute, "one more walk has passed", func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failed == nil && s.passed < want {
			return fmt.Errorf("%d walks passed", s.passed)
		}
		return nil // a failure is for end to tell
	})
}

// end waits for the walk that is under way. It returns what to say about all,
// and an error if any failed.
func (s *stories) end() (string, error) {
	s.finish.Do(func() { close(s.stop) })
	<-s.done
	if s.failed != nil {
		return "", fmt.Errorf("walk %d failed: %w\n%s", s.passed+1, s.failed, s.out)
	}
	return fmt.Sprintf("%d walks passed, the longest after the first took %s", s.passed, s.longest.Round(time.Millisecond)), nil
}
