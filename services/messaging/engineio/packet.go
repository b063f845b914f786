package engineio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// packetType is a packet's first byte (section "Protocol").
type packetType byte

const (
	packetOpen    packetType = '0'
	packetClose   packetType = '1'
	packetPing    packetType = '2'
	packetPong    packetType = '3'
	packetMessage packetType = '4'
	packetUpgrade packetType = '5'
	packetNoop    packetType = '6'
)

const (
	// separator stands between the packets of a payload (section "Packet
	// encoding").
	separator = '\x1e'
	// binaryPrefix stands before a binary message in text, in the place of a type.
	binaryPrefix = 'b'
	// probePayload is that of the ping and the pong that try a WebSocket (section
	// "Upgrade").
	probePayload = "probe"
)

var (
	errNoPacket  = errors.New("a packet of no known type")
	errNotUTF8   = errors.New("text that is not UTF-8")
	errNotBase64 = errors.New("a binary message that is not base64")
)

// packet is one that came as text. Its data is a part of what came, so it is
// still in base64 if it is binary.
type packet struct {
	kind Kind
	typ  packetType
	data []byte
}

// decodePacket takes the text of a packet apart.
func decodePacket(text []byte) (packet, error) {
	if len(text) == 0 {
		return packet{}, errNoPacket
	}
	switch typ := packetType(text[0]); typ {
	case packetOpen, packetClose, packetPing, packetPong, packetMessage, packetUpgrade, packetNoop:
		if !utf8.Valid(text) {
			return packet{}, errNotUTF8
		}
		return packet{kind: Text, typ: typ, data: text[1:]}, nil
	case binaryPrefix:
		return packet{kind: Binary, typ: packetMessage, data: text[1:]}, nil
	default:
		return packet{}, errNoPacket
	}
}

// base64Encoding is strict: what is decoded and encoded again is the same.
var base64Encoding = base64.StdEncoding.Strict()

// appendDecoded appends what base64 stands for.
func appendDecoded(dst, encoded []byte) ([]byte, error) {
	dst, err := base64Encoding.AppendDecode(dst, encoded)
	if err != nil || bytes.IndexByte(encoded, '\n') >= 0 || bytes.IndexByte(encoded, '\r') >= 0 {
		return dst, errNotBase64 // the library passes over the ends of lines
	}
	return dst, nil
}

// cutPacket takes the first packet's text off a payload.
func cutPacket(payload []byte) (text, rest []byte, more bool) {
	return bytes.Cut(payload, []byte{separator})
}

// appendText appends a text message to a payload.
func appendText(payload []byte, parts [][]byte) []byte {
	payload = appendControl(payload, packetMessage)
	for _, p := range parts {
		payload = append(payload, p...)
	}
	return payload
}

// appendBinary appends a binary message to a payload.
func appendBinary(payload []byte, parts [][]byte) []byte {
	payload = appendControl(payload, binaryPrefix)
	if len(parts) == 1 {
		return base64Encoding.AppendEncode(payload, parts[0])
	}
	return base64Encoding.AppendEncode(payload, bytes.Join(parts, nil))
}

// appendControl appends a packet without data to a payload.
func appendControl(payload []byte, typ packetType) []byte {
	if len(payload) > 0 {
		payload = append(payload, separator)
	}
	return append(payload, byte(typ))
}

// encodedSize is how much a message takes in a payload, at most.
func encodedSize(kind Kind, parts [][]byte) int {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if kind == Binary {
		size = base64Encoding.EncodedLen(size)
	}
	return size + 2 // the separator, and the type
}
