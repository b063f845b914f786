package hub

import (
	"testing"
	"time"
)

func TestPaceIsEvenAndFitsTheWindow(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		total    int
		window   time.Duration
		wantSpan time.Duration
	}{
		"default window":  {total: 10_000, window: 120 * time.Second, wantSpan: 110 * time.Second},
		"short form":      {total: 600, window: 12 * time.Second, wantSpan: 9 * time.Second},
		"few connections": {total: 3, window: 12 * time.Second, wantSpan: 9 * time.Second},
		"nobody":          {window: 12 * time.Second, wantSpan: 9 * time.Second},
		"no window":       {total: 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPace(tt.total, tt.window)
			if p.span != tt.wantSpan || p.span+p.patience != tt.window {
				t.Errorf("span %s and patience %s of %s", p.span, p.patience, tt.window)
			}
			if p.step() <= 0 {
				t.Fatalf("step %s", p.step())
			}
			told := 0
			for at := time.Duration(0); at < p.span; at += p.step() {
				due := p.due(at)
				// Never more at once than what one step's share is, and one.
				if share := int(float64(tt.total)*float64(p.step())/float64(p.span)) + 2; due-told > share {
					t.Errorf("%d are told at %s, %d before: more than %d at once", due, at, told, share)
				}
				told = due
			}
			if got := p.due(p.span); got != tt.total {
				t.Errorf("%d of %d are told at the end", got, tt.total)
			}
		})
	}
}
