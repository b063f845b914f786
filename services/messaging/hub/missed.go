package hub

import (
	"sync"

	"github.com/google/uuid"
)

// maxMissed bounds the users whose heads are kept while the bus is away. Those
// beyond are found by the comparison that every process makes from time to time.
const maxMissed = 10_000

// missed holds the heads that could not be published. Processes whose own
// connection to the bus was not broken have no other reason to look for them
// soon.
type missed struct {
	mu    sync.Mutex
	heads map[uuid.UUID]int64
}

func (m *missed) add(user uuid.UUID, head int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.heads[user]; ok || len(m.heads) < maxMissed {
		m.heads[user] = max(known, head)
	}
}

// take empties it.
func (m *missed) take() map[uuid.UUID]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.heads
	m.heads = map[uuid.UUID]int64{}
	return taken
}
