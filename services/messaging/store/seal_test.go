package store_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/messaging/seal"
	"github.com/marketplane/marketplane/services/messaging/store"
)

// Processes that start at the same time, and later, have one key.
func TestOneSealingKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var (
		wg    sync.WaitGroup
		begin = make(chan struct{})
		keys  [8][]byte
	)
	for i := range keys {
		wg.Go(func() {
			<-begin
			key, err := f.SealingKey(t.Context())
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	close(begin)
	wg.Wait()
	later, err := store.New(f.pool, time.Now).SealingKey(t.Context())
	if err != nil || len(later) != seal.KeySize || bytes.Equal(later, make([]byte, seal.KeySize)) {
		t.Fatalf("a key of %d bytes: %v", len(later), err)
	}
	for i, key := range keys {
		if !bytes.Equal(key, later) {
			t.Errorf("process %d has another key", i)
		}
	}

	other := newFixture(t)
	if key, err := other.SealingKey(t.Context()); err != nil || bytes.Equal(key, later) {
		t.Errorf("another installation has the same key, or none: %v", err)
	}
}
