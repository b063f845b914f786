package identity

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// Revocations remembers ended sessions for as long as one of their tokens
// could still be good. It holds what one process has heard of.
type Revocations struct {
	now func() time.Time

	mu    sync.RWMutex
	ended map[uuid.UUID]time.Time // when to forget
	swept time.Time
}

// NewRevocations starts empty.
func NewRevocations(now func() time.Time) *Revocations {
	return &Revocations{now: now, ended: map[uuid.UUID]time.Time{}}
}

// Horizon is how long an ended session's tokens could still be good, and so how
// far back a starting process must read session ends. The minute is for a token
// that was signed while the end waited for its turn, and for clocks that differ.
const Horizon = AccessTokenLife + Leeway + time.Minute

// Revoke adds a session that ended at the given time.
func (r *Revocations) Revoke(session uuid.UUID, at time.Time) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[session] = at.Add(Horizon)
	if now.Sub(r.swept) < time.Minute {
		return
	}
	r.swept = now
	for id, forget := range r.ended {
		if now.After(forget) {
			delete(r.ended, id)
		}
	}
}

// IsRevoked implements Revoked.
func (r *Revocations) IsRevoked(session uuid.UUID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.ended[session]
	return ok
}
