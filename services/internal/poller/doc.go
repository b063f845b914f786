// Package poller watches very many silent connections, so that they need no
// goroutine each. It knows nothing of what they say; whoever is woken reads.
package poller
