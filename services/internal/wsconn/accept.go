package wsconn

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// IsUpgrade says whether a request asks for a WebSocket.
func IsUpgrade(r *http.Request) bool { return hasToken(r.Header, "Upgrade", "websocket") }

// Offers says whether a client offers a subprotocol.
func Offers(r *http.Request, subprotocol string) bool {
	return hasToken(r.Header, "Sec-WebSocket-Protocol", subprotocol)
}

// hasToken looks in a header that is a list, without regard to case.
func hasToken(h http.Header, name, token string) bool {
	for _, value := range h.Values(name) {
		for each := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(each), token) {
				return true
			}
		}
	}
	return false
}

// Accept answers a handshake, choosing the subprotocol if the client offers it.
// The connection reads nothing until it is started; the HTTP handler returns. A
// handshake that fails has been answered. Origins are the caller's to check.
func (g *Group) Accept(w http.ResponseWriter, r *http.Request, subprotocol string, h Handler) (*Conn, error) {
	c := &Conn{group: g, handler: h}
	c.socket.conn = c
	ws, err := websocket.Accept(hijacker{w, c}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the caller has checked the origin
		OnPingReceived:     c.onPing,
		OnPongReceived:     c.onPong,
	})
	if err != nil {
		return nil, fmt.Errorf("accept a WebSocket: %w", err)
	}
	ws.SetReadLimit(-1) // receive has its own, and goes on to close in its own way
	c.ws = ws
	return c, nil
}

// frameBuffer is the least that bufio has. The library keeps one for each
// direction for as long as a connection lives; the socket has larger ones while
// there is something in them.
const frameBuffer = 16

// hijacker hands the library a socket instead of the server's connection. The answer
// to the handshake is the first that is written to the socket, together with what is
// sent before the connection is started.
type hijacker struct {
	http.ResponseWriter
	conn *Conn
}

// WriteHeader implements http.ResponseWriter. The answer that switches protocols waits
// for Hijack.
func (h hijacker) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the library wraps it
	}
	c := h.conn
	c.attach(nc)
	if early, _ := rw.Peek(rw.Reader.Buffered()); len(early) > 0 { // what is buffered can be peeked at
		c.in.buf, c.in.to = bytes.Clone(early), len(early)
	}
	c.framed = newBuffer()
	answer := bytes.NewBuffer(c.framed.b)
	answer.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Header().Write(answer) // it takes everything
	answer.WriteString("\r\n")
	c.framed.b = answer.Bytes()
	c.in.frames = bufio.NewReaderSize(&c.socket, frameBuffer)
	return &c.socket, bufio.NewReadWriter(c.in.frames, bufio.NewWriterSize(&c.socket, frameBuffer)), nil
}

func (c *Conn) attach(nc net.Conn) {
	c.socket.Conn = nc
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			_ = raw.Control(func(fd uintptr) { c.fd = int32(fd) }) //nolint:gosec // G115: it is one; on what is closed, nothing is read
		}
	}
	if tcp, ok := nc.(interface{ SetWriteBuffer(bytes int) error }); ok {
		// The kernel would take megabytes for a peer that reads nothing.
		_ = tcp.SetWriteBuffer(c.group.options.MaxQueued) // it works without
	}
	c.lastRead.Store(time.Now().UnixNano())
}
