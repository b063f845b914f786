package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/wire"
)

// serverFrame is a frame as servers send it.
func serverFrame(opcode byte, payload string) []byte {
	frame := wire.AppendFrame(nil, opcode, []byte(payload))
	head := len(frame) - len(payload) - 4
	frame[1] &^= 0x80
	return append(frame[:head:head], payload...)
}

func TestFrames(t *testing.T) {
	for name, size := range map[string]int{"small": 5, "two bytes of length": 126, "the most of two": 65535, "eight bytes of length": 65536} {
		t.Run(name, func(t *testing.T) {
			payload := strings.Repeat("x", size)
			data := append(serverFrame(wire.Text, payload), serverFrame(wire.Ping, "next")...)
			whole := len(data) - 6
			for cut := range min(whole, 12) {
				if _, _, n, err := wire.NextFrame(data[:cut]); n != 0 || err != nil {
					t.Fatalf("of %d bytes a frame of %d was taken, error %v", cut, n, err)
				}
			}
			opcode, got, n, err := wire.NextFrame(data)
			if err != nil || opcode != wire.Text || string(got) != payload || n != whole {
				t.Fatalf("got opcode %d, %d bytes, size %d of %d, error %v", opcode, len(got), n, whole, err)
			}
			if opcode, got, _, err = wire.NextFrame(data[n:]); err != nil || opcode != wire.Ping || string(got) != "next" {
				t.Errorf("the next one is opcode %d %q, error %v", opcode, got, err)
			}
		})
	}
}

func TestFramesThatNoServerSends(t *testing.T) {
	for name, frame := range map[string][]byte{
		"masked":       wire.AppendFrame(nil, wire.Text, []byte("x")),
		"a fragment":   {0x01, 1, 'x'},
		"continuation": {0x80, 1, 'x'},
		"far too long": {0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, _, err := wire.NextFrame(frame); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRead(t *testing.T) {
	const message = `{"conversation_id":"c","body":{"text": "hi", "sent_ns": 1700000000000000001}}`
	for name, test := range map[string]struct {
		protocol wire.Protocol
		frame    string
		session  wire.Session
		want     []wire.Event
		wantID   string
		wantAt   string
	}{
		"native, several in a frame": {
			protocol: wire.Native{},
			frame: `{"op":"hello","ping_ms":25000}` + "\n" +
				`{"re":1,"ok":{"session":"s","user":"u","cursor":"c1","recovered":true}}` + "\n" +
				`{"re":17,"ok":{"id":"m","seq":1,"duplicate":false}}` + "\n" +
				`{"re":18,"error":{"code":"rate_limited","message":"…"}}` + "\n" +
				`{"op":"message","cursor":"c2",` + message[1:] + "\n" +
				`{"op":"typing","conversation_id":"c","from":"u"}` + "\n" +
				`{"op":"receipt","cursor":"c3","seq":1}` + "\n",
			session: wire.Session{Keep: true},
			want: []wire.Event{
				{Kind: wire.Greeted},
				{Kind: wire.Authenticated, Recovered: true},
				{Kind: wire.Acked, ID: 17},
				{Kind: wire.Refused, ID: 18, Text: "rate_limited"},
				{Kind: wire.Message, SentAt: 1700000000000000001},
				{Kind: wire.Signal},
				{Kind: wire.Other},
			},
			wantAt: "c3",
		},
		"Socket.IO, open":      {protocol: wire.SocketIO{}, frame: `0{"sid":"x","upgrades":[]}`, want: []wire.Event{{Kind: wire.Greeted}}},
		"Socket.IO, ping":      {protocol: wire.SocketIO{}, frame: `2`, want: []wire.Event{{Kind: wire.Pinged}}},
		"Socket.IO, probed":    {protocol: wire.SocketIO{}, frame: `3probe`, want: []wire.Event{{Kind: wire.Probed}}},
		"Socket.IO, connected": {protocol: wire.SocketIO{}, frame: `40{"sid":"x"}`, want: []wire.Event{{Kind: wire.Authenticated}}},
		"Socket.IO, recovered": {
			protocol: wire.SocketIO{}, frame: `40{"sid":"x","pid":"p"}`, session: wire.Session{Keep: true, ID: []byte("p"), Place: []byte("o")},
			want: []wire.Event{{Kind: wire.Authenticated, Recovered: true}}, wantID: "p", wantAt: "o",
		},
		"Socket.IO, not recovered": {
			protocol: wire.SocketIO{}, frame: `40{"sid":"x","pid":"q"}`, session: wire.Session{Keep: true, ID: []byte("p")},
			want: []wire.Event{{Kind: wire.Authenticated}}, wantID: "q",
		},
		"Socket.IO, acknowledged": {protocol: wire.SocketIO{}, frame: `4317[{"ok":true,"id":"m"}]`, want: []wire.Event{{Kind: wire.Acked, ID: 17}}},
		"Socket.IO, refused": {
			protocol: wire.SocketIO{}, frame: `4317[{"ok":false,"error":"no"}]`,
			want: []wire.Event{{Kind: wire.Refused, ID: 17, Text: `[{"ok":false,"error":"no"}]`}},
		},
		"Socket.IO, message": {
			protocol: wire.SocketIO{}, frame: `42["message",` + message + `]`, session: wire.Session{Keep: true},
			want: []wire.Event{{Kind: wire.Message, SentAt: 1700000000000000001}},
		},
		"Socket.IO, message with an offset": {
			protocol: wire.SocketIO{}, frame: `42["message",` + message + `,"o1"]`, session: wire.Session{Keep: true},
			want: []wire.Event{{Kind: wire.Message, SentAt: 1700000000000000001}}, wantAt: "o1",
		},
		"Socket.IO, typing": {protocol: wire.SocketIO{}, frame: `42["typing",{"from":"u"}]`, want: []wire.Event{{Kind: wire.Signal}}},
		"Socket.IO, another event with an offset": {
			protocol: wire.SocketIO{}, frame: `42["receipt",{"seq":1},"o2"]`, session: wire.Session{Keep: true},
			want: []wire.Event{{Kind: wire.Other}}, wantAt: "o2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []wire.Event
			session := test.session
			if err := test.protocol.Read([]byte(test.frame), &session, func(e wire.Event) { got = append(got, e) }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if string(session.ID) != test.wantID || string(session.Place) != test.wantAt {
				t.Errorf("the session is %q at %q, want %q at %q", session.ID, session.Place, test.wantID, test.wantAt)
			}
		})
	}
}

func TestReadRefusesWhatIsUnknown(t *testing.T) {
	for frame, protocol := range map[string]wire.Protocol{
		`[]`:                    wire.Native{},
		`{"op":"message"}`:      wire.Native{},
		``:                      wire.SocketIO{},
		`4`:                     wire.SocketIO{},
		`6`:                     wire.SocketIO{},
		`3`:                     wire.SocketIO{},
		`42["message",{"a":1}]`: wire.SocketIO{},
	} {
		if err := protocol.Read([]byte(frame), &wire.Session{}, func(wire.Event) {}); err == nil {
			t.Errorf("%q: no error", frame)
		}
	}
}

func TestBodyCarriesItsTime(t *testing.T) {
	body := wire.AppendBody(nil, 42, "hello")
	if want := []byte(`{"sent_ns":42,"text":"hello"}`); !bytes.Equal(body, want) {
		t.Errorf("the body is %s, want %s", body, want)
	}
}

func TestSessionID(t *testing.T) {
	var socketIO wire.SocketIO
	sid, err := socketIO.SessionID([]byte(`0{"sid":"abc","upgrades":["websocket"]}`))
	if err != nil || socketIO.UpgradePath(sid) != "/socket.io/?EIO=4&transport=websocket&sid=abc" {
		t.Errorf("%q, %v", sid, err)
	}
	for _, body := range []string{``, `{"code":1,"message":"Session ID unknown"}`, `0{}`} {
		if _, err := socketIO.SessionID([]byte(body)); err == nil {
			t.Errorf("%q: no error", body)
		}
	}
}
