// Package plan is what the benchmark and its load generator agree on: who the
// users are, which conversations they are members of, and the steps that one asks
// of the other. They speak JSON, a line each: a Job, then Steps, each of which is
// answered by a Result.
package plan

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The protocols that a generator speaks.
const (
	Native   = "native"
	SocketIO = "socket.io"
)

// The processes at which sessions of Socket.IO are upgraded.
const (
	// UpgradeHere: at the one that holds the session.
	UpgradeHere = "here"
	// UpgradeElsewhere: at the next one, which forwards.
	UpgradeElsewhere = "elsewhere"
)

// Job is what a generator is started for.
type Job struct {
	Protocol string `json:"protocol"`
	// Targets are the processes of the server, as host:port: neighbours in a
	// conversation are on different ones.
	Targets []string `json:"targets"`
	// Users are numbered from 0 on. User i is member i%Members of conversation
	// i/Members.
	Users   int `json:"users"`
	Members int `json:"members"`
	// Upgrade has sessions begin with a poll, as those of clients with default
	// options do, and says where they are upgraded to WebSocket. Empty: they begin
	// as WebSockets.
	Upgrade string `json:"upgrade,omitempty"`
	// Issuer and SigningKeys (contract.SigningKeys) make the tokens.
	Issuer      string `json:"issuer"`
	SigningKeys []byte `json:"signing_keys"`
}

// The steps.
const (
	// Connect opens connections, Rate a second or as soon as InFlight lets,
	// and waits until each has what it missed.
	Connect = "connect"
	// Hold does nothing but answer pings.
	Hold = "hold"
	// Send sends messages at a fixed rate.
	Send = "send"
	// Typing tells of typing at a fixed rate.
	Typing = "typing"
	// Exchange has each pair send one message after the other, in turns, each as
	// soon as the last one is acknowledged.
	Exchange = "exchange"
	// Drop closes connections without a word.
	Drop = "drop"
)

// Step is one thing to do.
type Step struct {
	Do string `json:"do"`
	// Rate is events a second.
	Rate float64 `json:"rate,omitempty"`
	// Lasting is for how long.
	Lasting time.Duration `json:"lasting,omitempty"`
	// InFlight bounds handshakes at a time.
	InFlight int `json:"in_flight,omitempty"`
	// Members, if set, leaves the first so many members of each conversation to
	// send, or to keep their connections.
	Members int `json:"members,omitempty"`
	// Missed is how many messages each reconnecting user must get that were sent
	// meanwhile.
	Missed int `json:"missed,omitempty"`
}

// Result is what came of a step.
type Result struct {
	// Error says why the step failed; the other fields are then of no use.
	Error string `json:"error,omitempty"`
	// Done counts what the step is about: connections, sends, signals.
	Done int `json:"done"`
	// Acked counts acknowledged messages, within the step's time.
	Acked int `json:"acked"`
	// Delivered counts messages and signals that arrived at a connection.
	Delivered int `json:"delivered"`
	// Wanted is how many should have arrived. Signals may be dropped.
	Wanted int `json:"wanted"`
	// Took is the whole step, until its last answer.
	Took time.Duration `json:"took"`
	// Processor is what the generator used of it.
	Processor time.Duration `json:"processor"`
	// Late is how much later than planned things were sent.
	Late Quantiles `json:"late"`
	// Opening is from the start of a connection until it is authenticated and has
	// what it missed.
	Opening Quantiles `json:"opening"`
	// Ack and Delivery are from the planned time of a message until it is
	// acknowledged, and arrives at a member.
	Ack      Quantiles `json:"ack"`
	Delivery Quantiles `json:"delivery"`
}

// Quantiles are those of a latency.
type Quantiles struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// User is the id of a user.
func User(i int) uuid.UUID { return id(1, i) }

// Session is the id of a user's session.
func Session(i int) uuid.UUID { return id(2, i) }

// Conversation is the id of a conversation.
func Conversation(i int) uuid.UUID { return id(3, i) }

// id makes UUIDs that look like the seventh version's (RFC 9562, section 5.7).
func id(kind byte, i int) uuid.UUID {
	u := uuid.UUID{0x01, 0x93, 0x5a, 0, 0, 0, 0x70, 0, 0x80, kind}
	binary.BigEndian.PutUint32(u[12:], uint32(i)) //nolint:gosec // G115: there are some thousands
	return u
}

// Address is the loopback address that a user connects from: each has one of its
// own, as people have, so that limits for an address are met as they are.
func Address(i int) [4]byte {
	return [4]byte{127, 1 + byte(i>>16), byte(i >> 8), byte(i)} //nolint:gosec // G115: the bytes of a small number
}

// Conversations is how many there are, the last one perhaps with fewer members.
func (j Job) Conversations() int { return (j.Users + j.Members - 1) / j.Members }

// Validate says what a job lacks.
func (j Job) Validate() error {
	switch {
	case j.Protocol != Native && j.Protocol != SocketIO:
		return fmt.Errorf("protocol: there is none called %q", j.Protocol)
	case len(j.Targets) == 0:
		return fmt.Errorf("targets: name at least one")
	case j.Users < 1 || j.Members < 1:
		return fmt.Errorf("users and members must be at least 1")
	case j.Upgrade != "" && j.Upgrade != UpgradeHere && j.Upgrade != UpgradeElsewhere:
		return fmt.Errorf("upgrade: there is none called %q", j.Upgrade)
	case j.Upgrade != "" && j.Protocol != SocketIO:
		return fmt.Errorf("upgrade: sessions of %s only", SocketIO)
	}
	return nil
}
