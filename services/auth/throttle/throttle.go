// Package throttle bounds attempts by key with token buckets in memory: a
// burst, and then a steady rate. It forgets keys that are at rest, and never
// holds more than a fixed number of them.
package throttle

import (
	"crypto/sha256"
	"sync"
	"time"
)

// MaxKeys bounds a Throttle's memory: about 100 bytes a key.
const MaxKeys = 100_000

// Throttle implements auth.Throttle. A bucket is one point in time, as in the
// generic cell rate algorithm (ITU-T I.371): when it will be full again. A key
// that is not held has a full bucket.
type Throttle struct {
	every time.Duration
	depth time.Duration
	max   int
	now   func() time.Time

	mu   sync.Mutex
	full map[[sha256.Size]byte]time.Time
}

// New allows burst attempts at once for a key, and one more after each every.
func New(burst int, every time.Duration, now func() time.Time) *Throttle {
	return &Throttle{
		every: every, depth: time.Duration(burst) * every, max: MaxKeys, now: now,
		full: map[[sha256.Size]byte]time.Time{},
	}
}

// Take charges one attempt. When there is none left it charges nothing, and
// says how long to wait for one.
func (t *Throttle) Take(key string) (wait time.Duration, ok bool) {
	id := sha256.Sum256([]byte(key)) // keys come from clients: of any length, and not to be kept
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	full, held := t.full[id]
	if !held || full.Before(now) {
		full = now
	}
	full = full.Add(t.every)
	if over := full.Sub(now) - t.depth; over > 0 {
		return over, false
	}
	if !held && len(t.full) >= t.max {
		t.evict(now)
	}
	t.full[id] = full
	return 0, true
}

// Return gives an attempt back.
func (t *Throttle) Return(key string) {
	id := sha256.Sum256([]byte(key))
	t.mu.Lock()
	defer t.mu.Unlock()
	full, held := t.full[id]
	if !held {
		return
	}
	full = full.Add(-t.every)
	if full.After(t.now()) {
		t.full[id] = full
	} else {
		delete(t.full, id)
	}
}

// evict makes room: it looks at a few keys, which the map's order picks by
// chance, and forgets those at rest, or else the last one seen. Filling the
// whole table to have one key forgotten costs more attempts than it gains.
func (t *Throttle) evict(now time.Time) {
	const look = 8
	seen := 0
	for id, full := range t.full {
		seen++
		if !full.After(now) || seen == look {
			delete(t.full, id)
		}
		if seen == look {
			return
		}
	}
}
