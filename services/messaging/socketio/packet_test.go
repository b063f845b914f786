package socketio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/services/messaging/engineio"
)

// decoded is a packet as the tests write it.
type decoded struct {
	kind        packetType
	attachments int
	namespace   string
	id          int64
	data        string
	name, args  string
}

func (p *packet) decoded() decoded {
	return decoded{p.kind, p.attachments, string(p.namespace), p.id, string(p.data), string(p.name), string(p.args)}
}

// Section "Packet encoding": the format, and each of its examples.
func TestDecode(t *testing.T) {
	const two = `{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}`
	for name, test := range map[string]struct {
		text string
		want decoded
	}{
		"connect":                   {`0`, decoded{kind: typeConnect, namespace: "/", id: noID}},
		"connect with a payload":    {`0{"token":"123"}`, decoded{kind: typeConnect, namespace: "/", id: noID, data: `{"token":"123"}`}},
		"connect to a namespace":    {`0/admin,`, decoded{kind: typeConnect, namespace: "/admin", id: noID}},
		"the comma left out":        {`0/admin`, decoded{kind: typeConnect, namespace: "/admin", id: noID}},
		"both":                      {`0/admin,{"sid":"oSO0"}`, decoded{kind: typeConnect, namespace: "/admin", id: noID, data: `{"sid":"oSO0"}`}},
		"the main one by its name":  {`0/,{}`, decoded{kind: typeConnect, namespace: "/", id: noID, data: `{}`}},
		"refused":                   {`4{"message":"Not authorized"}`, decoded{kind: typeConnectError, namespace: "/", id: noID, data: `{"message":"Not authorized"}`}},
		"event":                     {`2["foo"]`, decoded{kind: typeEvent, namespace: "/", id: noID, data: `["foo"]`, name: "foo"}},
		"event in a namespace":      {`2/admin,["bar"]`, decoded{kind: typeEvent, namespace: "/admin", id: noID, data: `["bar"]`, name: "bar"}},
		"event with arguments":      {`2["a", 1 ,{"b":[2]},"3"]`, decoded{kind: typeEvent, namespace: "/", id: noID, data: `["a", 1 ,{"b":[2]},"3"]`, name: "a", args: ` 1 ,{"b":[2]},"3"`}},
		"event with an id":          {`212["foo"]`, decoded{kind: typeEvent, namespace: "/", id: 12, data: `["foo"]`, name: "foo"}},
		"event with both":           {`2/admin,0["foo"]`, decoded{kind: typeEvent, namespace: "/admin", id: 0, data: `["foo"]`, name: "foo"}},
		"event with the largest id": {`29007199254740991["foo"]`, decoded{kind: typeEvent, namespace: "/", id: maxID, data: `["foo"]`, name: "foo"}},
		"event with a number":       {`2[-1.5e3,2]`, decoded{kind: typeEvent, namespace: "/", id: noID, data: `[-1.5e3,2]`, name: "-1.5e3", args: "2"}},
		"event with escapes":        {`2["\u0066\"\\",",]"]`, decoded{kind: typeEvent, namespace: "/", id: noID, data: `["\u0066\"\\",",]"]`, name: `f"\`, args: `",]"`}},
		"event without a name's text": {`2["",1]`, decoded{
			kind: typeEvent, namespace: "/", id: noID, data: `["",1]`, args: "1",
		}},
		"no binary event, and no placeholder": {`2["a",{"_placeholder":true,"num":7}]`, decoded{
			kind: typeEvent, namespace: "/", id: noID, data: `["a",{"_placeholder":true,"num":7}]`, name: "a", args: `{"_placeholder":true,"num":7}`,
		}},
		"binary event": {`51-["baz",{"_placeholder":true,"num":0}]`, decoded{
			kind: typeBinaryEvent, attachments: 1, namespace: "/", id: noID, data: `["baz",{"_placeholder":true,"num":0}]`, name: "baz", args: `{"_placeholder":true,"num":0}`,
		}},
		"binary event in a namespace": {`52-/admin,["baz",` + two + `]`, decoded{
			kind: typeBinaryEvent, attachments: 2, namespace: "/admin", id: noID, data: `["baz",` + two + `]`, name: "baz", args: two,
		}},
		"attachments within, in any order": {`52-["a",{"b":[{"num":1,"_placeholder":true}]},[{ "\u005fplaceholder" : true , "num":0 }]]`, decoded{
			kind: typeBinaryEvent, attachments: 2, namespace: "/", id: noID,
			data: `["a",{"b":[{"num":1,"_placeholder":true}]},[{ "\u005fplaceholder" : true , "num":0 }]]`,
			name: "a", args: `{"b":[{"num":1,"_placeholder":true}]},[{ "\u005fplaceholder" : true , "num":0 }]`,
		}},
		"as many attachments as may be": {`510-["a"` + placeholders(10) + `]`, decoded{
			kind: typeBinaryEvent, attachments: 10, namespace: "/", id: noID,
			data: `["a"` + placeholders(10) + `]`, name: "a", args: placeholders(10)[1:],
		}},
		"what only looks like a placeholder": {`51-["a",{"_placeholder":"true","num":5},{"_placeholder":true,"num":0}]`, decoded{
			kind: typeBinaryEvent, attachments: 1, namespace: "/", id: noID,
			data: `["a",{"_placeholder":"true","num":5},{"_placeholder":true,"num":0}]`,
			name: "a", args: `{"_placeholder":"true","num":5},{"_placeholder":true,"num":0}`,
		}},
		"ack":                      {`3/admin,13["bar"]`, decoded{kind: typeAck, namespace: "/admin", id: 13, data: `["bar"]`, args: `"bar"`}},
		"empty ack":                {`31[ ]`, decoded{kind: typeAck, namespace: "/", id: 1, data: `[ ]`, args: ` `}},
		"binary ack":               {`61-15["bar",{"_placeholder":true,"num":0}]`, decoded{kind: typeBinaryAck, attachments: 1, namespace: "/", id: 15, data: `["bar",{"_placeholder":true,"num":0}]`, args: `"bar",{"_placeholder":true,"num":0}`}},
		"disconnect":               {`1`, decoded{kind: typeDisconnect, namespace: "/", id: noID}},
		"disconnect a namespace":   {`1/admin,`, decoded{kind: typeDisconnect, namespace: "/admin", id: noID}},
		"space after the payload":  {"2[\"a\"]\n", decoded{kind: typeEvent, namespace: "/", id: noID, data: "[\"a\"]\n", name: "a"}},
		"a namespace with letters": {`0/Straße 1`, decoded{kind: typeConnect, namespace: "/Straße 1", id: noID}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := decodePacket([]byte(test.text), 10)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, p.decoded(), cmp.AllowUnexported(decoded{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// placeholders are those of n attachments, each after a comma.
func placeholders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,{"_placeholder":true,"num":%d}`, i)
	}
	return b.String()
}

// Sections "Exchange protocol" and "Packet encoding": what is no packet.
func TestDecodeMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                        ``,
		"no type":                        `abc`,
		"an unknown type":                `7`,
		"CONNECT with an array":          `0[]`,
		"CONNECT with null":              `0null`,
		"CONNECT with a string":          `0"token"`,
		"CONNECT with an id":             `01{}`,
		"CONNECT with half a payload":    `0{"token":`,
		"DISCONNECT with a payload":      `1{}`,
		"DISCONNECT with an id":          `11`,
		"CONNECT_ERROR without":          `4`,
		"CONNECT_ERROR with a string":    `4"no"`,
		"CONNECT_ERROR with an id":       `41{"message":""}`,
		"an event without payload":       `2`,
		"an event with an id alone":      `21`,
		"an event with an object":        `2{}`,
		"an event with an empty array":   `2[]`,
		"an event with spaces":           `2[ ]`,
		"an event named null":            `2[null]`,
		"an event named true":            `2[true]`,
		"an event named by an array":     `2[["a"]]`,
		"an event named by an object":    `2[{"a":1}]`,
		"an id with letters":             `2abc["a"]`,
		"a negative id":                  `2-1["a"]`,
		"an id with a leading zero":      `201["a"]`,
		"an id above 2^53":               `29007199254740992["a"]`,
		"an endless id":                  `2` + strings.Repeat("1", 100) + `["a"]`,
		"a space":                        `2 ["a"]`,
		"two payloads":                   `2["a"]["b"]`,
		"a reserved name":                `2["connect"]`,
		"a reserved name in escapes":     `2["\u0063onnect"]`,
		"a name that the server has":     `2["disconnecting"]`,
		"an ack without an id":           `3["a"]`,
		"an ack without payload":         `31`,
		"an ack with an object":          `31{}`,
		"a namespace with controls":      "0/a\x1eb,",
		"a namespace that is long":       `0/` + strings.Repeat("a", 255) + `,`,
		"a namespace and the payload":    `2/admin["a"]`,
		"no number of attachments":       `5["a"]`,
		"no attachments":                 `50-["a"]`,
		"attachments with letters":       `5a-["a"]`,
		"attachments that are endless":   `5` + strings.Repeat("1", 100) + `-["a"]`,
		"attachments, a leading zero":    `501-["a",{"_placeholder":true,"num":0}]`,
		"attachments without a dash":     `51["a",{"_placeholder":true,"num":0}]`,
		"too many attachments":           `511-["a"` + placeholders(11) + `]`,
		"a placeholder too few":          `52-["a",{"_placeholder":true,"num":0}]`,
		"a placeholder too many":         `51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`,
		"a placeholder twice":            `52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]`,
		"a placeholder out of range":     `51-["a",{"_placeholder":true,"num":1}]`,
		"a placeholder below the range":  `51-["a",{"_placeholder":true,"num":-1}]`,
		"a placeholder without a number": `51-["a",{"_placeholder":true}]`,
		"a placeholder with a string":    `51-["a",{"_placeholder":true,"num":"0"}]`,
		"a placeholder with a fraction":  `51-["a",{"_placeholder":true,"num":0.0}]`,
		"a placeholder with 00":          `51-["a",{"_placeholder":true,"num":00}]`,
		"a placeholder with more in it":  `51-["a",{"_placeholder":true,"num":0,"x":1}]`,
		"a placeholder marked twice":     `51-["a",{"_placeholder":true,"_placeholder":true,"num":0}]`,
		"a placeholder in a placeholder": `52-["a",{"_placeholder":true,"num":{"_placeholder":true,"num":0}}]`,
		"a name that is a placeholder":   `51-[{"_placeholder":true,"num":0}]`,
		"depth without end":              `2["a",` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `]`,
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := decodePacket([]byte(text), 10); err == nil {
				t.Errorf("it was decoded: %+v", p.decoded())
			}
		})
	}
}

// encode is the decoder's reverse.
func (p *packet) encode() []byte {
	return append(packetHeader(p.kind, p.attachments, string(p.namespace), p.id), p.data...)
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`0`, `0/admin,{"token":"123"}`, `1/admin,`, `2["foo"]`, `2/admin,12["a",1,"2",{"3":[true]}]`, `313["bar"]`,
		`4{"message":"Not authorized"}`, `51-["baz",{"_placeholder":true,"num":0}]`, `61-/a,7[{"b":{"num":0,"_placeholder":true}}]`,
		`2["\u0066",{"\u005fplaceholder":true}]`, "0/a", `52-["a",[[],{}],{"_placeholder":true,"num":1}, {"_placeholder":true,"num":0} ]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return // which the engine takes from nobody
		}
		p, err := decodePacket(text, 10)
		if err != nil {
			return
		}
		again, err := decodePacket(p.encode(), 10)
		if err != nil {
			t.Fatalf("%q became %q: %v", text, p.encode(), err)
		}
		if diff := cmp.Diff(p.decoded(), again.decoded(), cmp.AllowUnexported(decoded{})); diff != "" {
			t.Fatal(diff)
		}
		if p.kind != typeEvent && p.kind != typeAck && p.attachments == 0 {
			return
		}
		// The arguments, sent on, are the arguments.
		args := Args{list: p.args}
		for i := range p.attachments {
			args.attachments = append(args.attachments, []byte{byte(i)})
		}
		sent, err := encodeArgs(nil, []any{args}, 10)
		if err != nil {
			t.Fatal(err)
		}
		echo := Args(sent)
		if args.Len() != echo.Len() || len(args.attachments) != len(echo.attachments) {
			t.Fatalf("%q became %q", args.list, echo.list)
		}
		for i := range args.Len() {
			if a, b := args.At(i).resolved(), echo.At(i).resolved(); !bytes.Equal(a, b) {
				t.Fatalf("argument %d: %q became %q", i, a, b)
			}
			var v any
			if err := args.At(i).Decode(&v); err != nil && !strings.Contains(err.Error(), "cannot unmarshal number") {
				t.Fatalf("argument %d, %q: %v", i, args.At(i).JSON(), err)
			}
		}
	})
}

// Whatever a client sends, in whatever order, is answered or ends the connection. A
// script's messages have zeros between them; those that begin with 1 are binary, and
// 2 has the OnConnect of /b return.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"0\x002[\"a\"]\x001", "0/b,{}\x000\x0051-7[\"a\",{\"_placeholder\":true,\"num\":0}]\x00\x01x\x0030[1]", "0/none\x004{}",
		"0/b,\x002/b,[\"a\"]\x002/b,[\"b\"]\x001/b,", "0/b,\x00\x02\x002/b,[\"a\"]\x001/b,", "0/b,\x003/b,0[]\x001/b,\x000/b,\x00\x02\x00\x02",
		"0/b,\x0051-/b,[\"a\",{\"_placeholder\":true,\"num\":0}]\x00\x01x\x002/b,[\"b\"]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) { playScript(t, script) })
	})
}

func playScript(t *testing.T, script []byte) {
	t.Helper()
	s := NewServer(Options{})
	goOn := make(chan struct{}, 1)
	s.Of("/b").Use(func(context.Context, *Handshake) error { return nil })
	for _, name := range []string{"/", "/b"} {
		n := s.Of(name)
		n.OnConnect(func(s *Socket) {
			if name == "/b" {
				<-goOn
			}
			_ = s.EmitAck(time.Hour, func(Args, error) {}, "hello")
		})
		n.OnAny(func(s *Socket, e Event) <-chan struct{} {
			_ = e.Ack.Send(e.Args)
			if err := s.Emit(e.Name, e.Args); err != nil && !errors.Is(err, ErrDisconnected) {
				t.Errorf("%q: %v", e.Name, err)
			}
			return nil
		})
	}
	c := &session{t: t}
	c.handler = s.open(c, httptestRequest(t))
	for message := range bytes.SplitSeq(script, []byte{0}) {
		var pause <-chan struct{}
		if binary, ok := bytes.CutPrefix(message, []byte{1}); ok {
			pause = c.say("bin:" + string(binary))
		} else if string(message) == "\x02" {
			select {
			case goOn <- struct{}{}:
			default:
			}
		} else if utf8.Valid(message) {
			pause = c.say(string(message))
		}
		if pause != nil { // the engine hands nothing on meanwhile
			goOn <- struct{}{}
			<-pause
		}
		synctest.Wait()
		if c.closing != "" {
			break
		}
	}
	for _, text := range c.heard() {
		if _, err := decodePacket([]byte(text), 10); err != nil && !strings.HasPrefix(text, "bin:") {
			t.Errorf("sent %q: %v", text, err)
		}
	}
	c.end(engineio.TransportClose)
	close(goOn)
	synctest.Wait()
	if st := s.Stats(); st.Sockets != 0 || st.Connections != 0 {
		t.Errorf("%+v", st)
	}
}
