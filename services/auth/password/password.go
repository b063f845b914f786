// Package password hashes passwords with Argon2id (RFC 9106), as many at once as
// there are processors and no more: each hash takes 19 MiB, and more at once
// would only make all of them slower.
package password

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// OWASP's Password Storage Cheat Sheet: m=19456 KiB (19 MiB), t=2, p=1.
const (
	memory      = 19 * 1024
	iterations  = 2
	parallelism = 1
	saltSize    = 16
	keySize     = 32
)

// QueuePerSlot is how many may wait for each hash that is computed: about a
// second's worth.
const QueuePerSlot = 50

var errBusy = fault.New(fault.Unavailable, "busy",
	"Too many log-ins at once. Try again in a moment.").After(2 * time.Second)

// Hasher implements auth.Hasher.
type Hasher struct {
	slots   chan struct{}
	limit   int64
	waiting atomic.Int64
	// observed is told how long each hash took, without the wait.
	observed func(time.Duration)
	nobody   string
}

// New makes a hasher; observed may be nil.
func New(observed func(time.Duration)) *Hasher {
	return newHasher(runtime.GOMAXPROCS(0), QueuePerSlot, observed)
}

func newHasher(slots, queuePerSlot int, observed func(time.Duration)) *Hasher {
	if observed == nil {
		observed = func(time.Duration) {}
	}
	// Any hash of the present parameters makes Verify work as long for nobody.
	nobody := encode(random(saltSize), random(keySize))
	return &Hasher{
		slots: make(chan struct{}, slots), limit: int64(slots * queuePerSlot), observed: observed, nobody: nobody,
	}
}

// Waiting is how many callers wait for their turn.
func (h *Hasher) Waiting() int { return int(h.waiting.Load()) }

// Hash returns a PHC string. Fault: busy.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := random(saltSize)
	var key []byte
	err := h.do(ctx, func() {
		key = argon2.IDKey([]byte(password), salt, iterations, memory, parallelism, keySize)
	})
	if err != nil {
		return "", err
	}
	return encode(salt, key), nil
}

// Verify says whether the password is the hash's, in constant time. An empty
// hash is nobody's, and takes as long to say so. Fault: busy.
func (h *Hasher) Verify(ctx context.Context, password, hash string) (bool, error) {
	known := hash != ""
	if !known {
		hash = h.nobody
	}
	p, err := decode(hash)
	if err != nil {
		return false, err
	}
	var key []byte
	err = h.do(ctx, func() {
		key = argon2.IDKey([]byte(password), p.salt, p.iterations, p.memory, p.parallelism, uint32(len(p.key))) //nolint:gosec // G115: decode bounds it
	})
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, p.key) == 1 && known, nil
}

// do runs work when it is its turn.
func (h *Hasher) do(ctx context.Context, work func()) error {
	if h.waiting.Add(1) > h.limit {
		h.waiting.Add(-1)
		return errBusy
	}
	select {
	case h.slots <- struct{}{}:
		h.waiting.Add(-1)
	case <-ctx.Done():
		h.waiting.Add(-1)
		return fmt.Errorf("wait to hash: %w", ctx.Err())
	}
	defer func() { <-h.slots }()
	start := time.Now()
	work()
	h.observed(time.Since(start))
	return nil
}

type phc struct {
	memory, iterations uint32
	parallelism        uint8
	salt, key          []byte
}

// encode writes the PHC string format's Argon2 profile.
func encode(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, memory, iterations, parallelism, b64.EncodeToString(salt), b64.EncodeToString(key))
}

var errHash = errors.New("password hash: not an Argon2id PHC string within bounds")

// decode takes other parameters too, so that they can be raised one day, within
// bounds that a broken row can't use to eat the process's memory. Errors never
// quote the hash.
func decode(hash string) (phc, error) {
	var p phc
	fields := strings.Split(hash, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errHash
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &p.memory, &p.iterations, &p.parallelism); err != nil {
		return p, errHash
	}
	if p.memory < 8 || p.memory > 256*1024 || p.iterations < 1 || p.iterations > 16 || p.parallelism < 1 || p.parallelism > 16 {
		return p, errHash
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(fields[4])
	p.key, err2 = base64.RawStdEncoding.DecodeString(fields[5])
	if err1 != nil || err2 != nil || len(p.salt) < 8 || len(p.key) < 16 || len(p.key) > 64 {
		return p, errHash
	}
	return p, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return b
}
