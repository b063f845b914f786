package workers

import (
	"testing"
	"testing/synctest"
)

// Nothing waits for anything else, however much there is to do, and few workers are
// kept.
func TestPool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release, done := make(chan struct{}), 0
		began := make(chan int, 100)
		p := New(2, func(n int) {
			began <- n
			<-release
		})
		for round := range 3 {
			for n := range 10 {
				p.Do(n)
			}
			synctest.Wait()
			if len(began) != 10 {
				t.Errorf("round %d: %d were begun, want 10", round, len(began))
			}
			for range 10 {
				<-began
				release <- struct{}{}
				done++
			}
			synctest.Wait()
			if n := p.idle.Load(); n != 2 {
				t.Errorf("round %d: %d are kept, want 2", round, n)
			}
		}
		p.Stop()
		p.Do(1)
		release <- struct{}{}
		p.Wait()
		if len(began) != 1 || done != 30 {
			t.Errorf("%d were begun after the stop, and %d done before", len(began), done)
		}
	})
}
