package load

import (
	"bytes"
	"fmt"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/wire"
)

// conn is a user's connection.
type conn struct {
	load *load
	user int
	fd   int // -1 while there is none

	connected bool // TCP
	polling   bool // the poll that begins a session to be upgraded
	upgraded  bool // WebSocket
	ready     bool // authenticated
	writes    bool // wants to know when it can write
	in, out   []byte

	session wire.Session
	// opened is when the connection was begun, in Unix nanoseconds; missing is how
	// many messages it lacks until it is open.
	opened  int64
	opening bool
	missing int
}

// upgradeHeader asks for a WebSocket. The key is the RFC's example: no server minds.
const upgradeHeader = "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

// get is a request, with header lines that each have their end.
func get(path, host, header string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host, header)
}

// request asks for the protocol's WebSocket.
func (l *load) request(target string) []byte {
	header := upgradeHeader
	if name := l.protocol.Subprotocol(); name != "" {
		header += "Sec-WebSocket-Protocol: " + name + "\r\n"
	}
	return get(l.protocol.Path(), target, header)
}

var (
	endOfHead = []byte("\r\n\r\n")
	switching = []byte("HTTP/1.1 101 ")
)

// receive handles what was read, and returns what is not whole yet.
func (c *conn) receive(data []byte) ([]byte, error) {
	if c.polling {
		return c.polled(data)
	}
	if !c.upgraded {
		head, rest, ok := bytes.Cut(data, endOfHead)
		if !ok {
			return data, nil
		}
		if !bytes.HasPrefix(head, switching) {
			return nil, fmt.Errorf("no WebSocket: %.300s", head)
		}
		c.upgraded, data = true, rest
		if c.load.job.Upgrade != "" {
			c.load.write(c, wire.Text, wire.SocketIO{}.AppendProbe(c.load.payload[:0]))
		}
	}
	for len(data) > 0 {
		opcode, payload, size, err := wire.NextFrame(data)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return data, nil
		}
		if err := c.frame(opcode, payload); err != nil {
			return nil, err
		}
		if c.fd < 0 {
			return nil, nil
		}
		data = data[size:]
	}
	return nil, nil
}

func (c *conn) frame(opcode byte, payload []byte) error {
	switch opcode {
	case wire.Text:
		return c.load.protocol.Read(payload, &c.session, c.tell)
	case wire.Ping:
		c.load.write(c, wire.Pong, payload)
	case wire.Close:
		if len(payload) < 2 {
			return fmt.Errorf("the server closed the connection")
		}
		return fmt.Errorf("the server closed the connection: %d %s", int(payload[0])<<8|int(payload[1]), payload[2:])
	}
	return nil
}

func (c *conn) tell(e wire.Event) {
	l := c.load
	switch e.Kind {
	case wire.Probed:
		l.write(c, wire.Text, wire.SocketIO{}.AppendUpgrade(l.payload[:0]))
		fallthrough
	case wire.Greeted:
		l.payload = l.protocol.AppendOpen(l.payload[:0], l.tokens[c.user], &c.session)
		l.write(c, wire.Text, l.payload)
	case wire.Authenticated:
		c.ready = true
		if c.missing > 0 && !e.Recovered {
			l.loop.fail(c, fmt.Errorf("what was missed is not recovered"))
			return
		}
		l.opened(c)
	case wire.Pinged:
		l.write(c, wire.Text, l.protocol.AppendPong(l.payload[:0]))
	case wire.Refused:
		l.loop.fail(c, fmt.Errorf("refused: %s", e.Text))
	case wire.Acked:
		l.acked(e.ID)
	case wire.Message:
		if c.opening {
			c.missing--
			l.opened(c)
			return
		}
		l.delivered(e.SentAt)
	case wire.Signal:
		l.delivered(0)
	case wire.Other:
	}
}
