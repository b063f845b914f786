package messaging

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// What was checked to be small stays small in streams and on the bus.
func TestItemsAreHardlyLargerThanTheirBodies(t *testing.T) {
	t.Parallel()
	body := json.RawMessage(`{"text":"` + strings.Repeat("<&>", 10_000) + `"}`)
	items, err := MessageItems(Message{ConversationID: uuid.New(), Body: body}, []uuid.UUID{uuid.New()})
	if err != nil {
		t.Fatal(err)
	}
	if got, most := len(items[0].Payload), len(body)+1024; got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}
