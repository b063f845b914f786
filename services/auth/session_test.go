package auth

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// A presentation of a refresh token, some time after the log-in.
type presentation struct {
	at      time.Duration
	counter int64
	want    outcome
}

func TestPresent(t *testing.T) {
	const minute, day = time.Minute, 24 * time.Hour
	tests := map[string]struct {
		steps      []presentation
		wantReason string
	}{
		"each token in turn": {
			steps: []presentation{{minute, 1, rotated}, {2 * minute, 2, rotated}, {3 * minute, 3, rotated}},
		},
		"several at once": {
			steps: []presentation{{minute, 1, rotated}, {minute, 1, repeated}, {minute, 1, repeated}, {2 * minute, 2, rotated}},
		},
		"the answer was lost, and the client slept for days": {
			steps: []presentation{{minute, 1, rotated}, {10 * day, 1, repeated}, {10 * day, 2, rotated}},
		},
		"two steps behind is theft, at once too": {
			steps:      []presentation{{minute, 1, rotated}, {minute, 2, rotated}, {minute, 1, reused}},
			wantReason: ReasonReused,
		},
		"after theft the newest token is worth nothing": {
			steps:      []presentation{{minute, 1, rotated}, {minute, 2, rotated}, {minute, 1, reused}, {minute, 3, ended}, {minute, 1, ended}},
			wantReason: ReasonReused,
		},
		"idle for too long": {
			steps:      []presentation{{SessionIdle - 1, 1, rotated}, {2*SessionIdle - 1, 2, expired}, {2 * SessionIdle, 2, ended}},
			wantReason: ReasonExpired,
		},
		"a repeat is no use that keeps a session alive": {
			steps:      []presentation{{0, 1, rotated}, {SessionIdle - 1, 1, repeated}, {SessionIdle, 2, expired}},
			wantReason: ReasonExpired,
		},
		"the maximum age, however busy": {
			steps: []presentation{
				{10 * day, 1, rotated}, {20 * day, 2, rotated}, {SessionLife - 1, 3, rotated}, {SessionLife, 4, expired},
			},
			wantReason: ReasonExpired,
		},
		"the database lost the last rotation": {
			steps: []presentation{{minute, 2, rotated}, {2 * minute, 2, repeated}, {2 * minute, 3, rotated}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			session, err := newSession(uuid.New(), start)
			if err != nil {
				t.Fatal(err)
			}
			var told []events.Event
			for i, step := range tt.steps {
				got, news := session.present(step.counter, start.Add(step.at))
				if got != step.want {
					t.Fatalf("step %d: token %d = %s, want %s", i, step.counter, got, step.want)
				}
				told = append(told, news...)
			}
			var want []events.Event
			if tt.wantReason != "" {
				want = []events.Event{{Subject: session.ID, Data: events.SessionEnded{
					SessionID: session.ID, UserID: session.UserID, Reason: tt.wantReason,
				}}}
			}
			if diff := cmp.Diff(want, told); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if session.EndReason != tt.wantReason {
				t.Errorf("reason = %q, want %q", session.EndReason, tt.wantReason)
			}
		})
	}
}

// holder is one who refreshes with what it has.
type holder struct{ counter int64 }

func (h *holder) refresh(s *Session, now time.Time) outcome {
	result, _ := s.present(h.counter, now)
	if result == rotated || result == repeated {
		h.counter = s.Counter
	}
	return result
}

// A thief who keeps in step with the owner, always one behind, is found out
// within hours all the same; so is one who only ever repeats while the owner
// sleeps.
func TestThiefInStepIsFoundOut(t *testing.T) {
	tests := map[string]struct{ ownerSleeps bool }{
		"in step with the owner":  {},
		"while the owner is away": {ownerSleeps: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			session, err := newSession(uuid.New(), start)
			if err != nil {
				t.Fatal(err)
			}
			owner, thief := &holder{1}, &holder{1}
			now := start
			owner.refresh(&session, now)
			for round := range 2 * maxLateRepeats {
				now = now.Add(2 * time.Minute)
				stolen := *thief
				if thief.refresh(&session, now) == reused {
					if round > maxLateRepeats {
						t.Errorf("found out in round %d, later than promised", round)
					}
					return
				}
				if tt.ownerSleeps {
					*thief = stolen // it never moves on, or the owner's return would tell
					continue
				}
				now = now.Add(3 * time.Minute)
				if got := owner.refresh(&session, now); got != rotated {
					t.Fatalf("round %d: the owner's refresh = %s", round, got)
				}
			}
			t.Error("the thief was never found out")
		})
	}
}

// A client that loses every other answer must stay logged in for the whole
// life of its session.
func TestLossyClientStaysLoggedIn(t *testing.T) {
	session, err := newSession(uuid.New(), start)
	if err != nil {
		t.Fatal(err)
	}
	client := &holder{1}
	lost := false
	for now := start.Add(5 * time.Minute); now.Before(start.Add(SessionLife)); now = now.Add(5 * time.Minute) {
		if lost = !lost; lost {
			if result, _ := session.present(client.counter, now); result != rotated {
				t.Fatalf("at %s: %s", now.Sub(start), result)
			}
			now = now.Add(30 * time.Second) // the client's timeout
		}
		if result := client.refresh(&session, now); result != rotated && result != repeated {
			t.Fatalf("at %s: %s", now.Sub(start), result)
		}
	}
}
