package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// thresholds are the limits; thresholds.yaml says where each comes from.
type thresholds struct {
	Marketplaces       int             `json:"marketplaces"`
	Applied            metav1.Duration `json:"applied"`
	PeakMemoryMiB      int64           `json:"peakMemoryMiB"`
	WritesPerObject    int             `json:"writesPerObject"`
	RefusedWrites      float64         `json:"refusedWrites"`
	QuietWrites        int             `json:"quietWrites"`
	QuietProcessor     float64         `json:"quietProcessor"`
	Change             metav1.Duration `json:"change"`
	TimesTheSmallest   float64         `json:"timesTheSmallest"`
	SecondsToStartWith metav1.Duration `json:"secondsToStartWith"`
}

func readThresholds(path string) (thresholds, error) {
	var t thresholds
	document, err := os.ReadFile(path) //nolint:gosec // The caller names it.
	if err != nil {
		return t, err
	}
	if err := yaml.UnmarshalStrict(document, &t); err != nil {
		return t, fmt.Errorf("read %s: %w", path, err)
	}
	return t, nil
}

// check returns what exceeded its limit. Sizes other than that of the limits
// are measured for comparison.
func (t thresholds) check(results []result) error {
	var errs []error
	exceeds := func(r result, what string, got, limit any) {
		errs = append(errs, fmt.Errorf("%d Marketplaces: %s is %v, the limit is %v", r.marketplaces, what, got, limit))
	}
	for _, r := range results {
		if most, which := r.fill.most(); most > t.WritesPerObject {
			exceeds(r, "the number of writes of "+which, most, t.WritesPerObject)
		}
		if share := r.fill.refusedShare(); share > t.RefusedWrites {
			exceeds(r, "the share of writes that were refused", share, t.RefusedWrites)
		}
		if n := r.quiet.writes() + r.quiet.events; n > t.QuietWrites {
			exceeds(r, "the number of writes in the quiet time", n, t.QuietWrites)
		}
		if r.change > t.Change.Duration {
			exceeds(r, "the time until a changed field was applied", r.change, t.Change.Duration)
		}
		if r.marketplaces > t.Marketplaces {
			continue
		}
		if r.applied > t.Applied.Duration {
			exceeds(r, "the time until all was applied", r.applied, t.Applied.Duration)
		}
		if peak := r.peak >> 20; peak > t.PeakMemoryMiB {
			exceeds(r, "the operator's memory at its peak in MiB", peak, t.PeakMemoryMiB)
		}
		if r.quietProcessor > t.QuietProcessor {
			exceeds(r, "the share of a processor in the quiet time", r.quietProcessor, t.QuietProcessor)
		}
	}
	if len(results) > 1 {
		small, large := results[0], results[len(results)-1]
		// Both include what does not grow with their number.
		begin := t.SecondsToStartWith.Duration
		factor := float64(large.marketplaces) / float64(small.marketplaces)
		limit := begin + time.Duration(float64(small.applied)*factor*t.TimesTheSmallest)
		if large.applied > limit {
			exceeds(large, fmt.Sprintf("the time, compared with %d Marketplaces,", small.marketplaces), large.applied, limit)
		}
	}
	return errors.Join(errs...)
}
