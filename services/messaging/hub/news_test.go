package hub

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// oldNews is how the release before reads.
type oldNews struct {
	Items  []busItem `json:"items,omitempty"`
	Head   int64     `json:"head,omitempty"`
	Typing *struct {
		ConversationID uuid.UUID `json:"conversation_id"`
		From           uuid.UUID `json:"from"`
	} `json:"typing,omitempty"`
}

func TestTheReleaseBeforeReadsNews(t *testing.T) {
	t.Parallel()
	conversation, from := uuid.New(), uuid.New()
	typing, err := messaging.TypingSignal(conversation, from)
	if err != nil {
		t.Fatal(err)
	}
	read := func(data []byte) (out oldNews) {
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		return out
	}
	item := messaging.Item{Offset: 42, Kind: messaging.KindMessage, Payload: json.RawMessage(`{"body":{"text":"}]}"}}`)}
	want := []busItem{{42, messaging.KindMessage, item.Payload}}
	if diff := cmp.Diff(want, read(appendItem(nil, item)).Items); diff != "" {
		t.Error(diff)
	}
	if got := read(encodeHead(7)); got.Head != 7 {
		t.Errorf("head %d", got.Head)
	}
	if got := read(encodeSignal(typing)); got.Typing == nil || got.Typing.ConversationID != conversation || got.Typing.From != from {
		t.Errorf("typing %+v", got.Typing)
	}
	presence := messaging.Signal{Kind: messaging.KindPresence, Payload: json.RawMessage(`{"status":"online"}`)}
	if got := read(encodeSignal(presence)); got.Typing != nil || got.Items != nil {
		t.Errorf("presence is taken for %+v", got)
	}
}

func TestNewsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	user := uuid.New()
	item := messaging.Item{UserID: user, Offset: 42, Kind: messaging.KindMessage, Payload: json.RawMessage(`{"body":{"text":"}]}"},"kind":"x"}`)}
	signal := messaging.Signal{Kind: messaging.KindPresence, Payload: json.RawMessage(`{"status":"online"}`)}
	typing := messaging.Signal{Kind: messaging.KindTyping, Payload: json.RawMessage(`{"from":"x"}`)}
	later := item
	later.Kind = "invented"
	before, err := messaging.EncodeJSON(news{Items: []busItem{{42, messaging.KindMessage, item.Payload}, {43, "task", json.RawMessage(`{}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		data []byte
		want received
	}{
		"an item":               {appendItem(nil, item), received{items: []messaging.Item{item}}},
		"an unknown kind":       {appendItem(nil, later), received{items: []messaging.Item{later}}},
		"of the release before": {before, received{items: []messaging.Item{item, {UserID: user, Offset: 43, Kind: "task", Payload: json.RawMessage(`{}`)}}}},
		"a head":                {encodeHead(7), received{head: 7}},
		"a presence":            {encodeSignal(signal), received{signal: signal}},
		"typing":                {encodeSignal(typing), received{signal: typing}},
		"of a later release":    {[]byte(`{"weather":{"sun":true}}`), received{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeNews(user, tt.data)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(received{})); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
	if _, ok := decodeOne(user, appendItem(nil, item)); !ok {
		t.Error("a single item is not read fast")
	}
}

func TestBusMessagesThatAreNoNewsAreRefused(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"no JSON":           `{`,
		"no payload":        `{"items":[{"offset":1,"kind":"message"}]}`,
		"null for payload":  `{"items":[{"offset":1,"kind":"message","payload":null}]}`,
		"array for payload": `{"n":1,"items":[{"offset":1,"kind":"message","payload":[]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := decodeNews(uuid.New(), []byte(data)); err == nil {
				t.Errorf("taken as %+v", got)
			}
		})
	}
}

func FuzzDecodeNews(f *testing.F) {
	user := uuid.New()
	f.Add(appendItem(nil, messaging.Item{Offset: 1, Kind: "task", Payload: json.RawMessage(`{"a":1}`)}))
	f.Add(encodeHead(3))
	f.Add(encodeSignal(messaging.Signal{Kind: "typing", Payload: json.RawMessage(`{}`)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeNews(user, data)
		if err != nil {
			return
		}
		for _, item := range got.items {
			if !isObject(item.Payload) {
				t.Errorf("payload %q", item.Payload)
			}
		}
	})
}

func TestManyAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	payload := []byte(`{"text":"hello"}`)
	receivers := []receiver{{id: uuid.New(), offset: 1}, {id: uuid.New(), offset: 1 << 40}}
	data := appendMany(nil, manyItems, "message", payload, receivers)
	what, kind, got, found, err := decodeMany(data, nil)
	if err != nil || what != manyItems || kind != messaging.KindMessage || !bytes.Equal(got, payload) {
		t.Errorf("%d %s %s, %v", what, kind, got, err)
	}
	if diff := cmp.Diff(receivers, found, cmp.AllowUnexported(receiver{}), cmp.Comparer(func(a, b *user) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for n := range data {
		cut := data[:n]
		if what, _, _, found, err := decodeMany(cut, nil); err == nil && what == manyItems && len(found) == 2 {
			t.Errorf("%d of %d bytes pass for the whole", n, len(data))
		}
	}
	if what, _, _, _, err := decodeMany(append([]byte{99}, data[1:]...), nil); what != 99 || err != nil {
		t.Errorf("of a later release: %d, %v", what, err)
	}
}

func FuzzDecodeMany(f *testing.F) {
	f.Add(appendMany(nil, manyItems, "message", []byte(`{}`), []receiver{{id: uuid.New(), offset: 5}}))
	f.Add(appendMany(nil, manySignal, "typing", []byte(`{"a":1}`), []receiver{{id: uuid.New()}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		what, kind, payload, receivers, err := decodeMany(data, nil)
		if err != nil || what != manyItems && what != manySignal {
			return
		}
		if again := appendMany(nil, what, kind, payload, receivers); !bytes.Equal(again, data) {
			t.Errorf("%x was read from %x", again, data)
		}
	})
}
