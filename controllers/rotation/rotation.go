// Package rotation decides when signing keys are made and retired. It is pure:
// the keys with their times, the policy, what people asked for and the clock go
// in; what to do, why, and when to ask again come out. It never sees key
// material, and must not know Kubernetes.
//
// Three rules keep every good token verifiable. A key is published for
// contract.KeyLead before it signs. A key is retired only when a younger one has
// signed for so long that no token of it is good any more. And the key that
// signs is never retired, so there always is one.
package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marketplane/marketplane/api/contract"
)

// MaxKeys bounds how many keys are published at once, however often someone
// asks for a new one.
const MaxKeys = 8

// AtOnce is how far back a key is dated that shall sign at once, for clocks that
// differ.
const AtOnce = time.Minute

// patience is how much further ahead than contract.KeyLead a key may be dated
// before a wrong clock is to blame.
const patience = time.Minute

// revoke begins the requests that take every other key out at once.
const revoke = "revoke"

// Key is a published key.
type Key struct {
	ID string
	// ActivatesAt is when it begins to sign.
	ActivatesAt time.Time
}

// Policy is what the spec asks for.
type Policy struct {
	// Period is the time between the activations of two keys.
	Period time.Duration
	// Overlap is how long a key stays published after the next has begun to
	// sign. Less than contract.KeyRetention counts as that.
	Overlap time.Duration
}

// Input is what a decision depends on.
type Input struct {
	// Keys in the order of the document.
	Keys   []Key
	Policy Policy
	// Wanted is the request that stands there, empty where there is none;
	// Answered is the one that was answered last.
	Wanted, Answered string
	Now              time.Time
}

// Plan is what to do, and what to tell.
type Plan struct {
	// Make is a key to make, nil where none is due.
	Make *Making
	// Retire are the keys to take out.
	Retire []Retirement
	// Answered is the request that is answered when the plan is carried out.
	Answered string
	// Answer tells what came of a request for which no key is made.
	Answer string
	// Held says why what is due waits a little, empty where nothing does.
	Held string
	// Trouble says why what is due is not done before someone acts, empty where
	// there is none.
	Trouble string
	// Signer is the key that signs, empty where none does.
	Signer string
	// Schedule are the keys in the order of their activation.
	Schedule []Slot
	// NextRotation is when the next key is due to be made.
	NextRotation time.Time
	// Late is for how long that has been so already.
	Late time.Duration
	// Due is when time alone changes something next; zero where nothing will.
	Due time.Time
}

// Making is a key to make.
type Making struct {
	ActivatesAt time.Time
	Reason      string
}

// Retirement is a key to take out.
type Retirement struct {
	ID     string
	Reason string
}

// Slot is a published key and its times.
type Slot struct {
	Key
	// RetiresAt is zero while no younger key is there.
	RetiresAt time.Time
}

// Decide says what to do about the keys.
func Decide(in Input) Plan {
	keys := inOrder(in.Keys)
	p := Plan{Answered: in.Answered, Schedule: schedule(keys, in.Policy), NextRotation: in.Now}
	if len(keys) > 0 {
		newest := keys[len(keys)-1]
		p.NextRotation = newest.ActivatesAt.Add(in.Policy.Period - contract.KeyLead)
	}
	p.Late = max(0, in.Now.Sub(p.NextRotation))
	signer, signs := signerOf(in.Keys, in.Now)
	p.Signer = signer.ID
	p.Due = due(p, in.Now)

	asked := in.Wanted != "" && in.Wanted != in.Answered
	if in.Wanted == "" {
		// The same word may be used again.
		p.Answered = ""
	}
	if asked && strings.HasPrefix(in.Wanted, revoke) {
		return p.revokeAll(in)
	}
	for _, slot := range p.Schedule {
		if !slot.RetiresAt.IsZero() && !slot.RetiresAt.After(in.Now) {
			p.Retire = append(p.Retire, Retirement{slot.ID, "no token of it is good any more"})
		}
	}
	switch {
	case !signs:
		p.restore(in, keys)
	case keys[len(keys)-1].ActivatesAt.After(in.Now):
		p.follow(in, asked, signer, keys[len(keys)-1])
	case asked:
		p.make(in, fmt.Sprintf("asked for by %q", in.Wanted))
	case !p.NextRotation.After(in.Now):
		p.make(in, fmt.Sprintf("the period of %s is over", in.Policy.Period))
	}
	if p.Make != nil {
		p.Answered = in.Wanted
	}
	return p
}

// make plans the next key, if there is room for it.
func (p *Plan) make(in Input, reason string) {
	if room := MaxKeys - (len(p.Schedule) - len(p.Retire)); room <= 0 {
		p.Held = fmt.Sprintf("%d keys are published; the next is made when the first of them retires, at %s", MaxKeys, date(p.Schedule[0].RetiresAt))
		return
	}
	p.Make = &Making{ActivatesAt: wholeSecond(in.Now.Add(contract.KeyLead)), Reason: reason}
}

// follow tells of the key that waits for its time. No other is made meanwhile,
// so that each key is younger than all that were made before it: otherwise a
// key could be retired while it still signs.
func (p *Plan) follow(in Input, asked bool, signer, waiting Key) {
	overdue := !signer.ActivatesAt.Add(in.Policy.Period).After(in.Now)
	switch {
	case waiting.ActivatesAt.Sub(in.Now) <= contract.KeyLead+patience:
		if asked {
			p.Answered = in.Wanted
			p.Answer = fmt.Sprintf("key %s, which was made before, signs from %s on", waiting.ID, date(waiting.ActivatesAt))
		}
	case asked || overdue:
		p.Trouble = fmt.Sprintf("key %s is to sign only from %s on: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough", waiting.ID, date(waiting.ActivatesAt))
	}
}

// restore plans what helps when no key signs: the clock has stepped back, or
// the document is damaged.
func (p *Plan) restore(in Input, keys []Key) {
	if len(keys) > 0 && keys[0].ActivatesAt.Sub(in.Now) <= contract.KeyLead {
		return // A new key would not be known everywhere any sooner.
	}
	if len(keys) >= MaxKeys {
		p.Trouble = fmt.Sprintf("no key signs before %s, and %d keys are published already: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough", date(keys[0].ActivatesAt), len(keys))
		return
	}
	// It is older than all others, and so takes over from none of them.
	p.Make = &Making{ActivatesAt: wholeSecond(in.Now.Add(-AtOnce)), Reason: "no key signs yet"}
}

// revokeAll plans one key that signs at once, and none beside it.
func (p Plan) revokeAll(in Input) Plan {
	reason := fmt.Sprintf("asked for by %q", in.Wanted)
	p.Answered = in.Wanted
	p.Make = &Making{ActivatesAt: wholeSecond(in.Now.Add(-AtOnce)), Reason: reason}
	for _, slot := range p.Schedule {
		p.Retire = append(p.Retire, Retirement{slot.ID, reason + ", at once"})
	}
	return p
}

// inOrder are the keys in the order of their activation. A key that stands there
// twice counts by its later time: until the next one, both its entries sign.
func inOrder(keys []Key) []Key {
	latest := map[string]time.Time{}
	for _, k := range keys {
		if at, ok := latest[k.ID]; !ok || k.ActivatesAt.After(at) {
			latest[k.ID] = k.ActivatesAt
		}
	}
	ordered := make([]Key, 0, len(latest))
	for _, k := range keys {
		if at, ok := latest[k.ID]; ok && at.Equal(k.ActivatesAt) {
			ordered = append(ordered, k)
			delete(latest, k.ID)
		}
	}
	slices.SortStableFunc(ordered, func(a, b Key) int { return a.ActivatesAt.Compare(b.ActivatesAt) })
	return ordered
}

// signerOf is the key that auth signs with at now, by the rule of
// contract.SigningKeys: the one that was activated last, and of equal ones the
// first.
func signerOf(keys []Key, now time.Time) (signer Key, ok bool) {
	for _, k := range keys {
		if !k.ActivatesAt.After(now) && (!ok || k.ActivatesAt.After(signer.ActivatesAt)) {
			signer, ok = k, true
		}
	}
	return signer, ok
}

// schedule gives every key its end: a while after the next one begins to sign.
func schedule(ordered []Key, policy Policy) []Slot {
	retention := max(policy.Overlap, contract.KeyRetention)
	slots := make([]Slot, len(ordered))
	for i, k := range ordered {
		slots[i].Key = k
		for _, next := range ordered[i+1:] {
			if next.ActivatesAt.After(k.ActivatesAt) {
				slots[i].RetiresAt = next.ActivatesAt.Add(retention)
				break
			}
		}
	}
	return slots
}

// due is the earliest time after now that a plan speaks of.
func due(p Plan, now time.Time) time.Time {
	times := []time.Time{p.NextRotation}
	for _, slot := range p.Schedule {
		times = append(times, slot.ActivatesAt, slot.RetiresAt)
	}
	times = slices.DeleteFunc(times, func(t time.Time) bool { return !t.After(now) })
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(times, time.Time.Compare)
}

// wholeSecond is t as the document carries it, never earlier.
func wholeSecond(t time.Time) time.Time {
	whole := t.UTC().Truncate(time.Second)
	if whole.Before(t) {
		whole = whole.Add(time.Second)
	}
	return whole
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
