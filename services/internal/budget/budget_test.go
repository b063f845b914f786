package budget_test

import (
	"sync"
	"testing"

	"github.com/marketplane/marketplane/services/internal/budget"
)

func TestHold(t *testing.T) {
	t.Parallel()
	b := budget.New(10)
	one, other := b.Hold(4), b.Hold(4)
	for i, step := range []struct {
		hold *budget.Hold
		size int
		want bool
		left int
	}{
		{&one, 4, true, 10}, // for nothing
		{&one, 10, true, 4},
		{&one, 9, true, 4}, // which it holds already
		{&other, 9, false, 4},
		{&other, 8, true, 0},
		{&one, 11, false, 0},
		{&one, 10, true, 0},
	} {
		if got := step.hold.Grow(step.size); got != step.want || b.Left() != step.left {
			t.Errorf("step %d: %t, and %d are left", i, got, b.Left())
		}
	}
	one.Release()
	if b.Left() != 6 || !other.Grow(14) || b.Left() != 0 {
		t.Errorf("%d are left", b.Left())
	}
	other.Release()
	other.Release()
	if b.Left() != 10 {
		t.Errorf("%d are left in the end", b.Left())
	}
}

// However many there are at a time, they never hold more than there was, and all of it
// comes back.
func TestManyHold(t *testing.T) {
	t.Parallel()
	const size, many = 8, 16
	b := budget.New(size)
	held := make(chan struct{}, size)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			for range 1000 {
				hold := b.Hold(0)
				if !hold.Grow(1) {
					continue
				}
				select {
				case held <- struct{}{}:
					<-held
				default:
					t.Error("more is held than there was")
				}
				hold.Release()
			}
		})
	}
	wg.Wait()
	if b.Left() != size {
		t.Errorf("%d are left of %d", b.Left(), size)
	}
}
