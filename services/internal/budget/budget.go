// Package budget bounds what many hold together.
package budget

import "sync/atomic"

// Budget is how many bytes may still be taken. It is safe for concurrent use.
type Budget struct{ left atomic.Int64 }

// New makes a budget.
func New(bytes int) *Budget {
	b := &Budget{}
	b.left.Store(int64(bytes))
	return b
}

// Take takes bytes, all or none; false if there are not as many.
func (b *Budget) Take(bytes int) bool {
	if b.left.Add(-int64(bytes)) >= 0 {
		return true
	}
	b.Give(bytes)
	return false
}

// Give gives bytes back that were taken.
func (b *Budget) Give(bytes int) { b.left.Add(int64(bytes)) }

// Left is how many bytes may be taken at this moment.
func (b *Budget) Left() int { return int(b.left.Load()) }
