package wsapi

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

const someID = "01890a5d-ac96-774b-bcce-b302099a8057"

func TestEncodeEvent(t *testing.T) {
	t.Parallel()
	user := uuid.MustParse(someID)
	item := func(payload string) []byte {
		return itemHead(nil, messaging.Item{UserID: user, Offset: 7, Kind: messaging.KindTask, Payload: json.RawMessage(payload)})
	}
	signal := func(payload string) []byte { return eventHead(nil, messaging.KindTyping, json.RawMessage(payload)) }
	cursor := `,"cursor":"` + messaging.EncodeCursor(user, 7) + `"`
	tests := map[string]struct {
		head          func(payload string) []byte
		payload, want string
	}{
		"with cursor":    {item, `{"a":1}`, `{"op":"task"` + cursor + `,"a":1}`},
		"without":        {signal, `{"a":1}`, `{"op":"typing","a":1}`},
		"empty payload":  {item, `{ }`, `{"op":"task"` + cursor + ` }`},
		"spaced payload": {item, `{ "a": 1}`, `{"op":"task"` + cursor + `, "a": 1}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := string(tt.head(tt.payload)) + tt.payload[1:]
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%s is not JSON", got)
			}
		})
	}
}

func TestAppendSentIsTheReply(t *testing.T) {
	t.Parallel()
	sent := messaging.Sent{ID: uuid.MustParse(someID), Seq: 42, Duplicate: true}
	var got struct {
		Re uint64
		OK struct {
			ID        uuid.UUID
			Seq       int64
			Duplicate bool
		}
	}
	line := appendSent(nil, 17, sent)
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if got.Re != 17 || got.OK.ID != sent.ID || got.OK.Seq != 42 || !got.OK.Duplicate || line[len(line)-1] != '\n' {
		t.Errorf("%s", line)
	}
}

// An event costs its receivers no allocation: only their connections' buffers.
func TestHeadsAreNotAllocated(t *testing.T) {
	item := messaging.Item{UserID: uuid.MustParse(someID), Offset: 7, Kind: messaging.KindMessage, Payload: json.RawMessage(`{"a":1}`)}
	if n := testing.AllocsPerRun(100, func() {
		var scratch [headSize]byte
		if len(itemHead(scratch[:0], item)) > headSize {
			t.Error("headSize is too small")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
