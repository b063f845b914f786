// Package budget bounds what many hold together.
package budget

import "sync/atomic"

// Budget is how many bytes may still be held. It is safe for concurrent use.
type Budget struct{ left atomic.Int64 }

// New makes a budget.
func New(bytes int) *Budget {
	b := &Budget{}
	b.left.Store(int64(bytes))
	return b
}

// Left is how many bytes may still be held.
func (b *Budget) Left() int { return int(b.left.Load()) }

// Hold begins to hold something, whose first bytes, as many as free, do not count.
func (b *Budget) Hold(free int) Hold { return Hold{budget: b, free: free} }

// Hold is what one holds of a budget. It is for one goroutine at a time.
type Hold struct {
	budget      *Budget
	free, bytes int
}

// Grow holds size bytes, what is held already included. It is false, and what is held
// stays as it was, if the budget has not as many.
func (h *Hold) Grow(size int) bool {
	more := size - h.free - h.bytes
	if more <= 0 {
		return true
	}
	if h.budget.left.Add(-int64(more)) < 0 {
		h.budget.left.Add(int64(more))
		return false
	}
	h.bytes += more
	return true
}

// Release gives back everything.
func (h *Hold) Release() {
	h.budget.left.Add(int64(h.bytes))
	h.bytes = 0
}
