package budget_test

import (
	"sync"
	"testing"

	"github.com/marketplane/marketplane/services/internal/budget"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	b := budget.New(10)
	for i, want := range []bool{true, true, false} {
		if got := b.Take(5); got != want {
			t.Errorf("take %d: %t", i, got)
		}
	}
	b.Give(5)
	if b.Take(6) || !b.Take(5) || b.Left() != 0 {
		t.Errorf("%d are left", b.Left())
	}
}

// However many take at a time, there is never more taken than there was, and all of it
// comes back.
func TestBudgetIsKeptByMany(t *testing.T) {
	t.Parallel()
	const size, takers = 8, 16
	b := budget.New(size)
	var wg sync.WaitGroup
	taken := make(chan struct{}, size)
	for range takers {
		wg.Go(func() {
			for range 1000 {
				if !b.Take(1) {
					continue
				}
				select {
				case taken <- struct{}{}:
					<-taken
				default:
					t.Error("more is taken than there was")
				}
				b.Give(1)
			}
		})
	}
	wg.Wait()
	if b.Left() != size {
		t.Errorf("%d are left of %d", b.Left(), size)
	}
}
