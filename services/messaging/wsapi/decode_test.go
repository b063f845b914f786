package wsapi

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
		want          command
		wantCode      string
		wantMalformed bool
	}{
		"auth":             {line: `{"id":1,"op":"auth","token":"t"}`, want: command{id: 1, op: "auth", token: "t"}},
		"auth with cursor": {line: `{"id":1,"op":"auth","token":"t","cursor":"abc"}`, want: command{id: 1, op: "auth", token: "t", cursor: &cursor}},
		"send": {
			line: `{"id":17,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1}}`,
			want: command{id: 17, op: "send", conversation: id, clientID: id, body: json.RawMessage(`{"a":1}`)},
		},
		"read without id": {line: `{"op":"read","conversation_id":"` + someID + `","seq":42}`, want: command{op: "read", conversation: id, seq: 42}},
		"typing":          {line: ` {"op":"typing","conversation_id":"` + someID + `"}`, want: command{op: "typing", conversation: id}},
		"presence":        {line: `{"op":"presence","status":"away"}`, want: command{op: "presence", status: presence.Away}},

		"history":       {line: `{"id":3,"op":"history","conversation_id":"` + someID + `"}`, want: command{id: 3, op: "history", conversation: id, limit: 50}},
		"history, page": {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","before":9,"limit":100}`, want: command{id: 3, op: "history", conversation: id, before: 9, limit: 100}},
		"escaped names": {line: `{"\u0069d":3,"op":"\u0061uth","token":"\"\\"}`, want: command{id: 3, op: "auth", token: `"\`}},
		"spaces":        {line: "{ \"id\" : 3 ,\t\"op\" : \"auth\" , \"token\" :\r\"t\" } ", want: command{id: 3, op: "auth", token: "t"}},
		"deep body": {
			line: `{"id":1,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":[{"b":"}]\""},[],{}],"c":null}}`,
			want: command{id: 1, op: "send", conversation: id, clientID: id, body: json.RawMessage(`{"a":[{"b":"}]\""},[],{}],"c":null}`)},
		},

		"twice within the body": {
			line: `{"id":1,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1,"a":2,"body":{}}}`,
			want: command{id: 1, op: "send", conversation: id, clientID: id, body: json.RawMessage(`{"a":1,"a":2,"body":{}}`)},
		},

		"not JSON":      {line: `{"id":1,`, wantMalformed: true},
		"an array":      {line: `[1]`, wantMalformed: true},
		"null":          {line: `null`, wantMalformed: true},
		"text":          {line: `"auth"`, wantMalformed: true},
		"two in a line": {line: `{"op":"typing"}{"op":"typing"}`, wantMalformed: true},

		"no op":               {line: `{"id":3}`, want: command{id: 3}, wantCode: "unknown_op"},
		"op of another type":  {line: `{"id":3,"op":1}`, want: command{id: 3}, wantCode: "unknown_op"},
		"unknown op":          {line: `{"id":3,"op":"shout"}`, want: command{id: 3, op: "shout"}, wantCode: "unknown_op"},
		"op in other letters": {line: `{"id":3,"OP":"auth"}`, want: command{id: 3}, wantCode: "unknown_op"},
		"unknown field":       {line: `{"id":3,"op":"auth","token":"t","admin":true}`, want: command{id: 3, op: "auth"}, wantCode: "unknown_field"},
		"another op's field":  {line: `{"id":3,"op":"auth","token":"t","seq":1}`, want: command{id: 3, op: "auth"}, wantCode: "unknown_field"},
		"missing field":       {line: `{"id":3,"op":"auth"}`, want: command{id: 3, op: "auth"}, wantCode: "missing_field"},
		"send without id":     {line: `{"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{}}`, want: command{op: "send"}, wantCode: "missing_field"},
		"id of text":          {line: `{"id":"3","op":"auth","token":"t"}`, wantCode: "invalid"},
		"id zero":             {line: `{"id":0,"op":"auth","token":"t"}`, wantCode: "invalid"},
		"id too great":        {line: `{"id":9007199254740992,"op":"auth","token":"t"}`, wantCode: "invalid"},
		"token of number":     {line: `{"id":3,"op":"auth","token":5}`, want: command{id: 3, op: "auth"}, wantCode: "invalid"},
		"token null":          {line: `{"id":3,"op":"auth","token":null}`, want: command{id: 3, op: "auth"}, wantCode: "invalid"},
		"not a UUID":          {line: `{"op":"typing","conversation_id":"x"}`, want: command{op: "typing"}, wantCode: "invalid"},
		"UUID in braces":      {line: `{"op":"typing","conversation_id":"{` + someID + `}"}`, want: command{op: "typing"}, wantCode: "invalid"},
		"limit too great":     {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","limit":101}`, want: command{id: 3, op: "history", conversation: id}, wantCode: "invalid"},
		"before of a float":   {line: `{"id":3,"op":"history","conversation_id":"` + someID + `","before":1.5}`, want: command{id: 3, op: "history", conversation: id}, wantCode: "invalid"},
		"to be offline":       {line: `{"op":"presence","status":"offline"}`, want: command{op: "presence"}, wantCode: "invalid"},
		"token twice":         {line: `{"id":3,"op":"auth","token":"a","token":"b"}`, want: command{id: 3, op: "auth"}, wantCode: "duplicate_field"},
		"the same twice":      {line: `{"id":3,"op":"auth","token":"a","token":"a"}`, want: command{id: 3, op: "auth"}, wantCode: "duplicate_field"},
		"twice, escaped":      {line: `{"id":3,"op":"auth","token":"a","\u0074oken":"b"}`, want: command{id: 3, op: "auth"}, wantCode: "duplicate_field"},
		"optional twice":      {line: `{"id":3,"op":"auth","token":"a","cursor":"b","cursor":"c"}`, want: command{id: 3, op: "auth", token: "a"}, wantCode: "duplicate_field"},
		"body twice":          {line: `{"id":3,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"a":1},"body":{"a":2}}`, want: command{id: 3, op: "send", conversation: id, clientID: id}, wantCode: "duplicate_field"},
		"op twice":            {line: `{"id":3,"op":"auth","op":"auth","token":"a"}`, want: command{id: 3}, wantCode: "duplicate_field"},
		"id twice":            {line: `{"id":3,"op":"auth","token":"a","id":4}`, wantCode: "duplicate_field"},
		"another op's, twice": {line: `{"id":3,"op":"auth","token":"a","seq":1,"seq":2}`, want: command{id: 3, op: "auth"}, wantCode: "unknown_field"},
		"seq of text":         {line: `{"op":"read","conversation_id":"` + someID + `","seq":"1"}`, want: command{op: "read", conversation: id}, wantCode: "invalid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decode([]byte(tt.line))
			if errors.Is(err, errMalformed) != tt.wantMalformed {
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
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(command{})); diff != "" {
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
		objects, ok := lines(frame)
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
			c, err := decode(line)
			if err == nil {
				if _, known := fields[c.op]; !known || c.id > maxID || twice {
					t.Errorf("%q is taken as %+v", line, c)
				}
			} else if f := fault.From(err); !errors.Is(err, errMalformed) && f.Kind != fault.Invalid {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	line := []byte(`{"id":17,"op":"send","conversation_id":"` + someID + `","client_id":"` + someID + `","body":{"text":"I can come by at six, is that all right with you?"}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
