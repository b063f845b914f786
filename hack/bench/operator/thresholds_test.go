package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// limits are such that round numbers lie on either side of them.
var limits = thresholds{
	RefusedWrites: 0.01,
	Marketplaces:  1000, Applied: metav1.Duration{Duration: 6 * time.Minute}, PeakMemoryMiB: 300,
	WritesPerObject: 2, QuietWrites: 0, QuietProcessor: 0.1, Change: metav1.Duration{Duration: 2 * time.Second},
	TimesTheSmallest: 1.2, SecondsToStartWith: metav1.Duration{Duration: 5 * time.Second},
}

// measured is a run that exceeds nothing, as far as it can go.
func measured(marketplaces int, applied time.Duration) result {
	return result{
		marketplaces: marketplaces, applied: applied,
		fill:           counts{byObject: map[string]int{"deployments market/shop-auth": 2, "marketplaces market/shop": 2}, events: 6000},
		quiet:          counts{leases: 30, reads: map[string]int{"get secrets": 9}},
		quietProcessor: 0.1, peak: 300 << 20, change: 2 * time.Second,
	}
}

// Whatever exceeds its limit is told by its name, and nothing else is.
func TestThresholds(t *testing.T) {
	tests := map[string]struct {
		change func(small, large *result)
		want   []string // of what is told, one for each line
	}{
		"all at their limits": {func(*result, *result) {}, nil},
		"too late": {
			func(small, large *result) { small.applied, large.applied = 30*time.Second, 6*time.Minute+time.Second },
			[]string{"1000 Marketplaces: the time until all was applied is 6m1s, the limit is 6m0s"},
		},
		"one writes a lot, the other not": {
			func(small, _ *result) { small.fill.byObject["services market/shop-auth"] = 3 },
			[]string{"100 Marketplaces: the number of writes of services market/shop-auth is 3"},
		},
		"a loop of conflicts": {
			func(_, large *result) {
				large.fill.byObject = map[string]int{"deployments market/shop-auth": 1}
				large.fill.refused = map[string]int{"deployments patch 409": 1}
			},
			[]string{"1000 Marketplaces: the share of writes that were refused is 0.5, the limit is 0.01"},
		},
		"a write in the quiet time": {
			func(_, large *result) { large.quiet.byObject = map[string]int{"marketplaces market/shop": 1} },
			[]string{"1000 Marketplaces: the number of writes in the quiet time is 1"},
		},
		"an Event in the quiet time": {
			func(_, large *result) { large.quiet.events = 1 },
			[]string{"1000 Marketplaces: the number of writes in the quiet time is 1"},
		},
		"a change is slow": {
			func(_, large *result) { large.change = 2001 * time.Millisecond },
			[]string{"1000 Marketplaces: the time until a changed field was applied is 2.001s"},
		},
		"much memory": {
			func(_, large *result) { large.peak = 301 << 20 },
			[]string{"1000 Marketplaces: the operator's memory at its peak in MiB is 301"},
		},
		"much memory where few should need little": {
			func(small, _ *result) { small.peak = 301 << 20 },
			[]string{"100 Marketplaces: the operator's memory at its peak in MiB is 301"},
		},
		"busy in the quiet time": {
			func(_, large *result) { large.quietProcessor = 0.11 },
			[]string{"1000 Marketplaces: the share of a processor in the quiet time is 0.11"},
		},
		// Ten times as many may take 5 s and 1.2 times 10 times 10 s.
		"as linear as it may be": {func(small, large *result) { small.applied, large.applied = 10*time.Second, 125*time.Second }, nil},
		"not linear": {
			func(small, large *result) { small.applied, large.applied = 10*time.Second, 126*time.Second },
			[]string{"1000 Marketplaces: the time, compared with 100 Marketplaces, is 2m6s, the limit is 2m5s"},
		},
		"more than the limits are for": {
			func(small, large *result) {
				small.marketplaces, large.marketplaces, small.applied = 1000, 2000, 6*time.Minute
				large.applied, large.peak, large.quietProcessor = 12*time.Minute, 600<<20, 0.2
			}, nil,
		},
		"more, and what holds at any size": {
			func(small, large *result) {
				small.marketplaces, large.marketplaces, small.applied = 1000, 2000, 6*time.Minute
				large.quiet.events, large.change = 2, 3*time.Second
			},
			[]string{"2000 Marketplaces: the number of writes in the quiet time is 2", "2000 Marketplaces: the time until a changed field"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			small, large := measured(100, 60*time.Second), measured(1000, 6*time.Minute)
			tt.change(&small, &large)
			var told []string
			if err := limits.check([]result{small, large}); err != nil {
				told = strings.Split(err.Error(), "\n")
			}
			if len(told) != len(tt.want) {
				t.Fatalf("told %q, want %q", told, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(told[i], want) {
					t.Errorf("told %q, want %q", told[i], want)
				}
			}
		})
	}
}

// A limit that is not set would let nothing through, or everything.
func TestThresholdsFile(t *testing.T) {
	got, err := readThresholds("thresholds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got.QuietWrites != 0 {
		t.Errorf("%d writes are let through in the quiet time, want none", got.QuietWrites)
	}
	if got.Marketplaces == 0 || got.Applied.Duration == 0 || got.PeakMemoryMiB == 0 || got.WritesPerObject == 0 || got.QuietProcessor == 0 ||
		got.Change.Duration == 0 || got.TimesTheSmallest < 1 || got.SecondsToStartWith.Duration == 0 {
		t.Errorf("a limit is missing: %+v", got)
	}
	file := filepath.Join(t.TempDir(), "thresholds.yaml")
	if err := os.WriteFile(file, []byte("apply: 6m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readThresholds(file); err == nil || !strings.Contains(err.Error(), "apply") {
		t.Errorf("a mistyped limit: %v", err)
	}
}

// The audit log is counted as it grows: what reads, what writes, Events and the
// Lease each for themselves, and a line that is not whole yet with the next.
func TestAuditLog(t *testing.T) {
	const (
		create  = `{"verb":"create","objectRef":{"resource":"services","namespace":"market","name":"shop-auth"},"responseStatus":{"code":201}}` + "\n"
		patch   = `{"verb":"patch","objectRef":{"resource":"services","namespace":"market","name":"shop-auth"},"responseStatus":{"code":409}}` + "\n"
		status  = `{"verb":"patch","objectRef":{"resource":"marketplaces","subresource":"status","namespace":"market","name":"shop"},"responseStatus":{"code":200}}` + "\n"
		whole   = `{"verb":"patch","objectRef":{"resource":"marketplaces","namespace":"market","name":"shop"},"responseStatus":{"code":200}}` + "\n"
		remove  = `{"verb":"delete","objectRef":{"resource":"services","namespace":"market","name":"shop-old"},"responseStatus":{"code":200}}` + "\n"
		read    = `{"verb":"get","objectRef":{"resource":"secrets","namespace":"market","name":"shop-bus"},"responseStatus":{"code":404}}` + "\n"
		watch   = `{"verb":"watch","objectRef":{"resource":"secrets"},"responseStatus":{"code":200}}` + "\n"
		event   = `{"verb":"create","objectRef":{"resource":"events","namespace":"market","name":"shop.1"},"responseStatus":{"code":201}}` + "\n"
		lease   = `{"verb":"update","objectRef":{"resource":"leases","namespace":"marketplane-system","name":"marketplane-operator"},"responseStatus":{"code":200}}` + "\n"
		service = "services market/shop-auth"
	)
	path := filepath.Join(t.TempDir(), "audit.log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	write := func(lines ...string) {
		if _, err := file.WriteString(strings.Join(lines, "")); err != nil {
			t.Fatal(err)
		}
	}
	log := &auditLog{path: path}
	next := func(want counts) {
		t.Helper()
		got, err := log.next()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(counts{})); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	}
	write(create, patch, status, whole, remove, read, watch, event, event, lease, create[:20])
	next(counts{
		byObject: map[string]int{service: 1, "marketplaces market/shop": 2, "services market/shop-old": 1},
		byKind:   map[string]int{"services create": 1, "services delete": 1, "marketplaces/status patch": 1, "marketplaces patch": 1},
		refused:  map[string]int{"services patch 409": 1},
		reads:    map[string]int{"get secrets": 1, "watch secrets": 1},
		events:   2, leases: 1,
	})
	write(create[20:])
	next(counts{
		byObject: map[string]int{service: 1}, byKind: map[string]int{"services create": 1},
		refused: map[string]int{}, reads: map[string]int{},
	})

	c := counts{byObject: map[string]int{"b": 3, "a": 3, "c": 1}, refused: map[string]int{"b": 2}, events: 7, leases: 9}
	if most, which := c.most(); c.writes() != 9 || most != 3 || which != "a" {
		t.Errorf("%d writes, the most %d of %s; want 9, 3 of a", c.writes(), most, which)
	}
}
