package wire

import (
	"bytes"
	"fmt"
	"strconv"
)

// Kind is what an Event tells of.
type Kind int

// The kinds.
const (
	// Greeted: the server waits for the client's token.
	Greeted Kind = iota
	// Probed: the server is ready to go on with a session of Engine.IO here.
	Probed
	// Authenticated: the connection is the user's.
	Authenticated
	// Acked: a message is written.
	Acked
	// Refused: a command, or the token, was not taken.
	Refused
	// Message: one arrived.
	Message
	// Signal: something ephemeral arrived.
	Signal
	// Pinged: answer with Protocol.Pong.
	Pinged
	// Other: something that no work asks for.
	Other
)

// Event is what a server says. Fields that a kind does not have are zero.
type Event struct {
	Kind Kind
	// ID is that of the command that is answered.
	ID uint32
	// SentAt is what the sender wrote into a message; see AppendBody.
	SentAt int64
	// Recovered says that what was missed follows.
	Recovered bool
	// Text is the reason of a refusal.
	Text string
}

// Session is what a client must remember to go on after its connection.
type Session struct {
	// Keep says that it is wanted.
	Keep bool
	// Place is the last event's cursor or offset, ID Socket.IO's pid.
	Place, ID []byte
}

// Protocol is one of the wires. Frames are the payloads of text frames.
type Protocol interface {
	// Path is requested, with Subprotocol if there is one.
	Path() string
	Subprotocol() string
	// Read tells of everything in a frame. What it hands out is gone with the
	// frame.
	Read(frame []byte, s *Session, tell func(Event)) error
	// AppendOpen appends the frame that shows a token, and goes on with the session
	// if it was kept.
	AppendOpen(dst []byte, token string, s *Session) []byte
	// AppendSend appends the frame of a message, whose answer has the id.
	AppendSend(dst []byte, id uint32, conversation, client string, body []byte) []byte
	// AppendTyping appends the frame that tells of typing.
	AppendTyping(dst []byte, conversation string) []byte
	// AppendPong appends the frame that answers Pinged.
	AppendPong(dst []byte) []byte
}

// sentAt is the field of a body that carries the time.
const sentAt = `"sent_ns":`

// AppendBody appends a message's body: the time in nanoseconds, and text.
func AppendBody(dst []byte, at int64, text string) []byte {
	dst = append(dst, '{')
	dst = append(dst, sentAt...)
	dst = strconv.AppendInt(dst, at, 10)
	dst = append(dst, `,"text":"`...)
	dst = append(dst, text...)
	return append(dst, `"}`...)
}

// readSentAt finds the time in a message; servers may write its JSON anew.
func readSentAt(message []byte) (int64, error) {
	_, rest, ok := bytes.Cut(message, []byte(sentAt))
	if !ok {
		return 0, fmt.Errorf("a message is none of ours: %.200s", message)
	}
	rest = bytes.TrimLeft(rest, " ")
	return int64(digits(&rest)), nil //nolint:gosec // G115: AppendBody wrote it
}

// digits takes a number off the front.
func digits(text *[]byte) uint64 {
	var n uint64
	i := 0
	for ; i < len(*text) && (*text)[i] >= '0' && (*text)[i] <= '9'; i++ {
		n = n*10 + uint64((*text)[i]-'0')
	}
	*text = (*text)[i:]
	return n
}

// field returns the string behind name, which is like `"code":"`, up to the next
// quotation mark.
func field(text []byte, name string) []byte {
	_, rest, ok := bytes.Cut(text, []byte(name))
	if !ok {
		return nil
	}
	value, _, _ := bytes.Cut(rest, []byte{'"'})
	return value
}
