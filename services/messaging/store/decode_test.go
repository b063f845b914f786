package store

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
)

// Whatever stands in the event log, a record is one event or an error, and what
// it tells users is JSON.
func FuzzDecodeEvent(f *testing.F) {
	tasker := uuid.New()
	for _, payload := range []events.Payload{
		events.OfferMade{TaskID: uuid.New(), OfferID: uuid.New(), ClientID: uuid.New(), TaskerID: tasker, Title: "Shelves, \"white\" \u2028"},
		events.TaskChanged{TaskID: uuid.New(), ClientID: uuid.New(), ActorID: tasker, From: "open", To: "cancelled", Title: "Shelves", Version: 2},
		events.TaskChanged{TaskID: uuid.New(), ClientID: uuid.New(), TaskerID: &tasker, ActorID: tasker, From: "assigned", To: "in_progress", Title: "Shelves", Version: 1 << 60},
		events.SessionEnded{SessionID: uuid.New(), UserID: uuid.New(), Reason: "logged_out"},
		events.UserRegistered{UserID: uuid.New(), DisplayName: "Anna"},
	} {
		data, err := json.Marshal(payload)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload.EventType(), data)
	}
	f.Add(events.TypeOfferMade, []byte(`{"task_id":"x"}`))
	f.Add(events.TypeTaskChanged, []byte(`null`))
	f.Add(events.TypeTaskChanged, []byte(`{"tasker_id":null,"version":1e3}`))
	f.Add(events.TypeSessionEnded, []byte(`[]`))
	f.Add("tasks.of_a_later_release.v9", []byte(`{`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		record := events.Record{ID: uuid.New(), Type: kind, Data: data}
		e, err := decodeEvent(record)
		if err != nil {
			return
		}
		set := 0
		for _, is := range []bool{e.offer != nil, e.change != nil, e.session != nil} {
			if is {
				set++
			}
		}
		known := kind == events.TypeOfferMade || kind == events.TypeTaskChanged || kind == events.TypeSessionEnded
		if set > 1 || known != (set == 1) || e.id != record.ID {
			t.Errorf("%s %q is taken as %+v", kind, data, e)
		}
		if e.speaks() {
			t.Errorf("%q speaks before it has a conversation", data)
		}
		items, err := e.news()
		if err != nil {
			t.Errorf("%s %q: %v", kind, data, err)
		}
		if known && len(items) == 0 {
			t.Errorf("%s %q is told to nobody", kind, data)
		}
		for _, item := range items {
			if !json.Valid(item.Payload) || item.Payload[0] != '{' {
				t.Errorf("%s %q is told as %s", kind, data, item.Payload)
			}
		}
	})
}
