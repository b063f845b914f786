// Package wire is a client's side of the protocols that are measured, with few
// allocations: WebSocket framing (RFC 6455), the native protocol, and Socket.IO
// over WebSocket. It opens no connections; the load generator does.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The opcodes of frames (RFC 6455, section 5.2).
const (
	Text  byte = 0x1
	Close byte = 0x8
	Ping  byte = 0x9
	Pong  byte = 0xA
)

const (
	final  = 0x80
	masked = 0x80
	// most bounds a frame: nothing that is measured comes near it.
	most = 16 << 20
)

var (
	errFragment = errors.New("the server sent a fragment: the generator reads whole messages only")
	errMasked   = errors.New("the server sent a masked frame")
)

// AppendFrame appends a client's frame. Its masking key is zero, which masks
// nothing: servers do their part of the work all the same.
func AppendFrame(dst []byte, opcode byte, payload []byte) []byte {
	dst = append(dst, final|opcode)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, masked|byte(n))
	case n < 1<<16:
		dst = append(dst, masked|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, masked|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, payload...)
}

// NextFrame takes a server's frame off the front of data. size is 0 while the
// frame is not whole.
func NextFrame(data []byte) (opcode byte, payload []byte, size int, err error) {
	if len(data) < 2 {
		return 0, nil, 0, nil
	}
	if data[1]&masked != 0 {
		return 0, nil, 0, errMasked
	}
	opcode = data[0] & 0x0F
	if data[0]&final == 0 || opcode == 0 {
		return 0, nil, 0, errFragment
	}
	head, length := 2, int(data[1])
	switch length {
	case 126:
		head = 4
		if len(data) < head {
			return 0, nil, 0, nil
		}
		length = int(binary.BigEndian.Uint16(data[2:]))
	case 127:
		head = 10
		if len(data) < head {
			return 0, nil, 0, nil
		}
		long := binary.BigEndian.Uint64(data[2:])
		if long > most {
			return 0, nil, 0, fmt.Errorf("the server sent a frame of %d bytes", long)
		}
		length = int(long)
	}
	if size = head + length; len(data) < size {
		return 0, nil, 0, nil
	}
	return opcode, data[head:size], size, nil
}
