package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/controllers/autoscale"
	"github.com/marketplane/marketplane/controllers/load"
)

// memory is what the operator remembers of a Marketplace between two looks at
// it. It may be lost at any time: what it saves is requests, and what it holds
// back (a scale-down) is held back anew.
type memory struct {
	uid types.UID
	// applied are the objects that stand as they were last applied.
	applied map[objectKey]appliedRecord
	// secrets are facts about Secrets, none of them secret.
	secrets map[string]secretFacts
	// certificate are facts about the Secret of exposure.ingress.tls.
	certificate certificateFacts
	// database and bus are facts about the Secrets that the spec names for
	// external ones.
	database, bus sourceFacts
	// notifications are facts about the Secret that notifications are signed with.
	notifications sourceFacts
	// settled are the services as they were when they were last as wanted.
	settled map[string]settled
	// history is the autoscaler's.
	history autoscale.History
	// size is what the autoscaler decided last, 0 where it has not.
	size int32
	// tier is what is known of messaging's pods, and load and loadAt are the last
	// look at their connections.
	tier   load.Tier
	load   load.Total
	loadAt time.Time
}

// appliedRecord says what was applied and which version of the object that
// made. While both are unchanged, there is nothing to apply.
type appliedRecord struct {
	uid             types.UID
	digest          string
	resourceVersion string
	generation      int64
}

// memories holds one memory per Marketplace. A Marketplace is never looked at
// twice at once, so only the map needs a lock.
type memories struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*memory
}

func newMemories() *memories {
	return &memories{byName: map[types.NamespacedName]*memory{}}
}

// of returns the memory of the Marketplace with this name and UID; another one
// of the same name starts with an empty one.
func (m *memories) of(name types.NamespacedName, uid types.UID) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, ok := m.byName[name]; ok && found.uid == uid {
		return found
	}
	fresh := &memory{
		uid:     uid,
		applied: map[objectKey]appliedRecord{},
		settled: map[string]settled{},
		secrets: map[string]secretFacts{},
	}
	m.byName[name] = fresh
	return fresh
}

func (m *memories) forget(name types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byName, name)
}
