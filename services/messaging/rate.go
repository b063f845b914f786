package messaging

import (
	"sync"
	"time"

	"github.com/google/uuid"
)

// Rate is a token bucket's: PerSecond tokens come in, at most Burst are kept.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Bucket is a token bucket in one time stamp: the generic cell rate algorithm
// (ITU-T I.371). The zero Bucket is full. It is not safe for concurrent use.
type Bucket struct{ full time.Time }

// Take takes a token, or says how long until there is one.
func (b *Bucket) Take(rate Rate, now time.Time) (wait time.Duration) {
	token := time.Duration(float64(time.Second) / rate.PerSecond)
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(token)
	if wait = full.Sub(now) - time.Duration(rate.Burst)*token; wait > 0 {
		return wait
	}
	b.full = full
	return 0
}

// Limiter has a bucket for each user that sent lately.
type Limiter struct {
	rate Rate
	now  func() time.Time

	mu      sync.Mutex
	buckets map[uuid.UUID]Bucket
	swept   time.Time
}

// NewLimiter starts with full buckets.
func NewLimiter(rate Rate, now func() time.Time) *Limiter {
	return &Limiter{rate: rate, now: now, buckets: map[uuid.UUID]Bucket{}}
}

// Take takes one of the user's tokens, or says how long until there is one.
func (l *Limiter) Take(user uuid.UUID) (wait time.Duration) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		for id, bucket := range l.buckets {
			if bucket.full.Before(now) { // as good as a new one
				delete(l.buckets, id)
			}
		}
	}
	bucket := l.buckets[user]
	wait = bucket.Take(l.rate, now)
	l.buckets[user] = bucket
	return wait
}
