package testkit

import (
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Upgrade is a WebSocket's handshake with a URL (RFC 6455, section 4.1).
func Upgrade(t testing.TB, url, subprotocol string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	r.Header.Set("Sec-WebSocket-Protocol", subprotocol)
	return r
}

// LeavesNothing fails the test unless goroutines and the heap are back where they
// were after many clients have come and gone. One is a client, by its number, and
// runs beside others; settle brings the server to rest. The test must not be
// parallel to others.
func LeavesNothing(t *testing.T, clients int, slack uint64, settle func(), one func(i int) error) {
	t.Helper()
	const (
		first    = 500 // after which pools are filled, and workers are kept
		atATime  = 32
		patience = time.Minute
	)
	many := func(n int) {
		var wg sync.WaitGroup
		next := make(chan int)
		for range atATime {
			wg.Go(func() {
				for i := range next {
					if err := one(i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		wg.Wait()
	}
	weigh := func() (goroutines int, heap uint64) {
		settle()
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // what finalizers and pools held
		runtime.ReadMemStats(&stats)
		return runtime.NumGoroutine(), stats.HeapAlloc
	}
	many(first)
	goroutines, heap := weigh()
	many(clients)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		nowGoroutines, nowHeap := weigh()
		// There may be more workers than before: as many as clients at a time.
		if nowGoroutines <= goroutines+atATime && nowHeap < heap+slack {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d bytes, before %d and %d", nowGoroutines, nowHeap, goroutines, heap)
		}
	}
}
