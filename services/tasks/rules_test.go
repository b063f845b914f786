package tasks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/internal/fault"
)

func TestDraftClean(t *testing.T) {
	t.Parallel()
	good := Draft{Title: "Mow", Description: "The lawn", Budget: Money{2500, "EUR"}, Location: "Berlin"}
	with := func(change func(*Draft)) Draft {
		d := good
		change(&d)
		return d
	}
	tests := map[string]struct {
		draft       Draft
		want        Draft
		wantPointer string
	}{
		"good":                  {draft: good, want: good},
		"white space goes":      {draft: with(func(d *Draft) { d.Title = " \tMow\n" }), want: good},
		"no location":           {draft: with(func(d *Draft) { d.Location = "" }), want: with(func(d *Draft) { d.Location = "" })},
		"lines in description":  {draft: with(func(d *Draft) { d.Description = "a\n\tb" }), want: with(func(d *Draft) { d.Description = "a\n\tb" })},
		"longest title":         {draft: with(func(d *Draft) { d.Title = strings.Repeat("é", MaxTitle) }), want: with(func(d *Draft) { d.Title = strings.Repeat("é", MaxTitle) })},
		"blank title":           {draft: with(func(d *Draft) { d.Title = " \u00a0 " }), wantPointer: "/title"},
		"long title":            {draft: with(func(d *Draft) { d.Title = strings.Repeat("é", MaxTitle+1) }), wantPointer: "/title"},
		"lines in title":        {draft: with(func(d *Draft) { d.Title = "a\nb" }), wantPointer: "/title"},
		"NUL in description":    {draft: with(func(d *Draft) { d.Description = "a\x00b" }), wantPointer: "/description"},
		"not UTF-8":             {draft: with(func(d *Draft) { d.Location = "a\xffb" }), wantPointer: "/location"},
		"nothing to earn":       {draft: with(func(d *Draft) { d.Budget.AmountMinor = 0 }), wantPointer: "/budget/amount_minor"},
		"too much":              {draft: with(func(d *Draft) { d.Budget.AmountMinor = MaxAmountMinor + 1 }), wantPointer: "/budget/amount_minor"},
		"small currency":        {draft: with(func(d *Draft) { d.Budget.Currency = "eur" }), wantPointer: "/budget/currency"},
		"currency of two":       {draft: with(func(d *Draft) { d.Budget.Currency = "EU" }), wantPointer: "/budget/currency"},
		"currency between caps": {draft: with(func(d *Draft) { d.Budget.Currency = "E1R" }), wantPointer: "/budget/currency"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := test.draft.clean()
			if test.wantPointer != "" {
				wantInvalid(t, err, test.wantPointer)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("clean (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBidClean(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		bid         Bid
		wantPointer string
	}{
		"good":           {Bid{Money{2000, "EUR"}, "today"}, ""},
		"no message":     {Bid{Money{2000, "EUR"}, ""}, ""},
		"above budget":   {Bid{Money{9000, "EUR"}, ""}, ""},
		"other currency": {Bid{Money{2000, "CHF"}, ""}, "/price/currency"},
		"free":           {Bid{Money{0, "EUR"}, ""}, "/price/amount_minor"},
		"long message":   {Bid{Money{2000, "EUR"}, strings.Repeat("a", MaxMessage+1)}, "/message"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := test.bid.clean(Money{2500, "EUR"})
			if test.wantPointer != "" {
				wantInvalid(t, err, test.wantPointer)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func wantInvalid(t *testing.T, err error, pointer string) {
	t.Helper()
	if f := fault.From(err); err == nil || f.Kind != fault.Invalid || f.Code != "invalid" || f.Pointer != pointer {
		t.Fatalf("error = %v at %q, want invalid at %s", err, fault.From(err).Pointer, pointer)
	}
}
