// Package workers runs what comes, each at once, on goroutines that are used again:
// their stacks have grown already.
package workers

import (
	"sync"
	"sync/atomic"
)

// Pool is made by New. There are as many workers as there is to do.
type Pool[T any] struct {
	do      func(T)
	most    int32
	idle    atomic.Int32
	ready   chan T // for a worker that is idle
	quit    chan struct{}
	running sync.WaitGroup
}

// New makes a pool, which keeps mostIdle workers for later.
func New[T any](mostIdle int32, do func(T)) *Pool[T] {
	return &Pool[T]{do: do, most: mostIdle, ready: make(chan T), quit: make(chan struct{})}
}

// Do has a worker do something, and returns.
func (p *Pool[T]) Do(t T) {
	select {
	case p.ready <- t:
	default:
		p.running.Go(func() { p.work(t) })
	}
}

// Stop keeps no worker for later any more; call it once. What is given to Do is still
// done.
func (p *Pool[T]) Stop() { close(p.quit) }

// Wait returns when everything is done, after Stop and the last Do.
func (p *Pool[T]) Wait() { p.running.Wait() }

func (p *Pool[T]) work(t T) {
	for {
		p.do(t)
		if p.idle.Add(1) > p.most {
			p.idle.Add(-1)
			return
		}
		select {
		case t = <-p.ready:
			p.idle.Add(-1)
		case <-p.quit:
			p.idle.Add(-1)
			return
		}
	}
}
