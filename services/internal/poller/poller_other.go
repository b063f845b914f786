//go:build !linux

package poller

// Poller is for Linux, on which the product runs. Elsewhere there is none, and
// each connection has a goroutine that waits.
type Poller[T any] struct{}

// New makes none.
func New[T any](func(*T, bool)) (*Poller[T], error) { return nil, nil } //nolint:nilnil // there is none

// Stop does nothing.
func (*Poller[T]) Stop() {}

// Watch does nothing.
func (*Poller[T]) Watch(int32, *T) error { return nil }

// Forget does nothing.
func (*Poller[T]) Forget(int32, *T) {}
