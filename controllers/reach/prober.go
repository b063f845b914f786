// Package reach looks at the servers that someone else runs, a PostgreSQL or a
// NATS: whether they answer, let us in, and have what is needed. It does so
// beside the reconciliations, which only read what was found last, and wakes
// those concerned when that changes. It must not know Secrets or specs; what it
// tells holds no credentials.
package reach

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Result is what a look at a server found.
type Result struct {
	// Reason is v1alpha1.ReasonReady, or the reason of a condition.
	Reason string
	// Message is for people. It holds no password and no user.
	Message string
}

// OK says that the server can be worked with.
func (r Result) OK() bool { return r.Reason == v1alpha1.ReasonReady }

// Target is a server and how to sign in there.
type Target interface {
	// Digest tells targets apart that may have different results.
	Digest() string
	// Probe looks at the server, until ctx ends.
	Probe(ctx context.Context) Result
}

// Owner is who wants to know about a server.
type Owner struct {
	// Marketplace is woken.
	Marketplace types.NamespacedName
	// Concern tells the targets of one Marketplace apart.
	Concern string
}

const (
	// Timeout bounds one look at a server.
	Timeout = 5 * time.Second
	// well and seldom are how often a server that is well is looked at: the more
	// of them there are the more seldom, so that all together are looked at once
	// in spacing, on average.
	well    = 10 * time.Second
	seldom  = time.Minute
	spacing = 50 * time.Millisecond
	// firstPause and longestPause are how soon one that is not is looked at
	// again, the pause doubling between them.
	firstPause   = 2 * time.Second
	longestPause = 30 * time.Second
	// workers is how many servers are looked at at once. Most of them wait.
	workers = 32
	// wakeBuffer lets workers go on while reconciliations take note.
	wakeBuffer = 256
)

// Prober looks at servers again and again, for as long as someone wants to
// know. Equal targets are looked at once.
type Prober struct {
	woken chan event.GenericEvent
	// changed says that the schedule did.
	changed chan struct{}

	mu       sync.Mutex
	byOwner  map[Owner]*entry
	byDigest map[string]*entry
	schedule schedule
}

// entry is one target and what is known of it.
type entry struct {
	target Target
	digest string
	owners map[Owner]struct{}
	// result is what was found last; known says that something was.
	result Result
	known  bool
	// failures counts looks in a row that found it unwell.
	failures int
	due      time.Time
	// index in the schedule; -1 while it is looked at, or dropped.
	index int
}

// NewProber returns a prober that knows of no server yet.
func NewProber() *Prober {
	return &Prober{
		woken:    make(chan event.GenericEvent, wakeBuffer),
		changed:  make(chan struct{}, 1),
		byOwner:  map[Owner]*entry{},
		byDigest: map[string]*entry{},
	}
}

// Woken tells which Marketplaces have news: those about whose target something
// else was found than before.
func (p *Prober) Woken() <-chan event.GenericEvent { return p.woken }

// Watch makes target the one that owner wants to know about.
func (p *Prober) Watch(owner Owner, target Target) {
	digest := target.Digest()
	p.mu.Lock()
	defer p.mu.Unlock()
	if current, ok := p.byOwner[owner]; ok {
		if current.digest == digest {
			return
		}
		p.drop(owner, current)
	}
	e, ok := p.byDigest[digest]
	if !ok {
		e = &entry{target: target, digest: digest, owners: map[Owner]struct{}{}, due: time.Now()}
		p.byDigest[digest] = e
		heap.Push(&p.schedule, e)
		p.reschedule()
	}
	e.owners[owner] = struct{}{}
	p.byOwner[owner] = e
}

// Forget ends what Watch began.
func (p *Prober) Forget(owner Owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byOwner[owner]; ok {
		p.drop(owner, e)
	}
}

// Last returns what was found last about the owner's target; false while it
// has not been looked at yet.
func (p *Prober) Last(owner Owner) (Result, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byOwner[owner]
	if !ok {
		return Result{}, false
	}
	return e.result, e.known
}

func (p *Prober) drop(owner Owner, e *entry) {
	delete(p.byOwner, owner)
	delete(e.owners, owner)
	if len(e.owners) > 0 {
		return
	}
	delete(p.byDigest, e.digest)
	if e.index >= 0 {
		heap.Remove(&p.schedule, e.index)
	}
}

// NeedLeaderElection says that only the operator that works looks at servers.
func (p *Prober) NeedLeaderElection() bool { return true }

// Start looks at servers until ctx ends.
func (p *Prober) Start(ctx context.Context) error {
	work := make(chan *entry)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for e := range work {
				p.look(ctx, e)
			}
		})
	}
	defer all.Wait()
	defer close(work)
	for {
		e, wait := p.next()
		if e != nil {
			select {
			case work <- e:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// next takes the entry that is due out of the schedule, or says how long there
// is none.
func (p *Prober) next() (*entry, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.schedule) == 0 {
		return nil, time.Hour
	}
	first := p.schedule[0]
	if wait := time.Until(first.due); wait > 0 {
		return nil, wait
	}
	heap.Pop(&p.schedule)
	return first, 0
}

func (p *Prober) look(ctx context.Context, e *entry) {
	probing, cancel := context.WithTimeout(ctx, Timeout)
	result := e.target.Probe(probing)
	cancel()
	if ctx.Err() != nil {
		return // What was found is that the operator stops.
	}
	for _, owner := range p.note(e, result) {
		news := event.GenericEvent{Object: &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.Marketplace.Namespace, Name: owner.Marketplace.Name,
		}}}
		select {
		case p.woken <- news:
		case <-ctx.Done():
			return
		}
	}
}

// note takes a result down, and returns whom it is news to.
func (p *Prober) note(e *entry, result Result) []Owner {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(e.owners) == 0 {
		return nil // Dropped meanwhile.
	}
	pause := min(max(well, time.Duration(len(p.byDigest))*spacing), seldom)
	if result.OK() {
		e.failures = 0
	} else {
		pause = min(firstPause<<min(e.failures, 8), longestPause)
		e.failures++
	}
	// One lost packet is no outage: a server that was well gets a second look.
	isNews := !e.known || result != e.result
	if e.known && e.result.OK() && result.Reason == v1alpha1.ReasonUnreachable && e.failures == 1 {
		isNews = false
	} else {
		e.result, e.known = result, true
	}
	e.due = time.Now().Add(jittered(pause))
	heap.Push(&p.schedule, e)
	p.reschedule()
	if !isNews {
		return nil
	}
	owners := make([]Owner, 0, len(e.owners))
	for owner := range e.owners {
		owners = append(owners, owner)
	}
	return owners
}

func (p *Prober) reschedule() {
	select {
	case p.changed <- struct{}{}:
	default: // It is known already.
	}
}

// jittered spreads what began at once, by a tenth in both directions.
func jittered(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*float64(d)/5) //nolint:gosec // G404: nobody gains by guessing it
}

// schedule is a heap of entries: those that nothing is known about come first,
// so that old outages do not hold up new Marketplaces.
type schedule []*entry

func (s schedule) Len() int { return len(s) }

func (s schedule) Less(i, j int) bool {
	if s[i].known != s[j].known {
		return !s[i].known
	}
	return s[i].due.Before(s[j].due)
}

func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

// Push is heap.Interface's.
func (s *schedule) Push(x any) {
	e, ok := x.(*entry)
	if !ok {
		return // The heap holds nothing else.
	}
	e.index = len(*s)
	*s = append(*s, e)
}

// Pop is heap.Interface's.
func (s *schedule) Pop() any {
	old := *s
	e := old[len(old)-1]
	old[len(old)-1] = nil
	e.index = -1
	*s = old[:len(old)-1]
	return e
}
