package password

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestHashAndVerify(t *testing.T) {
	t.Parallel()
	h := New(nil)
	ctx := t.Context()
	hash, err := h.Hash(ctx, "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("not the PHC string that was agreed: %s", hash)
	}
	again, err := h.Hash(ctx, "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if again == hash {
		t.Error("two hashes share a salt")
	}
	tests := map[string]struct {
		password, hash string
		want           bool
	}{
		"right":                  {"correct horse battery staple", hash, true},
		"wrong":                  {"Correct horse battery staple", hash, false},
		"empty":                  {"", hash, false},
		"nobody's":               {"correct horse battery staple", "", false},
		"argon2's reference run": {"password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := h.Verify(ctx, tt.password, tt.hash)
			if err != nil || got != tt.want {
				t.Errorf("= %t, %v; want %t", got, err, tt.want)
			}
		})
	}
}

func TestVerifyRefusesBrokenHashes(t *testing.T) {
	t.Parallel()
	h := New(nil)
	tests := map[string]string{
		"not PHC":         "secret",
		"another scheme":  "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"another version": "$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"four gibibytes":  "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"no rounds":       "$argon2id$v=19$m=19456,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"no key":          "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$",
	}
	for name, hash := range tests {
		t.Run(name, func(t *testing.T) {
			ok, err := h.Verify(t.Context(), "secret", hash)
			if ok || err == nil {
				t.Fatalf("= %t, %v; want an error", ok, err)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "CTFh") {
				t.Error("the error quotes secrets")
			}
		})
	}
}

// As many at once as there are slots, as many in the queue as it holds, and
// whoever comes then is told to come later.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(2, 2, nil)
	release := make(chan struct{})
	started := make(chan struct{}, 8)
	var wg sync.WaitGroup
	run := func(ctx context.Context) {
		wg.Go(func() {
			_ = h.do(ctx, func() {
				started <- struct{}{}
				<-release
			})
		})
	}
	run(t.Context())
	run(t.Context())
	<-started
	<-started
	waiting, cancel := context.WithCancel(t.Context())
	for range 4 {
		run(waiting)
	}
	deadline := time.Now().Add(10 * time.Second)
	for h.Waiting() < 4 && time.Now().Before(deadline) {
		select {
		case <-started:
			t.Fatal("more at once than there are slots")
		case <-time.After(time.Millisecond):
		}
	}
	err := h.do(t.Context(), func() { t.Error("the queue has no end") })
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != "busy" || f.Kind != fault.Unavailable || f.RetryAfter <= 0 {
		t.Errorf("error = %v, want the fault busy with a time to wait", err)
	}
	cancel() // who goes away leaves the queue
	for h.Waiting() > 0 && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	if n := h.Waiting(); n != 0 {
		t.Errorf("%d still wait after they went away", n)
	}
	close(release)
	wg.Wait()
	if err := h.do(t.Context(), func() {}); err != nil {
		t.Errorf("a free slot was refused: %v", err)
	}
}

func BenchmarkHash(b *testing.B) {
	h := New(nil)
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}
