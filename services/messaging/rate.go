package messaging

import (
	"sync"
	"time"
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

// maxBuckets bounds a Limiter. Beyond it, those who are new are not limited:
// other bounds are for floods.
const maxBuckets = 100_000

// Limiter has a bucket for each key, such as a user, that was active lately.
type Limiter[K comparable] struct {
	rate Rate
	now  func() time.Time

	mu      sync.Mutex
	buckets map[K]Bucket
	swept   time.Time
}

// NewLimiter starts with full buckets.
func NewLimiter[K comparable](rate Rate, now func() time.Time) *Limiter[K] {
	return &Limiter[K]{rate: rate, now: now, buckets: map[K]Bucket{}}
}

// Take takes one of the key's tokens, or says how long until there is one.
func (l *Limiter[K]) Take(key K) (wait time.Duration) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) > time.Minute {
		l.swept = now
		for key, bucket := range l.buckets {
			if bucket.full.Before(now) { // as good as a new one
				delete(l.buckets, key)
			}
		}
	}
	bucket, known := l.buckets[key]
	if !known && len(l.buckets) >= maxBuckets {
		return 0
	}
	wait = bucket.Take(l.rate, now)
	l.buckets[key] = bucket
	return wait
}
