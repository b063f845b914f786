package auth

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
)

const (
	// SessionLife is how long a session lasts from its log-in on, however much it
	// is used.
	SessionLife = 30 * 24 * time.Hour
	// SessionIdle is how long it lasts without a refresh.
	SessionIdle = 14 * 24 * time.Hour
	// refreshGrace is how long after a token was given out the one before it may
	// come again without being counted: refreshes at the same time, and retries.
	refreshGrace = 10 * time.Second
	// maxLateRepeats bounds the ones that come later, over rotations that had one
	// each; see Session.present.
	maxLateRepeats = 20
)

// Why sessions end; part of the event.
const (
	ReasonLoggedOut = "logged_out"
	ReasonReused    = "refresh_token_reused"
	ReasonExpired   = "expired"
)

// Session is one log-in of a user. Its refresh tokens are numbered; only the
// number is kept, since each can be made again from it (see refreshToken).
type Session struct {
	ID     uuid.UUID
	UserID uuid.UUID
	// Counter is the number of the newest refresh token.
	Counter int64
	// Secret is the session's own part of what authenticates its tokens.
	Secret [32]byte
	// CreatedAt is the log-in; RotatedAt is when the newest token was first given
	// out, RepeatedAt when it was last given out again later than the grace.
	CreatedAt  time.Time
	RotatedAt  time.Time
	RepeatedAt time.Time
	// LateRepeats counts those, since the last token that needed none.
	LateRepeats int
	// ExpiresAt moves with every rotation, up to SessionLife.
	ExpiresAt time.Time
	// EndedAt is zero while the session lasts.
	EndedAt   time.Time
	EndReason string
}

func newSession(user uuid.UUID, now time.Time) (Session, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Session{}, fmt.Errorf("make a session id: %w", err)
	}
	s := Session{ID: id, UserID: user, Counter: 1, CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(SessionIdle)}
	_, _ = rand.Read(s.Secret[:]) // never fails: crypto/rand
	return s, nil
}

// outcome is what comes of a presented refresh token. Its values are the
// results that metrics show.
type outcome string

const (
	rotated  outcome = "rotated"
	repeated outcome = "repeated"
	reused   outcome = ReasonReused
	ended    outcome = "session_ended"
	expired  outcome = "session_expired"
)

// present decides about an authentic refresh token by its number, and changes
// the session accordingly. It must run under the session's lock: two clients
// that check first and count later would both rotate.
//
//	newest             -> rotate: the next number, once
//	one before it      -> repeat: the newest again. It was never presented, or it
//	                      would not be the newest, so the answer that carried it
//	                      may be lost, however long ago; or several refreshed at once
//	older              -> reuse: two hold the session, and one of them stole it
//
// A thief who always stays one behind would never be caught by that alone.
// So repeats outside of refreshGrace are counted until a rotation that had
// none, and maxLateRepeats of them are reuse too. A client whose network eats
// answers recovers in between; two who share a session in step never do.
//
// A number above the newest is ours too, since nobody else can make it: the
// database came back without its last writes. It counts as the newest.
func (s *Session) present(counter int64, now time.Time) (outcome, []events.Event) {
	switch {
	case !s.EndedAt.IsZero():
		return ended, nil
	case !now.Before(s.ExpiresAt):
		return expired, s.end(ReasonExpired, now)
	case counter >= s.Counter:
		if s.RepeatedAt.IsZero() {
			s.LateRepeats = 0
		}
		s.Counter = counter + 1
		s.RotatedAt, s.RepeatedAt = now, time.Time{}
		s.ExpiresAt = earliest(s.CreatedAt.Add(SessionLife), now.Add(SessionIdle))
		return rotated, nil
	case counter == s.Counter-1:
		given := s.RotatedAt
		if !s.RepeatedAt.IsZero() {
			given = s.RepeatedAt
		}
		if now.Sub(given) <= refreshGrace {
			return repeated, nil
		}
		s.RepeatedAt = now
		s.LateRepeats++
		if s.LateRepeats <= maxLateRepeats {
			return repeated, nil
		}
	}
	return reused, s.end(ReasonReused, now)
}

// end ends the session, once.
func (s *Session) end(reason string, now time.Time) []events.Event {
	if !s.EndedAt.IsZero() {
		return nil
	}
	s.EndedAt, s.EndReason = now, reason
	return []events.Event{{
		Subject: s.ID,
		Data:    events.SessionEnded{SessionID: s.ID, UserID: s.UserID, Reason: reason},
	}}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
