package messaging

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// shelf is a Store with one conversation of some messages.
type shelf struct {
	Store
	head int64
}

func (s shelf) Head(context.Context, uuid.UUID, uuid.UUID) (int64, error) { return s.head, nil }

// Messages has more than the head said: some arrive meanwhile.
func (s shelf) Messages(_ context.Context, _ uuid.UUID, before int64, limit int) ([]Message, error) {
	var out []Message
	for seq := min(before-1, s.head+5); seq >= 1 && len(out) < limit; seq-- {
		out = append(out, Message{Seq: seq})
	}
	return out, nil
}

func TestHistory(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		head                  int64
		query                 HistoryQuery
		want                  []int64
		wantBefore, wantAfter int64
		wantErr               error
	}{
		"nothing yet":             {query: HistoryQuery{Limit: 3}},
		"newest":                  {head: 9, query: HistoryQuery{Limit: 3}, want: []int64{9, 8, 7}, wantBefore: 7},
		"all":                     {head: 2, query: HistoryQuery{Limit: 3}, want: []int64{2, 1}},
		"before":                  {head: 9, query: HistoryQuery{Before: 7, Limit: 3}, want: []int64{6, 5, 4}, wantBefore: 4, wantAfter: 6},
		"before the first":        {head: 9, query: HistoryQuery{Before: 1, Limit: 3}},
		"the oldest":              {head: 9, query: HistoryQuery{Before: 3, Limit: 3}, want: []int64{2, 1}, wantAfter: 2},
		"before what is not yet":  {head: 9, query: HistoryQuery{Before: 99, Limit: 3}, want: []int64{9, 8, 7}, wantBefore: 7},
		"after":                   {head: 9, query: HistoryQuery{After: 3, Limit: 3}, want: []int64{6, 5, 4}, wantBefore: 4, wantAfter: 6},
		"after, up to the newest": {head: 9, query: HistoryQuery{After: 7, Limit: 3}, want: []int64{9, 8}, wantBefore: 8},
		"after the newest":        {head: 9, query: HistoryQuery{After: 9, Limit: 3}},
		"after what is not yet":   {head: 9, query: HistoryQuery{After: 99, Limit: 3}},
		"around, odd":             {head: 9, query: HistoryQuery{Around: 5, Limit: 3}, want: []int64{6, 5, 4}, wantBefore: 4, wantAfter: 6},
		"around, even":            {head: 9, query: HistoryQuery{Around: 5, Limit: 4}, want: []int64{7, 6, 5, 4}, wantBefore: 4, wantAfter: 7},
		"around, alone":           {head: 9, query: HistoryQuery{Around: 5, Limit: 1}, want: []int64{5}, wantBefore: 5, wantAfter: 5},
		"around the first":        {head: 9, query: HistoryQuery{Around: 1, Limit: 3}, want: []int64{3, 2, 1}, wantAfter: 3},
		"around the newest":       {head: 9, query: HistoryQuery{Around: 9, Limit: 3}, want: []int64{9, 8, 7}, wantBefore: 7},
		"around all":              {head: 2, query: HistoryQuery{Around: 1, Limit: 9}, want: []int64{2, 1}},
		"around what is not yet":  {head: 9, query: HistoryQuery{Around: 10, Limit: 3}, wantErr: errAroundUnknown},
		"two at once":             {head: 9, query: HistoryQuery{Around: 1, After: 1, Limit: 3}, wantErr: errHistoryRange},
		"another two at once":     {head: 9, query: HistoryQuery{Before: 1, After: 1, Limit: 3}, wantErr: errHistoryRange},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := &Service{store: shelf{head: tt.head}}
			got, err := service.History(t.Context(), uuid.New(), uuid.New(), tt.query)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("error %v, want %v", err, tt.wantErr)
			}
			var seqs []int64
			for _, m := range got.Messages {
				seqs = append(seqs, m.Seq)
			}
			if diff := cmp.Diff(tt.want, seqs); diff != "" {
				t.Error(diff)
			}
			if got.NextBefore != tt.wantBefore || got.NextAfter != tt.wantAfter {
				t.Errorf("next before %d and after %d, want %d and %d", got.NextBefore, got.NextAfter, tt.wantBefore, tt.wantAfter)
			}
		})
	}
}
