package messaging

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

type senderFunc func(draft Draft, answer func(Sent, error))

func (f senderFunc) Send(draft Draft, answer func(Sent, error)) { f(draft, answer) }

func TestASenderWhoLeavesLearnsThatTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	var answers []func(Sent, error)
	sender := senderFunc(func(_ Draft, answer func(Sent, error)) { answers = append(answers, answer) })
	service := NewService(nil, sender, nil, Rate{PerSecond: 1, Burst: 1}, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := service.Send(ctx, Draft{SenderID: uuid.New(), ClientID: uuid.New(), Body: json.RawMessage(`{"a":1}`)})
	if f := fault.From(err); f.Kind != fault.Unavailable || f.Code != "outcome_unknown" {
		t.Errorf("got %v", err)
	}
	answers[0](Sent{}, nil) // the writer's answer finds nobody, and blocks nobody
}

func TestRefusedDraftsAreAnsweredOnceAndNeverSent(t *testing.T) {
	t.Parallel()
	sender := senderFunc(func(Draft, func(Sent, error)) { t.Error("sent") })
	service := NewService(nil, sender, nil, Rate{PerSecond: 0.001, Burst: 2}, time.Now)
	user := uuid.New()
	for i, tt := range []struct {
		draft Draft
		want  string
	}{
		{Draft{SenderID: user, Body: json.RawMessage(`{"a":1}`)}, "client_id_invalid"},
		{Draft{SenderID: user, ClientID: uuid.New(), Body: json.RawMessage(`7`)}, "body_invalid"},
		{Draft{SenderID: user, ClientID: uuid.New(), Body: json.RawMessage(`{"a":1}`)}, "rate_limited"},
	} {
		answers := 0
		service.Enqueue(tt.draft, func(_ Sent, err error) {
			answers++
			if code := fault.From(err).Code; code != tt.want {
				t.Errorf("draft %d: %s, want %s", i, code, tt.want)
			}
		})
		if answers != 1 {
			t.Errorf("draft %d: %d answers", i, answers)
		}
	}
}
