package reach_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/reach"
)

// fakeTarget has the result that the test gives it.
type fakeTarget struct {
	digest string

	mu     sync.Mutex
	result reach.Result
	looks  []time.Duration // since began
	began  time.Time
	// takes is how long a look takes.
	takes time.Duration
}

func newFake(digest string, result reach.Result) *fakeTarget {
	return &fakeTarget{digest: digest, result: result, began: time.Now()}
}

func (f *fakeTarget) Digest() string { return f.digest }

func (f *fakeTarget) Probe(ctx context.Context) reach.Result {
	f.mu.Lock()
	f.looks = append(f.looks, time.Since(f.began))
	result, takes := f.result, f.takes
	f.mu.Unlock()
	select {
	case <-time.After(takes):
		return result
	case <-ctx.Done():
		return reach.Result{Reason: v1alpha1.ReasonUnreachable, Message: "too slow"}
	}
}

func (f *fakeTarget) set(result reach.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result = result
}

func (f *fakeTarget) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.looks)
}

var (
	good = reach.Result{Reason: v1alpha1.ReasonReady, Message: "fine"}
	gone = reach.Result{Reason: v1alpha1.ReasonUnreachable, Message: "gone"}
	shut = reach.Result{Reason: v1alpha1.ReasonAuthenticationFailed, Message: "shut"}
)

func owner(name string) reach.Owner {
	return reach.Owner{Marketplace: types.NamespacedName{Namespace: "market", Name: name}, Concern: "database"}
}

// inBubble runs a prober on a clock of the test's own.
func inBubble(t *testing.T, test func(t *testing.T, p *reach.Prober, woken func() []string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := reach.NewProber()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Start(ctx) }()
		woken := func() []string {
			synctest.Wait()
			var names []string
			for {
				select {
				case e := <-p.Woken():
					names = append(names, e.Object.GetName())
				default:
					return names
				}
			}
		}
		test(t, p, woken)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestProberTellsNewsAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, p *reach.Prober, woken func() []string) { //nolint:thelper // It is the test.
		target := newFake("a", good)
		if _, known := p.Last(owner("shop")); known {
			t.Error("something is known of a target that nobody named")
		}
		p.Watch(owner("shop"), target)
		want(t, "woken at first", woken(), []string{"shop"})
		result, known := p.Last(owner("shop"))
		want(t, "result", []any{result, known}, []any{good, true})

		// While it is well it is looked at every 10 s, and nobody hears of it.
		time.Sleep(10 * time.Minute)
		want(t, "woken by nothing new", woken(), []string(nil))
		if n := target.count(); n < 54 || n > 67 {
			t.Errorf("%d looks in 10 minutes", n)
		}

		// An outage is believed at the second look, which comes soon.
		target.set(gone)
		time.Sleep(14 * time.Second)
		want(t, "woken by an outage", woken(), []string{"shop"})
		result, _ = p.Last(owner("shop"))
		want(t, "result", result, gone)

		// It is looked at more and more slowly, and no more slowly than that.
		before := target.count()
		time.Sleep(10 * time.Minute)
		if n := target.count() - before; n < 18 || n > 26 {
			t.Errorf("%d looks in 10 minutes of an outage", n)
		}
		want(t, "woken by the same outage", woken(), []string(nil))
		target.set(good)
		time.Sleep(35 * time.Second)
		want(t, "woken by its end", woken(), []string{"shop"})

		// What is no question of luck is believed at once.
		target.set(shut)
		before = target.count()
		for target.count() == before {
			time.Sleep(time.Second)
		}
		want(t, "woken by a refusal", woken(), []string{"shop"})
	})
}

func TestProberOverlooksALostPacket(t *testing.T) {
	inBubble(t, func(t *testing.T, p *reach.Prober, woken func() []string) { //nolint:thelper // It is the test.
		target := newFake("a", good)
		p.Watch(owner("shop"), target)
		woken()
		target.set(gone)
		before := target.count()
		for target.count() == before {
			time.Sleep(time.Second)
		}
		target.set(good)
		time.Sleep(5 * time.Minute)
		want(t, "woken", woken(), []string(nil))
	})
}

func TestProberSharesAndForgets(t *testing.T) {
	inBubble(t, func(t *testing.T, p *reach.Prober, woken func() []string) { //nolint:thelper // It is the test.
		one, same := newFake("a", good), newFake("a", gone)
		p.Watch(owner("shop"), one)
		woken()
		p.Watch(owner("club"), same)
		result, known := p.Last(owner("club"))
		want(t, "result of an equal target", []any{result, known}, []any{good, true})
		want(t, "looks at the equal target", same.count(), 0)

		// Another target is another result, not that of the one before.
		other := newFake("b", shut)
		other.takes = time.Second
		p.Watch(owner("club"), other)
		if result, known := p.Last(owner("club")); known {
			t.Errorf("%+v is known of a target before the first look", result)
		}
		time.Sleep(2 * time.Second)
		want(t, "woken", woken(), []string{"club"})

		p.Forget(owner("shop"))
		p.Forget(owner("shop"))
		p.Forget(owner("club"))
		before := one.count() + other.count()
		time.Sleep(time.Hour)
		want(t, "looks after all have gone", one.count()+other.count(), before)
		want(t, "woken after all have gone", woken(), []string(nil))
	})
}

// Servers that do not answer do not hold up those that are new.
func TestProberBoundsItsWork(t *testing.T) {
	inBubble(t, func(t *testing.T, p *reach.Prober, woken func() []string) { //nolint:thelper // It is the test.
		for i := range 200 {
			silent := newFake(fmt.Sprint("silent-", i), good)
			silent.takes = time.Hour
			p.Watch(owner(fmt.Sprint("silent-", i)), silent)
		}
		drained := make(chan struct{})
		time.Sleep(5 * time.Minute)
		go func() { defer close(drained); woken() }()
		<-drained
		fresh := newFake("fresh", good)
		p.Watch(owner("fresh"), fresh)
		time.Sleep(reach.Timeout + time.Second)
		if got := strings.Join(woken(), " "); !strings.Contains(got, "fresh") {
			t.Errorf("a new server waits behind those that do not answer; woken: %s", got)
		}
	})
}

// Many servers that are well are looked at more seldom, and never more so than
// once a minute.
func TestProberSparesManyServers(t *testing.T) {
	tests := map[string]struct{ servers, min, max int }{
		"one":  {1, 54, 66},
		"400":  {400, 27, 33},
		"2000": {2000, 9, 11},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *reach.Prober, woken func() []string) { //nolint:thelper // It is the test.
				var targets []*fakeTarget
				for i := range tt.servers {
					targets = append(targets, newFake(strconv.Itoa(i), good))
					p.Watch(owner(strconv.Itoa(i)), targets[i])
				}
				for len(woken()) > 0 { // The channel is bounded.
				}
				time.Sleep(2 * time.Minute)
				before := targets[0].count()
				time.Sleep(10 * time.Minute)
				if n := targets[0].count() - before; n < tt.min || n > tt.max {
					t.Errorf("%d looks in 10 minutes, want %d to %d", n, tt.min, tt.max)
				}
			})
		})
	}
}
