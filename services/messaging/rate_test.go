package messaging

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestBucketLetsBurstsAndThenTheRateThrough(t *testing.T) {
	t.Parallel()
	rate := Rate{PerSecond: 10, Burst: 3}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b Bucket
	for _, step := range []struct {
		at       time.Duration
		wantWait time.Duration
	}{
		{0, 0},
		{0, 0},
		{0, 0},
		{0, 100 * time.Millisecond},
		{60 * time.Millisecond, 40 * time.Millisecond},
		{100 * time.Millisecond, 0},
		{100 * time.Millisecond, 100 * time.Millisecond},
		{time.Minute, 0},
		{time.Minute, 0},
		{time.Minute, 0},
		{time.Minute, 100 * time.Millisecond},
	} {
		if wait := b.Take(rate, start.Add(step.at)); wait != step.wantWait {
			t.Errorf("at %s: wait %s, want %s", step.at, wait, step.wantWait)
		}
	}
}

func TestLimiterForgetsFullBuckets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := NewLimiter[uuid.UUID](Rate{PerSecond: 1, Burst: 1}, func() time.Time { return now })
	one, other := uuid.New(), uuid.New()
	if l.Take(one) != 0 || l.Take(other) != 0 {
		t.Error("users share a bucket")
	}
	if l.Take(one) == 0 {
		t.Error("no limit")
	}
	now = now.Add(2 * time.Minute)
	if l.Take(one) != 0 || len(l.buckets) != 1 {
		t.Errorf("%d buckets are kept, want 1", len(l.buckets))
	}
}
