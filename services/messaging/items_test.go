package messaging

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// What was checked to be small stays small in streams and on the bus.
func TestItemsAreHardlyLargerThanTheirBodies(t *testing.T) {
	t.Parallel()
	body := json.RawMessage(`{"text":"` + strings.Repeat("<&>", 10_000) + `"}`)
	payload := MessagePayload(Message{ConversationID: uuid.New(), Body: body})
	if got, most := len(payload), len(body)+1024; got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}

// The payload is what encoding/json makes of the same fields.
func TestMessagePayloadIsJSON(t *testing.T) {
	t.Parallel()
	for name, sentAt := range map[string]time.Time{
		"microseconds":   time.Date(2026, 11, 25, 17, 4, 5, 123_456_000, time.FixedZone("", 3600)),
		"whole second":   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"trailing zeros": time.Date(2026, 1, 2, 3, 4, 5, 120_000_000, time.UTC),
	} {
		m := Message{
			ConversationID: uuid.New(), Seq: 42, ID: uuid.New(), ClientID: uuid.New(), SenderID: uuid.New(),
			Body: json.RawMessage(`{"text":"<&>"}`), SentAt: sentAt,
		}
		want, err := EncodeJSON(struct {
			ConversationID uuid.UUID       `json:"conversation_id"`
			Seq            int64           `json:"seq"`
			ID             uuid.UUID       `json:"id"`
			ClientID       uuid.UUID       `json:"client_id"`
			From           uuid.UUID       `json:"from"`
			Body           json.RawMessage `json:"body"`
			SentAt         time.Time       `json:"sent_at"`
		}{m.ConversationID, m.Seq, m.ID, m.ClientID, m.SenderID, m.Body, m.SentAt.UTC()})
		if err != nil {
			t.Fatal(err)
		}
		if got := MessagePayload(m); string(got) != string(want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
