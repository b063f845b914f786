package auth

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
)

// sweepStore has sessions that have expired and sessions that ended long ago.
type sweepStore struct {
	Store

	mu      sync.Mutex
	expired []Session
	old     int
	err     error
}

func (s *sweepStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sweepStore) ChangeExpired(_ context.Context, _ time.Time, limit int, decide func(*Session) []events.Event) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	n := min(limit, len(s.expired))
	for i := range s.expired[:n] {
		decide(&s.expired[i])
	}
	s.expired = s.expired[n:]
	return n, nil
}

func (s *sweepStore) DeleteEnded(_ context.Context, _ time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(limit, s.old)
	s.old -= n
	return n, nil
}

// endMeter counts ends by reason.
type endMeter map[string]int

func (endMeter) Registered(string)                    {}
func (endMeter) LoggedIn(string)                      {}
func (endMeter) Refreshed(string)                     {}
func (m endMeter) SessionsEnded(reason string, n int) { m[reason] += n }

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &sweepStore{old: 2*sweepBatch + 1}
		store.fail(errors.New("the database is away"))
		for range sweepBatch + 1 {
			session, err := newSession(uuid.New(), time.Now().Add(-SessionIdle))
			if err != nil {
				t.Fatal(err)
			}
			store.expired = append(store.expired, session)
		}
		all := store.expired
		meter, woken := endMeter{}, 0
		svc := NewService(Options{Store: store, Meter: meter, Wake: func() { woken++ }, Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- svc.Sweep(ctx, slog.New(slog.DiscardHandler)) }()

		<-time.After(2 * sweepInterval) // the bubble's clock: no real time passes
		synctest.Wait()
		if store.old != 0 {
			t.Errorf("%d old sessions are left; one sweep's failure held up the other", store.old)
		}
		if len(meter) != 0 {
			t.Errorf("ended while the database was away: %v", meter)
		}
		store.fail(nil)
		<-time.After(2 * sweepInterval)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the sweep ended with %v", err)
		}
		if diff := cmp.Diff(endMeter{ReasonExpired: sweepBatch + 1}, meter); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
		if woken != 2 {
			t.Errorf("readers were woken %d times, want once for each batch", woken)
		}
		for _, session := range all {
			if session.EndReason != ReasonExpired || session.EndedAt.IsZero() {
				t.Fatalf("a session did not end: %+v", session)
			}
		}
	})
}
