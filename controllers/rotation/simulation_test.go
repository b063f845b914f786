package rotation

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/api/contract"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	// fileAge is how old the copy of a mounted file may be.
	fileAge = contract.KeyFileDelay + contract.KeyReload
	// answerAge is how old an answer of auth may be that a verifier still uses:
	// auth read its file late, and the verifier keeps the answer.
	answerAge = fileAge + contract.JWKSMaxAge
	// apart is how far a clock is from the true one. Two differ by twice as much.
	apart = contract.TokenLeeway / 2
)

// publication is the document from a moment on.
type publication struct {
	since time.Duration
	keys  []Key
}

// simulation is an installation: one operator, auth processes and verifiers
// that read what it publishes sooner or later, with clocks that differ.
type simulation struct {
	// elapsed is true time; the clocks show it from start on, and stepped.
	elapsed, stepped time.Duration
	// operatorApart is how far the operator's clock is from the others' mean.
	operatorApart time.Duration
	history       []publication
	policy        Policy
	wanted        string
	answered      string
	next          int
	// ends is when the last token of each key expires, by the true clock.
	ends map[string]time.Time
	// sudden keys signed at once: verifiers need until then to know them.
	sudden map[string]time.Duration
	plan   Plan
	log    func(format string, args ...any)
}

func newSimulation(policy Policy, keys []Key) *simulation {
	s := &simulation{
		policy: policy, ends: map[string]time.Time{}, sudden: map[string]time.Duration{},
		log: func(string, ...any) {},
	}
	s.publish(keys)
	return s
}

func (s *simulation) clock() time.Time { return start.Add(s.elapsed + s.stepped) }

func (s *simulation) publish(keys []Key) {
	s.history = append(s.history, publication{s.elapsed, keys})
}

func (s *simulation) keys() []Key { return s.history[len(s.history)-1].keys }

// seen is what a process knows whose copy is that old.
func (s *simulation) seen(age time.Duration) []Key {
	for i := len(s.history) - 1; i > 0; i-- {
		if s.history[i].since <= s.elapsed-age {
			return s.history[i].keys
		}
	}
	return s.history[0].keys
}

// operate is one look of the operator.
func (s *simulation) operate() {
	s.plan = Decide(Input{
		Keys: s.keys(), Policy: s.policy, Wanted: s.wanted, Answered: s.answered, Now: s.clock().Add(s.operatorApart),
	})
	p, keys := s.plan, slices.Clone(s.keys())
	s.answered = p.Answered
	if p.Answer != "" {
		s.log("answered  %q: %s", s.wanted, p.Answer)
	}
	for _, r := range p.Retire {
		s.log("retired   %s: %s", r.ID, r.Reason)
		keys = slices.DeleteFunc(keys, func(k Key) bool { return k.ID == r.ID })
	}
	if p.Make != nil {
		s.next++
		key := Key{fmt.Sprintf("key-%d", s.next), p.Make.ActivatesAt}
		s.log("made      %s, signs from %s on: %s", key.ID, date(key.ActivatesAt), p.Make.Reason)
		keys = append(keys, key)
		if !key.ActivatesAt.After(s.clock()) {
			s.sudden[key.ID] = s.elapsed + answerAge
		}
	}
	if p.Make != nil || len(p.Retire) > 0 {
		s.publish(keys)
	}
}

// check says what is wrong now, after the auth processes have signed.
func (s *simulation) check() error {
	now := s.clock()
	for _, age := range []time.Duration{0, fileAge} {
		for _, clock := range []time.Time{now.Add(-apart), now.Add(apart)} {
			if key, ok := signerOf(s.seen(age), clock); ok {
				end := now.Add(contract.AccessTokenLife + contract.TokenLeeway + 2*apart)
				if end.After(s.ends[key.ID]) {
					s.ends[key.ID] = end
				}
			}
		}
	}
	for id, end := range s.ends {
		switch {
		case end.Before(now):
			delete(s.ends, id)
			continue
		case s.elapsed < s.sudden[id]:
			continue
		}
		for _, age := range []time.Duration{0, fileAge, answerAge} {
			if !slices.ContainsFunc(s.seen(age), func(k Key) bool { return k.ID == id }) {
				return fmt.Errorf("a token of %s is good until %s, and refused where the keys are %s old", id, date(end), age)
			}
		}
	}
	keys := s.keys()
	if len(keys) > MaxKeys {
		return fmt.Errorf("%d keys are published", len(keys))
	}
	if before := s.history[max(0, len(s.history)-2)].keys; len(keys) > len(before)+1 {
		return fmt.Errorf("%d keys were made at once", len(keys)-len(before))
	}
	// Only the youngest documents are ever seen.
	if len(s.history) > 20 && s.history[1].since < s.elapsed-answerAge {
		s.history = s.history[1:]
	}
	return nil
}

// mustSign says that some key must sign everywhere.
func (s *simulation) mustSign() error {
	for _, age := range []time.Duration{0, fileAge} {
		if _, ok := signerOf(s.seen(age), s.clock().Add(-apart)); !ok {
			return fmt.Errorf("no key signs where the keys are %s old", age)
		}
	}
	return nil
}

const (
	hour = time.Hour
	day  = 24 * hour
)

// TestYear runs a year of looks, half a minute apart, and compares what was
// done with a golden log.
func TestYear(t *testing.T) {
	const tick = 30 * time.Second
	type step struct {
		at   time.Duration
		what string
		do   func(*simulation)
	}
	var (
		down bool
		ask  = func(value string) func(*simulation) {
			return func(s *simulation) { s.wanted = value }
		}
		policy = func(period, overlap time.Duration) func(*simulation) {
			return func(s *simulation) { s.policy = Policy{period, overlap} }
		}
	)
	steps := []step{
		{12 * day, "someone asks for a key", ask("now")},
		{12*day + 2*time.Minute, "and again, two minutes later", ask("now, please")},
		{12*day + 3*time.Minute, "the request is taken away", ask("")},
		{50 * day, "someone asks for a key every five minutes", nil},
		{80 * day, "a key a day, kept for two hours", policy(day, 2*hour)},
		{83 * day, "a key a quarter", policy(90*day, hour)},
		{120 * day, "the operator's clock is fast", func(s *simulation) { s.operatorApart = apart }},
		{150 * day, "someone asks for a key", ask("before the step")},
		{150*day + time.Minute, "the clocks step back by 45 minutes", func(s *simulation) { s.stepped -= 45 * time.Minute }},
		{150*day + 20*time.Minute, "someone asks for a key", ask("after the step")},
		{180 * day, "a key every 30 days, and the operator's clock is slow", func(s *simulation) {
			s.policy, s.operatorApart = Policy{30 * day, hour}, -apart
		}},
		{200 * day, "the operator is away", func(*simulation) { down = true }},
		{270 * day, "and back", func(*simulation) { down = false }},
		{300 * day, "a key an hour", policy(hour, 10*time.Minute)},
		{300*day + 4*hour, "a key every 30 days", policy(30*day, hour)},
		{320 * day, "all keys are revoked", func(s *simulation) {
			s.wanted = "revoke"
			s.ends = map[string]time.Time{} // they are meant to be refused
		}},
	}
	for i := range 12 {
		steps = append(steps, step{50*day + time.Duration(i)*5*time.Minute, "", ask(fmt.Sprintf("request %d", i+1))})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })

	var log bytes.Buffer
	s := newSimulation(Policy{30 * day, hour}, nil)
	s.log = func(format string, args ...any) {
		fmt.Fprintf(&log, "%s  %s\n", date(s.clock()), fmt.Sprintf(format, args...))
	}
	s.operate()
	s.history = s.history[1:] // the services start once there is a key
	held := ""
	for ; s.elapsed < 365*day; s.elapsed += tick {
		for len(steps) > 0 && steps[0].at <= s.elapsed {
			if steps[0].what != "" {
				s.log("-- %s", steps[0].what)
			}
			if steps[0].do != nil {
				steps[0].do(s)
			}
			steps = steps[1:]
		}
		if !down {
			revoked := s.wanted != s.answered && s.wanted == "revoke"
			s.operate()
			if revoked {
				s.history = s.history[len(s.history)-1:]
			}
			if now := s.plan.Held + s.plan.Trouble; now != held {
				held = now
				s.log("held      %s", held)
			}
		}
		if err := s.check(); err != nil {
			t.Fatalf("%s: %v\n%s", date(s.clock()), err, log.String())
		}
		if err := s.mustSign(); err != nil {
			t.Fatalf("%s: %v\n%s", date(s.clock()), err, log.String())
		}
	}
	golden := filepath.Join("testdata", "year.golden.txt")
	if *update {
		if err := os.WriteFile(golden, log.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), log.String()); diff != "" {
		t.Errorf("log (-want +got; -update writes it anew):\n%s", diff)
	}
}

// TestAnyCourse lets chance decide what happens, from documents that chance
// wrote, damaged ones among them.
func TestAnyCourse(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
		var keys []Key
		for i := range random.IntN(6) {
			at := start.Add(upTo(90*day) - 60*day)
			switch random.IntN(8) {
			case 0:
				at = time.Time{}
			case 1:
				at = start.AddDate(4, 0, 0)
			}
			keys = append(keys, Key{fmt.Sprintf("old-%d", random.IntN(i+2)), at})
		}
		s := newSimulation(Policy{hour + upTo(60*day), upTo(2 * day)}, keys)
		s.operatorApart = upTo(2*apart) - apart
		var log bytes.Buffer
		s.log = func(format string, args ...any) {
			fmt.Fprintf(&log, "%s  %s\n", date(s.clock()), fmt.Sprintf(format, args...))
		}
		// When a key signed, or else the operator came back, for the last time.
		signed := 0 * time.Second
		told := Policy{}
		for range 4000 {
			down := false
			switch random.IntN(60) {
			case 0:
				s.wanted = fmt.Sprintf("request %d", random.IntN(4))
			case 1:
				s.policy = Policy{hour + upTo(60*day), upTo(2 * day)}
			case 2:
				// Less than a key's overlap: a longer step may leave no key that
				// signs, which the table above covers.
				s.stepped -= upTo(contract.KeyRetention - contract.KeyLead)
			case 3:
				down = true
				// It is away for long, and the others go on.
				for range random.IntN(100) {
					s.elapsed += upTo(hour)
					if err := s.check(); err != nil {
						t.Fatalf("seed %d: %s: while away: %v\n%s", seed, date(s.clock()), err, log.String())
					}
				}
				signed = s.elapsed
			case 4:
				s.elapsed += upTo(20 * day)
				signed = s.elapsed
			}
			if !down {
				quiet := s.plan.Due.After(s.clock().Add(s.operatorApart)) && s.wanted == s.answered && s.policy == told && s.plan.Make == nil
				before := s.plan
				s.operate()
				told = s.policy
				if quiet && (s.plan.Make != nil || len(s.plan.Retire) > 0) {
					t.Fatalf("seed %d: %s: something was done before the time that was told, which was %s\n%s", seed, date(s.clock()), date(before.Due), log.String())
				}
			}
			if err := s.check(); err != nil {
				t.Fatalf("seed %d: %s: %v\n%s", seed, date(s.clock()), err, log.String())
			}
			if s.mustSign() == nil {
				signed = s.elapsed
			} else if lost := s.elapsed - signed; lost > contract.KeyLead+fileAge+2*hour && s.plan.Trouble == "" {
				t.Fatalf("seed %d: %s: no key has signed for %s\n%s", seed, date(s.clock()), lost, log.String())
			}
			s.elapsed += upTo(4 * time.Minute)
		}
	}
}
