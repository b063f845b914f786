package controllers

import (
	"testing"
	"time"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/rotation"
)

// The operator looks again when time alone changes something, and not again and
// again once that time has passed.
func TestPauseEndsWhenSomethingIsDue(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	began := now.Add(-time.Second)
	r := &Reconciler{Now: func() time.Time { return now }}
	waits := outcome{stalled: &problem{}}
	tests := map[string]struct {
		keys, again time.Time
		outcome     outcome
		min, max    time.Duration
	}{
		"nothing is due":                          {min: idlePause, max: idlePause + idlePause/10},
		"keys, in a month":                        {keys: now.AddDate(0, 1, 0), min: idlePause, max: idlePause + idlePause/10},
		"keys, soon":                              {keys: now.Add(time.Minute), min: time.Minute, max: time.Minute},
		"keys, during the look":                   {keys: now, min: firstPause, max: firstPause},
		"a migration, soon":                       {again: now.Add(10 * time.Second), outcome: waits, min: 10 * time.Second, max: 10 * time.Second},
		"a migration, during the look":            {again: now, outcome: waits, min: firstPause, max: firstPause},
		"a migration, which waits for the server": {again: now.Add(-time.Hour), outcome: waits, min: slowPause, max: slowPause + slowPause/10},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			seen := observation{at: began, rotation: &rotation.Plan{Due: tt.keys}}
			got := r.pause(&v1alpha1.Marketplace{}, seen, migration{again: tt.again}, tt.outcome)
			if got < tt.min || got > tt.max {
				t.Errorf("pause = %s, want %s to %s", got, tt.min, tt.max)
			}
		})
	}
}
