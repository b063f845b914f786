package engineio

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/marketplane/marketplane/services/internal/wheel"
	"github.com/marketplane/marketplane/services/internal/wsconn"
)

// What close frames say (RFC 6455, section 7.4.1). A service restart is IANA's.
const (
	closeNormal   = 1000
	closeProtocol = 1002
	closeNotUTF8  = 1007
	closePolicy   = 1008
	closeTooLarge = 1009
	closeRestart  = 1012
)

// socket is a WebSocket for a session: the one that carries it, one that it may be
// upgraded to, or one too many.
type socket struct {
	conn   *Conn
	ws     *wsconn.Conn
	base64 bool // the client takes no binary messages
}

// probe is an upgrade under way (section "Upgrade"); under the session's mu.
type probe struct {
	socket   *socket // its ws is nil before the handshake is done
	timer    wheel.Timer
	answered bool          // "3probe"
	upgrade  chan struct{} // closed when a POST, which "5" met, is handled; nil before "5"
}

var messagePrefix = []byte{byte(packetMessage)}

func (s *socket) send(u Urgency, kind Kind, parts [][]byte) error {
	if kind == Text {
		var few [8][]byte
		return s.ws.Gather(u, append(append(few[:0], messagePrefix), parts...)...)
	}
	if s.base64 {
		return s.ws.Send(Text, appendBinary(nil, parts))
	}
	return s.ws.Send(Binary, parts...)
}

func (s *socket) sendAll(packets []Packet) error {
	messages := make([]wsconn.Message, 0, len(packets))
	for _, p := range packets {
		switch {
		case p.Kind == Text:
			messages = append(messages, wsconn.Message{Kind: Text, Parts: append([][]byte{messagePrefix}, p.Parts...)})
		case s.base64:
			messages = append(messages, wsconn.Message{Kind: Text, Parts: [][]byte{appendBinary(nil, p.Parts)}})
		default:
			messages = append(messages, wsconn.Message{Kind: Binary, Parts: p.Parts})
		}
	}
	return s.ws.SendAll(messages...)
}

// sendPayload sends what waited for a poll.
func (s *socket) sendPayload(payload []byte) error {
	var messages []wsconn.Message
	for more := len(payload) > 0; more; {
		var text []byte
		text, payload, more = cutPacket(payload)
		if text[0] == binaryPrefix && !s.base64 {
			data, err := appendDecoded(nil, text[1:])
			if err != nil {
				return err
			}
			messages = append(messages, wsconn.Message{Kind: Binary, Parts: [][]byte{data}})
			continue
		}
		messages = append(messages, wsconn.Message{Kind: Text, Parts: [][]byte{text}})
	}
	return s.ws.SendAll(messages...)
}

// Message implements wsconn.Handler.
func (s *socket) Message(kind Kind, payload []byte) (pause <-chan struct{}) {
	c := s.conn
	c.mu.Lock()
	if c.socket != s {
		defer c.mu.Unlock()
		return s.probed(kind, payload)
	}
	c.mu.Unlock()
	c.deliver.Lock()
	defer c.deliver.Unlock()
	pause, err := s.received(kind, payload)
	if err == nil {
		return pause
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, errLeft):
		c.endWith(TransportClose, nil, closeNormal, "")
	case errors.Is(err, errNotUTF8):
		c.endWith(ParseError, err, closeNotUTF8, string(ParseError))
	default:
		c.endWith(ParseError, err, closeProtocol, string(ParseError))
	}
	return nil
}

// received handles what the session's client sent; under deliver.
func (s *socket) received(kind Kind, payload []byte) (pause <-chan struct{}, err error) {
	if kind == Binary {
		return s.conn.handle(Binary, payload), nil
	}
	packet, err := decodePacket(payload)
	if err != nil {
		return nil, err
	}
	return s.conn.received(packet)
}

// probed handles what came on a WebSocket that does not carry its session (yet);
// under the session's mu.
func (s *socket) probed(kind Kind, payload []byte) (pause <-chan struct{}) {
	c := s.conn
	p := c.probe
	if p == nil || p.socket != s {
		return nil // it is being closed
	}
	switch text := string(payload); {
	case kind == Text && text == string(packetPing)+probePayload:
		_ = s.ws.Send(Text, []byte{byte(packetPong)}, []byte(probePayload)) // if it broke, we are told
		p.answered = true
		c.polling.stir()
	case kind == Text && text == string(packetUpgrade) && p.answered:
		p.upgrade = make(chan struct{})
		if c.polling.posting { // some clients do not wait for the answer
			return p.upgrade
		}
		c.upgrade()
	default:
		c.dropProbe(closeProtocol, "neither a probe nor an upgrade")
	}
	return nil
}

// upgrade lets the WebSocket that asked for it carry the session; under mu.
func (c *Conn) upgrade() {
	server, polling, probe := c.server, c.polling, c.probe
	server.wheel.Cancel(&probe.timer)
	server.upgrading.Add(-1)
	server.sessions.polling.Add(-1)
	server.sessions.webSocket.Add(1)
	server.upgraded.Add(1)
	c.socket, c.polling, c.probe = probe.socket, nil, nil
	close(probe.upgrade)
	if polling.waiting != nil { // it should not have come, if it began after the client said so
		polling.waiting.refused = polling.waiting.late
	}
	polling.dismiss(packetNoop)
	payload := polling.queue
	polling.drop(server)
	polling.notify()
	if err := c.socket.sendPayload(payload); err != nil {
		c.endWith(TransportError, fmt.Errorf("upgrade: %w", err), closePolicy, string(TransportError))
		return
	}
	if c.state == stateClosing {
		server.wheel.Cancel(&c.timer)
		c.socket.ws.Close(polling.code, polling.text)
	}
}

// dropProbe gives up an upgrade, if there is one; under mu.
func (c *Conn) dropProbe(code int, reason string) {
	p := c.probe
	if p == nil {
		return
	}
	c.probe = nil
	c.server.wheel.Cancel(&p.timer)
	c.server.upgrading.Add(-1)
	if p.upgrade != nil {
		close(p.upgrade)
	}
	if p.socket.ws != nil {
		p.socket.ws.Close(code, reason)
	}
}

// TooLarge implements wsconn.Handler.
func (s *socket) TooLarge() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket == s {
		c.end(TransportError, errTooLarge)
	} else if c.probe != nil && c.probe.socket == s {
		c.dropProbe(closeTooLarge, "")
	}
	s.ws.Close(closeTooLarge, "")
}

// Closed implements wsconn.Handler.
func (s *socket) Closed(closure wsconn.Closure) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket == s {
		reason := TransportError
		if closure.ByPeer || errors.Is(closure.Err, io.ErrUnexpectedEOF) {
			reason = TransportClose
		}
		c.end(reason, closure.Err)
	} else if c.probe != nil && c.probe.socket == s {
		c.dropProbe(closeNormal, "")
	}
}

// accept serves a WebSocket's handshake for a session that there is (section
// "Upgrade").
func (s *Server) accept(w http.ResponseWriter, r *http.Request, c *Conn, base64 bool) {
	if !s.enter() {
		s.refuse(w, r, &shuttingDown)
		return
	}
	defer s.running.Done()
	p := &probe{socket: &socket{conn: c, base64: base64}}
	welcome, ended := c.beginUpgrade(p)
	if ended {
		s.fail(w, r, CodeUnknownSession)
		return
	}
	ws, err := s.group.Accept(w, r, "", p.socket)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.probe == p {
			c.dropProbe(closeNormal, "")
		}
		return
	}
	c.mu.Lock()
	p.socket.ws = ws
	ws.LimitMessages(c.most)
	if c.probe != p {
		reason := "the session has ended"
		if !welcome {
			reason = "the session takes no other WebSocket"
		}
		ws.Close(closePolicy, reason)
	}
	c.mu.Unlock()
	ws.Start()
}

// beginUpgrade lets an upgrade begin. It is not welcome if the session has, or
// tries, a WebSocket already, or is closing.
func (c *Conn) beginUpgrade(p *probe) (welcome, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat()
	if c.state != stateOpen || c.polling == nil || c.probe != nil {
		return false, c.state == stateEnded
	}
	c.probe = p
	c.server.upgrading.Add(1)
	p.timer.Init(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.probe == p {
			c.dropProbe(closePolicy, "upgrade timeout")
		}
	})
	c.server.wheel.Schedule(&p.timer, c.server.options.UpgradeTimeout)
	return true, false
}

// openWebSocket begins a session with a WebSocket.
func (s *Server) openWebSocket(w http.ResponseWriter, r *http.Request, base64 bool) {
	if !s.admit(w, r) {
		return
	}
	c := s.newConn()
	sock := &socket{conn: c, base64: base64}
	ws, err := s.group.Accept(w, r, "", sock)
	if err != nil {
		s.release()
		return
	}
	sock.ws = ws
	c.socket = sock
	_ = ws.Send(Text, s.openPacket(c.id, WebSocket)) // there is room
	s.begin(c, r)
	ws.Start()
}
