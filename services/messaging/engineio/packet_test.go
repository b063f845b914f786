package engineio

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// Sections "Protocol" and "Packet encoding".
func TestDecodePacket(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text     string
		wantKind Kind
		wantType packetType
		wantData string
		wantErr  error
	}{
		"open":             {text: `0{}`, wantKind: Text, wantType: packetOpen, wantData: "{}"},
		"close":            {text: "1", wantKind: Text, wantType: packetClose},
		"ping":             {text: "2probe", wantKind: Text, wantType: packetPing, wantData: "probe"},
		"pong":             {text: "3", wantKind: Text, wantType: packetPong},
		"message":          {text: "4hello", wantKind: Text, wantType: packetMessage, wantData: "hello"},
		"empty message":    {text: "4", wantKind: Text, wantType: packetMessage},
		"more than ASCII":  {text: "4€", wantKind: Text, wantType: packetMessage, wantData: "€"},
		"upgrade":          {text: "5", wantKind: Text, wantType: packetUpgrade},
		"noop":             {text: "6", wantKind: Text, wantType: packetNoop},
		"binary message":   {text: "bAQIDBA==", wantKind: Binary, wantType: packetMessage, wantData: "AQIDBA=="},
		"nothing":          {text: "", wantErr: errNoPacket},
		"no such type":     {text: "7", wantErr: errNoPacket},
		"a letter":         {text: "abc", wantErr: errNoPacket},
		"a large b":        {text: "BAQIDBA==", wantErr: errNoPacket},
		"a space first":    {text: " 4", wantErr: errNoPacket},
		"not UTF-8":        {text: "4\xff", wantErr: errNotUTF8},
		"a half character": {text: "4\xe2\x82", wantErr: errNotUTF8},
		"a surrogate":      {text: "4\xed\xa0\x80", wantErr: errNotUTF8},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodePacket([]byte(tt.text))
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("error %v, want %v", err, tt.wantErr)
			}
			if got.kind != tt.wantKind || got.typ != tt.wantType || string(got.data) != tt.wantData {
				t.Errorf("got %v %q %q", got.kind, got.typ, got.data)
			}
		})
	}
}

// Section "Packet encoding": binary messages in text are base64, which has one form
// alone.
func TestBase64IsStrict(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"AQIDBA==", "", "AA=="} {
		if got, err := appendDecoded(nil, []byte(text)); err != nil || base64Encoding.EncodeToString(got) != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"AQIDBA", "AQID BA==", "AQIDBA==\n", "AQID\r\nBA==", "_-8=", "AB==", "=", "AQIDBA==AQ=="} {
		if got, err := appendDecoded(nil, []byte(text)); !errors.Is(err, errNotBase64) {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}

// Section "Packet encoding", HTTP long-polling: the specification's examples.
func TestPayloads(t *testing.T) {
	t.Parallel()
	parts := func(texts ...string) (p [][]byte) {
		for _, text := range texts {
			p = append(p, []byte(text))
		}
		return p
	}
	p := appendText(nil, parts("hel", "lo"))
	p = appendControl(p, packetPing)
	p = appendText(p, parts("world"))
	p = appendBinary(p, parts("\x01\x02\x03\x04"))
	p = appendBinary(p, parts("\x01", "\x02\x03\x04"))
	p = appendBinary(p, parts())
	p = appendText(p, parts())
	if want := "4hello\x1e2\x1e4world\x1ebAQIDBA==\x1ebAQIDBA==\x1eb\x1e4"; string(p) != want {
		t.Errorf("got %q, want %q", p, want)
	}
	for _, kind := range []Kind{Text, Binary} {
		for _, message := range [][][]byte{parts(), parts("a"), parts("ab", "c"), parts("abcd", "efg", "h")} {
			encoded := appendText([]byte("6"), message)
			if kind == Binary {
				encoded = appendBinary([]byte("6"), message)
			}
			if got := encodedSize(kind, message); got != len(encoded)-1 {
				t.Errorf("%q is said to take %d bytes", encoded, got)
			}
		}
	}
}

// What is taken for a packet is, when it is encoded again, the same.
func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		"", "4", "4hello\x1e2\x1e4world", "4hello\x1ebAQIDBA==", "bAB==", "b", "\x1e", "4a\x1e", "1\x1e4", "3probe", "4\xff", "b\n", "4€\x1eb____",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		original := bytes.Clone(payload)
		var again []byte
		var text []byte
		rest, count := payload, 0
		for more := true; more; count++ {
			text, rest, more = cutPacket(rest)
			p, err := decodePacket(text)
			if err != nil {
				return
			}
			if p.kind == Text {
				again = append(appendControl(again, p.typ), p.data...)
				continue
			}
			data, err := appendDecoded(nil, p.data)
			if err != nil {
				return
			}
			again = appendBinary(again, [][]byte{data})
		}
		if !slices.Equal(payload, original) {
			t.Errorf("decoding has changed %q to %q", original, payload)
		}
		if !slices.Equal(again, original) {
			t.Errorf("%q became %q", original, again)
		}
		if count != bytes.Count(original, []byte{separator})+1 {
			t.Errorf("%d packets in %q", count, original)
		}
	})
}
