package door

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging/presence"
)

const someID = "01890a5d-ac96-774b-bcce-b302099a8057"

func TestDecode(t *testing.T) {
	t.Parallel()
	cursor := "abc"
	id := uuid.MustParse(someID)
	tests := map[string]struct {
		line          string
		want          Command
		wantCode      string
		wantMalformed bool
	}{
		"auth":             {line: `{"id":1,"op":"auth","token":"t"}`, want: Command{ID: 1, Op: "auth", Token: "t"}},
		"auth with cursor": {line: `{"id":1,"op":"auth","token":"t","cursor":"abc"}`, want: Command{ID: 1, Op: "auth", Token: "t", Cursor: &cursor}},
		"send": {
			line: `{"id":17,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1}}`,
			want: Command{ID: 17, Op: "send", Conversation: id, ClientID: id, Body: json.RawMessage(`{"a":1}`)},
		},
		"read without id": {line: `{"op":"read","conversation_id":"` + someID + `","seq":42}`, want: Command{Op: "read", Conversation: id, Seq: 42}},
		"typing":          {line: ` {"op":"typing","conversation_id":"` + someID + `"}`, want: Command{Op: "typing", Conversation: id}},
		"presence":        {line: `{"op":"presence","status":"away"}`, want: Command{Op: "presence", Status: presence.Away}},

		"history":       {line: `{"id":3,"op":"history","conversation_id":"` + someID + `"}`, want: Command{ID: 3, Op: "history", Conversation: id, Limit: 50}},
		"history, page": {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","before":9,"limit":100}`, want: Command{ID: 3, Op: "history", Conversation: id, Before: 9, Limit: 100}},
		"escaped names": {line: `{"\u0069d":3,"op":"\u0061uth","token":"\"\\"}`, want: Command{ID: 3, Op: "auth", Token: `"\`}},
		"spaces":        {line: "{ \"id\" : 3 ,\t\"op\" : \"auth\" , \"token\" :\r\"t\" } ", want: Command{ID: 3, Op: "auth", Token: "t"}},
		"deep body": {
			line: `{"id":1,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":[{"b":"}]\""},[],{}],"c":null}}`,
			want: Command{ID: 1, Op: "send", Conversation: id, ClientID: id, Body: json.RawMessage(`{"a":[{"b":"}]\""},[],{}],"c":null}`)},
		},

		"twice within the body": {
			line: `{"id":1,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1,"a":2,"body":{}}}`,
			want: Command{ID: 1, Op: "send", Conversation: id, ClientID: id, Body: json.RawMessage(`{"a":1,"a":2,"body":{}}`)},
		},

		"not JSON":      {line: `{"id":1,`, wantMalformed: true},
		"an array":      {line: `[1]`, wantMalformed: true},
		"null":          {line: `null`, wantMalformed: true},
		"text":          {line: `"auth"`, wantMalformed: true},
		"two in a line": {line: `{"op":"typing"}{"op":"typing"}`, wantMalformed: true},

		"no op":               {line: `{"id":3}`, want: Command{ID: 3}, wantCode: "unknown_op"},
		"op of another type":  {line: `{"id":3,"op":1}`, want: Command{ID: 3}, wantCode: "unknown_op"},
		"unknown op":          {line: `{"id":3,"op":"shout"}`, want: Command{ID: 3, Op: "shout"}, wantCode: "unknown_op"},
		"op in other letters": {line: `{"id":3,"OP":"auth"}`, want: Command{ID: 3}, wantCode: "unknown_op"},
		"unknown field":       {line: `{"id":3,"op":"auth","token":"t","admin":true}`, want: Command{ID: 3, Op: "auth"}, wantCode: "unknown_field"},
		"another op's field":  {line: `{"id":3,"op":"auth","token":"t","seq":1}`, want: Command{ID: 3, Op: "auth"}, wantCode: "unknown_field"},
		"missing field":       {line: `{"id":3,"op":"auth"}`, want: Command{ID: 3, Op: "auth"}, wantCode: "missing_field"},
		"send without id":     {line: `{"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{}}`, want: Command{Op: "send"}, wantCode: "missing_field"},
		"id of text":          {line: `{"id":"3","op":"auth","token":"t"}`, wantCode: "invalid"},
		"id zero":             {line: `{"id":0,"op":"auth","token":"t"}`, wantCode: "invalid"},
		"id too great":        {line: `{"id":9007199254740992,"op":"auth","token":"t"}`, wantCode: "invalid"},
		"token of number":     {line: `{"id":3,"op":"auth","token":5}`, want: Command{ID: 3, Op: "auth"}, wantCode: "invalid"},
		"token null":          {line: `{"id":3,"op":"auth","token":null}`, want: Command{ID: 3, Op: "auth"}, wantCode: "invalid"},
		"not a UUID":          {line: `{"op":"typing","conversation_id":"x"}`, want: Command{Op: "typing"}, wantCode: "invalid"},
		"UUID in braces":      {line: `{"op":"typing","conversation_id":"{` + someID + `}"}`, want: Command{Op: "typing"}, wantCode: "invalid"},
		"limit too great":     {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","limit":101}`, want: Command{ID: 3, Op: "history", Conversation: id}, wantCode: "invalid"},
		"before of a float":   {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","before":1.5}`, want: Command{ID: 3, Op: "history", Conversation: id}, wantCode: "invalid"},
		"to be offline":       {line: `{"op":"presence","status":"offline"}`, want: Command{Op: "presence"}, wantCode: "invalid"},
		"token twice":         {line: `{"id":3,"op":"auth","token":"a","token":"b"}`, want: Command{ID: 3, Op: "auth"}, wantCode: "duplicate_field"},
		"the same twice":      {line: `{"id":3,"op":"auth","token":"a","token":"a"}`, want: Command{ID: 3, Op: "auth"}, wantCode: "duplicate_field"},
		"twice, escaped":      {line: `{"id":3,"op":"auth","token":"a","\u0074oken":"b"}`, want: Command{ID: 3, Op: "auth"}, wantCode: "duplicate_field"},
		"optional twice":      {line: `{"id":3,"op":"auth","token":"a","cursor":"b","cursor":"c"}`, want: Command{ID: 3, Op: "auth", Token: "a"}, wantCode: "duplicate_field"},
		"body twice":          {line: `{"id":3,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1},"body":{"a":2}}`, want: Command{ID: 3, Op: "send", Conversation: id, ClientID: id}, wantCode: "duplicate_field"},
		"op twice":            {line: `{"id":3,"op":"auth","op":"auth","token":"a"}`, want: Command{ID: 3}, wantCode: "duplicate_field"},
		"id twice":            {line: `{"id":3,"op":"auth","token":"a","id":4}`, wantCode: "duplicate_field"},
		"another op's, twice": {line: `{"id":3,"op":"auth","token":"a","seq":1,"seq":2}`, want: Command{ID: 3, Op: "auth"}, wantCode: "unknown_field"},
		"seq of text":         {line: `{"op":"read","conversation_id":"` + someID + `","seq":"1"}`, want: Command{Op: "read", Conversation: id}, wantCode: "invalid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tt.line))
			if errors.Is(err, ErrMalformed) != tt.wantMalformed {
				t.Fatalf("malformed: %v", err)
			}
			if tt.wantMalformed {
				return
			}
			code := ""
			if err != nil {
				code = fault.From(err).Code
			}
			if code != tt.wantCode {
				t.Fatalf("code %q, want %q", code, tt.wantCode)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":17,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1}}`))
	f.Add([]byte(`{"\u0069d" : [1, {"a":"}\""}], "op":"x" ,"n":-1.5e3,"t":true}`))
	f.Add([]byte(`{"op":"read","conversation_id":"` + someID + `","seq":42}` + "\n" + `{"id":1}`))
	f.Add([]byte(`{"id":2,"op":"presence","status":"online"}`))
	f.Add([]byte(`{"id":2,"op":"auth","token":"a","\u0074oken":"b"}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		objects, ok := Lines(frame)
		if !ok {
			return
		}
		for line := range objects {
			var want map[string]json.RawMessage
			twice := false
			if json.Unmarshal(line, &want) == nil && want != nil {
				got := map[string]json.RawMessage{}
				for name, value := range members(bytes.TrimLeft(line, " \t\r\n")) {
					_, there := got[string(name)]
					twice = twice || there
					got[string(name)] = value
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("members of %q (-encoding/json +ours):\n%s", line, diff)
				}
			}
			c, err := Decode(line)
			if err == nil {
				if _, known := fields[c.Op]; !known || c.ID > maxID || twice {
					t.Errorf("%q is taken as %+v", line, c)
				}
			} else if f := fault.From(err); !errors.Is(err, ErrMalformed) && f.Kind != fault.Invalid {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	line := []byte(`{"id":17,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"text":"I can come by at six, is that all right with you?"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
