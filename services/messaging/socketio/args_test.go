package socketio

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testArgs(list string, attachments ...[]byte) Args {
	return Args{list: []byte(list), attachments: attachments}
}

// Section "Sending and receiving data": the payload of an event is a list.
func TestArgs(t *testing.T) {
	a := testArgs(`1, "two" ,{"three":[4]},null`)
	if a.Len() != 4 {
		t.Errorf("Len is %d", a.Len())
	}
	var texts []string
	for v := range a.All() {
		texts = append(texts, string(v.JSON()))
	}
	if diff := cmp.Diff([]string{`1`, `"two"`, `{"three":[4]}`, `null`}, texts); diff != "" {
		t.Error(diff)
	}
	var one int
	var two string
	var three struct{ Three []int }
	if err := a.Decode(&one, &two, &three); err != nil || one != 1 || two != "two" || three.Three[0] != 4 {
		t.Errorf("decoded %v %q %v: %v", one, two, three, err)
	}
	if got := string(a.At(4).JSON()); got != "null" {
		t.Errorf("an argument that is not there is %s", got)
	}
	if err := a.Decode(&one, &one); err == nil {
		t.Error("a string became a number")
	}
	if err := testArgs(` `).Decode(&one); err == nil {
		t.Error("what is not there was decoded")
	}
	if n := testArgs(` `).Len(); n != 0 {
		t.Errorf("%d arguments in none", n)
	}
}

// Section "Packet encoding": attachments are where their placeholders are.
func TestBinaryArgs(t *testing.T) {
	a := testArgs(`{"_placeholder":true,"num":1},{"file":{"_placeholder":true,"num":0},"name":"x"},"s"`, []byte("zero"), []byte("one"))
	if data, ok := a.At(0).Binary(); !ok || string(data) != "one" {
		t.Errorf("binary: %q, %v", data, ok)
	}
	for i := 1; i < 3; i++ {
		if data, ok := a.At(i).Binary(); ok {
			t.Errorf("argument %d is binary: %q", i, data)
		}
	}
	var data []byte
	var object struct {
		File []byte
		Name string
	}
	if err := a.Decode(&data, &object); err != nil || string(data) != "one" || string(object.File) != "zero" || object.Name != "x" {
		t.Errorf("decoded %q %+v: %v", data, object, err)
	}
	var anything any
	if err := a.At(0).Decode(&anything); err != nil || anything != "b25l" {
		t.Errorf("decoded %v: %v", anything, err)
	}
	// Without attachments nothing is a placeholder, whatever the client writes.
	if data, ok := testArgs(`{"_placeholder":true,"num":0}`).At(0).Binary(); ok {
		t.Errorf("a forged placeholder stands for %q", data)
	}

	c := a.Clone()
	copy(a.list, "XXXXXXXXXXXXXXX")
	copy(a.attachments[1], "XXX")
	if data, ok := c.At(0).Binary(); !ok || string(data) != "one" {
		t.Errorf("the clone has %q, %v", data, ok)
	}
}

// Section "Packet encoding": binary data leaves placeholders behind.
func TestEncodeArgs(t *testing.T) {
	nested, err := NewValue(json.RawMessage(`{"b":{"_placeholder":true,"num":1},"a":{"num":0,"_placeholder":true}}`), []byte("a"), []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	type attachments = [][]byte
	for name, test := range map[string]struct {
		args        []any
		want        string
		attachments attachments
	}{
		"none":      {nil, ``, nil},
		"JSON":      {[]any{1, "2", nil, map[string]any{"3": []bool{true}}, json.RawMessage(` {"raw": 1}`)}, `1,"2",null,{"3":[true]}, {"raw": 1}`, nil},
		"nil":       {[]any{json.RawMessage(nil), Value{}, Args{}}, `null,null`, nil},
		"offset":    {[]any{1, Offset(`o"`)}, `1,"o\""`, nil},
		"binary":    {[]any{[]byte("x"), []byte{}}, `{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}`, attachments{[]byte("x"), {}}},
		"spread":    {[]any{testArgs(`1,"2"`), 3}, `1,"2",3`, nil},
		"of events": {[]any{[]byte("x"), testArgs(`[{"_placeholder":true,"num":0}]`, []byte("y"))}, `{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]`, attachments{[]byte("x"), []byte("y")}},
		"nested": {
			[]any{[]byte("x"), nested},
			`{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1},"a":{"_placeholder":true,"num":2}}`,
			attachments{[]byte("x"), []byte("b"), []byte("a")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := encodeArgs(nil, test.args, 10)
			if err != nil {
				t.Fatal(err)
			}
			if string(p.list) != test.want {
				t.Errorf("encoded %s, want %s", p.list, test.want)
			}
			if diff := cmp.Diff(test.attachments, p.attachments); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, args := range map[string][]any{
		"no JSON":                {math.Inf(1)},
		"raw, no JSON":           {json.RawMessage(`{`)},
		"raw, no UTF-8":          {json.RawMessage("\"\xff\"")},
		"an offset before":       {Offset("o"), 1},
		"too many attachments":   {[]byte{}, []byte{}, []byte{}},
		"too many of an event’s": {testArgs(`{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}`, nil, nil), []byte{}},
	} {
		if p, err := encodeArgs(nil, args, 2); err == nil {
			t.Errorf("%s: encoded %s", name, p.list)
		}
	}
	if _, err := encodeArgs(nil, []any{[]byte{}}, 0); !errors.Is(err, ErrTooManyAttachments) {
		t.Errorf("too many attachments: %v", err)
	}
}

// JSON from elsewhere may look like a placeholder. Beside attachments the receivers
// would take it for one, and close the connection, or see the wrong bytes.
func TestForeignPlaceholders(t *testing.T) {
	for name, foreign := range map[string]any{
		"an event's arguments": testArgs(`1,[{"_placeholder":true,"num":0}]`),
		"out of range":         testArgs(`{"_placeholder":true,"num":99}`),
		"half of one":          testArgs(`{"_placeholder":true}`),
		"raw JSON":             json.RawMessage(`{"num":1,"_placeholder":true}`),
		"raw, in escapes":      json.RawMessage(`{"\u005fplaceholder":true,"num":0}`),
		"a Value":              Value{json: []byte(`{"_placeholder":true,"num":0}`)},
		"anything":             map[string]any{"_placeholder": true, "num": 0},
	} {
		for _, args := range [][]any{{foreign, []byte("x")}, {[]byte("x"), foreign}, {[]byte("x"), []byte("y"), foreign}} {
			if p, err := encodeArgs(nil, args, 10); !errors.Is(err, ErrPlaceholder) {
				t.Errorf("%s: %v, encoded %s", name, err, p.list)
			}
		}
		if _, err := encodeArgs(nil, []any{foreign}, 10); err != nil {
			t.Errorf("%s, without attachments: %v", name, err)
		}
	}
}

func TestNewValueChecksPlaceholders(t *testing.T) {
	for text, attachments := range map[string][][]byte{
		`{`: nil, "\"\xff\"": nil,
		`{"_placeholder":true,"num":1}`:   {nil},
		`1`:                               {nil},
		`[{"_placeholder":true,"num":0}]`: {nil, nil},
	} {
		if _, err := NewValue(json.RawMessage(text), attachments...); err == nil {
			t.Errorf("%s with %d attachments is a value", text, len(attachments))
		}
	}
}

// Section "Exchange protocol" lists the types; the parser of the reference
// implementation the names.
func TestReservedNames(t *testing.T) {
	for _, name := range []string{"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"} {
		if _, err := encodeEvent(name, nil, 10); !errors.Is(err, ErrReserved) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
