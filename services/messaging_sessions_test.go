package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
	"github.com/marketplane/marketplane/services/internal/eventlog"
)

// The sockets of a session that ends are closed within a second: its event wakes
// every process. Without the bus they are when the process next looks by itself.
func TestEndedSessionsAreClosedInTime(t *testing.T) {
	// Not parallel: it takes the time, and what else is written on the server of
	// the tests meanwhile holds events back.
	for name, tt := range map[string]struct {
		env map[string]string
		// quickest bounds the quickest end, and usual the median: a machine that is
		// busy may hold up one, or another.
		quickest, usual time.Duration
	}{
		// Each session ends when the process has just looked, because of the one
		// before: if nothing woke it, each would wait for nearly a whole interval.
		"with the bus": {quickest: eventlog.PollInterval / 2, usual: time.Second},
		// An interval until the next look, and two seconds for that look and the close.
		"without the bus": {
			env:      map[string]string{contract.EnvBusURL: "nats://127.0.0.1:1"},
			quickest: eventlog.PollInterval + 2*time.Second, usual: eventlog.PollInterval + 2*time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{contract.EnvDrainFloor: "0s", contract.EnvDrainWindow: "0s"}
			for name, value := range tt.env {
				env[name] = value
			}
			p := startMessaging(t, env)
			const sessions = 5
			var took []time.Duration
			for range sessions {
				user, session := uuid.New(), uuid.New()
				_, got := p.connect(user, session)
				began := p.append(events.Event{Subject: session, Data: events.SessionEnded{SessionID: session, UserID: user, Reason: "logged_out"}})
				p.want(got, "closed 4001")
				took = append(took, time.Since(began))
			}
			t.Logf("from the commit to the close: %v", took)
			slices.Sort(took)
			if took[0] > tt.quickest {
				t.Errorf("the quickest end took %s, want %s at most", took[0], tt.quickest)
			}
			if usual := took[sessions/2]; usual > tt.usual {
				t.Errorf("usually an end took %s, want %s at most", usual, tt.usual)
			}
			p.terminate()
			if err := <-p.ended; err != nil {
				t.Errorf("the process ended with %v", err)
			}
		})
	}
}
