package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// thresholds are the limits by figure, of one door; thresholds.yaml says where each
// comes from.
type thresholds map[string]limit

// limit bounds a figure. What is nil does not count. Figures are in bytes, seconds,
// and things a second.
type limit struct {
	// Most and Least are for ours.
	Most  *float64 `json:"most,omitempty"`
	Least *float64 `json:"least,omitempty"`
	// MostTimesPeer and LeastTimesPeer are for ours divided by the peer's.
	MostTimesPeer  *float64 `json:"mostTimesPeer,omitempty"`
	LeastTimesPeer *float64 `json:"leastTimesPeer,omitempty"`
}

// readThresholds reads the limits of one door.
func readThresholds(path, door string) (thresholds, error) {
	document, err := os.ReadFile(path) //nolint:gosec // The caller names it.
	if err != nil {
		return nil, err
	}
	var doors map[string]thresholds
	if err := yaml.UnmarshalStrict(document, &doors); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	t := doors[door]
	known := map[string]bool{}
	for _, r := range rows() {
		known[r.figure] = true
		if _, ok := t[r.figure]; !ok {
			return nil, fmt.Errorf("%s has no limit for %s through the door %s", path, r.figure, door)
		}
	}
	for figure := range t {
		if !known[figure] {
			return nil, fmt.Errorf("%s has a limit for %s, which is not measured", path, figure)
		}
	}
	return t, nil
}

// of says what a row must show.
func (t thresholds) of(r row) string {
	l := t[r.figure]
	var parts []string
	add := func(format string, v *float64, show func(float64) string) {
		if v != nil {
			parts = append(parts, fmt.Sprintf(format, show(*v)))
		}
	}
	times := func(v float64) string { return fmt.Sprintf("%g", v) }
	add("at most %s", l.Most, r.show)
	add("at least %s", l.Least, r.show)
	add("at most %s times the peer's", l.MostTimesPeer, times)
	add("at least %s times the peer's", l.LeastTimesPeer, times)
	return strings.Join(parts, ", ")
}

// mostDropped is the share of deliveries that ours may drop in any run, for its
// figures to count: what is not delivered costs little.
const mostDropped = 0.01

// check returns what exceeded its limit, judging medians.
func (t thresholds) check(outcomes map[string][][]outcome) error {
	var errs []error
	for _, name := range strings.Split(everything, ",") {
		for _, both := range outcomes[name] {
			if o := both[0]; float64(o.dropped) > mostDropped*float64(o.operations+o.dropped) {
				errs = append(errs, fmt.Errorf("%s: %d of %d deliveries were dropped", name, o.dropped, o.operations+o.dropped))
			}
		}
	}
	for _, r := range rows() {
		repeats := outcomes[r.work]
		if len(repeats) == 0 {
			continue
		}
		l := t[r.figure]
		ours, _, times := figures(repeats, r.figure)
		if exceeds(ours.median, l.Least, l.Most) {
			errs = append(errs, fmt.Errorf("%s: %s; it must be %s", r.title, r.show(ours.median), t.of(r)))
		}
		if exceeds(times.median, l.LeastTimesPeer, l.MostTimesPeer) {
			errs = append(errs, fmt.Errorf("%s: %.2f times the peer's; it must be %s", r.title, times.median, t.of(r)))
		}
	}
	return errors.Join(errs...)
}

func exceeds(v float64, least, most *float64) bool {
	return least != nil && v < *least || most != nil && v > *most
}
