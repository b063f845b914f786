package rotation

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/api/contract"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at is a time that many minutes after the start.
func at(minutes float64) time.Time {
	return start.Add(time.Duration(minutes * float64(time.Minute)).Round(time.Millisecond))
}

func TestDecide(t *testing.T) {
	const day = 24 * 60
	policy := Policy{Period: 30 * 24 * time.Hour, Overlap: time.Hour}
	lead := contract.KeyLead.Minutes()
	many := func(n int) []Key {
		var keys []Key
		for i := range n {
			keys = append(keys, Key{string(rune('a' + i)), at(float64(i) * 5)})
		}
		return keys
	}
	tests := map[string]struct {
		keys             []Key
		policy           Policy
		wanted, answered string
		now              time.Time
		want             Plan // without its schedule
	}{
		"a key that is young": {
			keys: []Key{{"a", at(-1)}}, now: at(0),
			want: Plan{Signer: "a", NextRotation: at(30*day - 1 - lead), Due: at(30*day - 1 - lead)},
		},
		"the period is over so soon that a new key signs on time": {
			keys: []Key{{"a", at(0)}}, now: at(30*day - lead),
			want: Plan{
				Signer: "a", NextRotation: at(30*day - lead),
				Make: &Making{at(30 * day), "the period of 720h0m0s is over"},
			},
		},
		"nobody was there for a year": {
			keys: []Key{{"a", at(0)}}, now: at(365 * day),
			want: Plan{
				Signer: "a", NextRotation: at(30*day - lead), Late: 335*24*time.Hour + contract.KeyLead,
				Make: &Making{at(365*day + lead), "the period of 720h0m0s is over"},
			},
		},
		"a request": {
			keys: []Key{{"a", at(0)}}, now: at(60), wanted: "now",
			want: Plan{
				Signer: "a", NextRotation: at(30*day - lead), Due: at(30*day - lead), Answered: "now",
				Make: &Making{at(60 + lead), `asked for by "now"`},
			},
		},
		"an answered request": {
			keys: []Key{{"a", at(0)}}, now: at(60), wanted: "now", answered: "now",
			want: Plan{Signer: "a", NextRotation: at(30*day - lead), Due: at(30*day - lead), Answered: "now"},
		},
		"a request that is taken away may come again": {
			keys: []Key{{"a", at(0)}}, now: at(60), answered: "now",
			want: Plan{Signer: "a", NextRotation: at(30*day - lead), Due: at(30*day - lead)},
		},
		"a request while a key waits": {
			keys: []Key{{"a", at(0)}, {"b", at(62)}}, now: at(60), wanted: "again", answered: "now",
			want: Plan{
				Signer: "a", NextRotation: at(30*day + 62 - lead), Due: at(62), Answered: "again",
				Answer: "key b, which was made before, signs from 2026-01-01T01:02:00Z on",
			},
		},
		"a key waits for a time that only a wrong clock can have meant": {
			keys: []Key{{"a", at(0)}, {"b", at(5 * day)}}, now: at(60), wanted: "now",
			want: Plan{
				Signer: "a", NextRotation: at(35*day - lead), Due: at(5 * day),
				Trouble: "key b is to sign only from 2026-01-06T00:00:00Z on: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough",
			},
		},
		"and nothing is due": {
			keys: []Key{{"a", at(0)}, {"b", at(5 * day)}}, now: at(60),
			want: Plan{Signer: "a", NextRotation: at(35*day - lead), Due: at(5 * day)},
		},
		"the old key stays for the overlap": {
			keys: []Key{{"a", at(0)}, {"b", at(100)}}, now: at(159.9),
			want: Plan{Signer: "b", NextRotation: at(30*day + 100 - lead), Due: at(160)},
		},
		"and no longer": {
			keys: []Key{{"a", at(0)}, {"b", at(100)}}, now: at(160),
			want: Plan{
				Signer: "b", NextRotation: at(30*day + 100 - lead), Due: at(30*day + 100 - lead),
				Retire: []Retirement{{"a", "no token of it is good any more"}},
			},
		},
		"an overlap that is too short counts as the least one": {
			keys: []Key{{"a", at(0)}, {"b", at(100)}}, now: at(109), policy: Policy{Period: 720 * time.Hour, Overlap: time.Second},
			want: Plan{
				Signer: "b", NextRotation: at(30*day + 100 - lead), Due: at(100 + contract.KeyRetention.Minutes()),
			},
		},
		"a shorter period": {
			keys: []Key{{"a", at(0)}}, now: at(2 * day), policy: Policy{Period: 24 * time.Hour, Overlap: time.Hour},
			want: Plan{
				Signer: "a", NextRotation: at(day - lead), Late: 24*time.Hour + contract.KeyLead,
				Make: &Making{at(2*day + lead), "the period of 24h0m0s is over"},
			},
		},
		"no room for a request": {
			keys: many(8), now: at(45), wanted: "now",
			want: Plan{
				Signer: "h", NextRotation: at(30*day + 35 - lead), Due: at(65),
				Held: "8 keys are published; the next is made when the first of them retires, at 2026-01-01T01:05:00Z",
			},
		},
		"room again": {
			keys: many(8), now: at(65), wanted: "now",
			want: Plan{
				Signer: "h", NextRotation: at(30*day + 35 - lead), Due: at(70), Answered: "now",
				Retire: []Retirement{{"a", "no token of it is good any more"}},
				Make:   &Making{at(65 + lead), `asked for by "now"`},
			},
		},
		"an empty document": {
			now: at(0),
			want: Plan{
				NextRotation: at(0), Make: &Making{at(-1), "no key signs yet"},
			},
		},
		"the clock stepped back a little behind the first key": {
			keys: []Key{{"a", at(2)}}, now: at(0),
			want: Plan{NextRotation: at(30*day + 2 - lead), Due: at(2)},
		},
		"the clock stepped back far behind every key": {
			keys: []Key{{"a", at(600)}, {"b", at(700)}}, now: at(0), wanted: "now",
			want: Plan{
				NextRotation: at(30*day + 700 - lead), Due: at(600), Answered: "now",
				Make: &Making{at(-1), "no key signs yet"},
			},
		},
		"and there is no room": {
			keys: many(8), now: at(-600),
			want: Plan{
				NextRotation: at(30*day + 35 - lead), Due: at(0),
				Trouble: "no key signs before 2026-01-01T00:00:00Z, and 8 keys are published already: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough",
			},
		},
		"a key stands there twice": {
			keys: []Key{{"a", at(100)}, {"a", at(0)}, {"b", at(50)}}, now: at(40), wanted: "now",
			want: Plan{
				Signer: "a", NextRotation: at(30*day + 100 - lead), Due: at(50),
				Trouble: "key a is to sign only from 2026-01-01T01:40:00Z on: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough",
			},
		},
		"and is not retired by its earlier time": {
			keys: []Key{{"a", at(100)}, {"a", at(0)}, {"b", at(50)}}, now: at(200),
			want: Plan{
				Signer: "a", NextRotation: at(30*day + 100 - lead), Due: at(30*day + 100 - lead),
				Retire: []Retirement{{"b", "no token of it is good any more"}},
			},
		},
		"a key without a time": {
			keys: []Key{{"a", time.Time{}}, {"b", at(0)}}, now: at(30),
			want: Plan{Signer: "b", NextRotation: at(30*day - lead), Due: at(60)},
		},
		"equal times: the first signs, and neither retires the other": {
			keys: []Key{{"b", at(0)}, {"a", at(0)}}, now: at(600),
			want: Plan{Signer: "b", NextRotation: at(30*day - lead), Due: at(30*day - lead)},
		},
		"all revoked": {
			keys: []Key{{"a", at(0)}, {"b", at(100)}}, now: at(101), wanted: "revoke-2026",
			want: Plan{
				Signer: "b", NextRotation: at(30*day + 100 - lead), Due: at(160), Answered: "revoke-2026",
				Make: &Making{at(100), `asked for by "revoke-2026"`},
				Retire: []Retirement{
					{"a", `asked for by "revoke-2026", at once`},
					{"b", `asked for by "revoke-2026", at once`},
				},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.policy == (Policy{}) {
				tt.policy = policy
			}
			got := Decide(Input{Keys: tt.keys, Policy: tt.policy, Wanted: tt.wanted, Answered: tt.answered, Now: tt.now})
			got.Schedule = nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSchedule(t *testing.T) {
	in := Input{
		Keys:   []Key{{"c", at(200)}, {"a", at(0)}, {"b", at(100)}},
		Policy: Policy{Period: 720 * time.Hour, Overlap: time.Hour},
		Now:    at(120),
	}
	want := []Slot{{Key{"a", at(0)}, at(160)}, {Key{"b", at(100)}, at(260)}, {Key: Key{"c", at(200)}}}
	if diff := cmp.Diff(want, Decide(in).Schedule); diff != "" {
		t.Errorf("schedule (-want +got):\n%s", diff)
	}
}

// The least overlap that the resource takes leaves every token its life.
func TestLeastOverlap(t *testing.T) {
	const leastOverlap = 10 * time.Minute // api/v1alpha1, KeyRotationSpec
	if contract.KeyRetention > leastOverlap {
		t.Errorf("a key must stay for %s; the resource lets people ask for %s", contract.KeyRetention, leastOverlap)
	}
	if least := 2*time.Minute + contract.JWKSMaxAge; contract.KeyLead < least {
		t.Errorf("a key is published for %s before it signs, want at least %s", contract.KeyLead, least)
	}
}
