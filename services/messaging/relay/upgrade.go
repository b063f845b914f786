package relay

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// upgrade forwards a WebSocket's handshake, and then the socket.
func (f *Relay) upgrade(w http.ResponseWriter, r *http.Request, owner netip.AddrPort) bool {
	if !f.takeSocket() {
		f.refuse(w)
		return true
	}
	defer f.releaseSocket()
	ctx, cancel := context.WithTimeout(r.Context(), f.options.HandshakeTimeout)
	defer cancel()
	defer context.AfterFunc(f.abandon, cancel)()
	conn, err := f.dialer.DialContext(ctx, "tcp", owner.String())
	if err != nil {
		return f.failed(ctx, r)
	}
	hurry := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(longAgo) }) // fails on what is closed
	done := false
	defer func() {
		if !done {
			hurry()
			_ = conn.Close() // nothing was made of it
		}
	}()
	out := outgoing(ctx, r, owner)
	out.Header.Set("Connection", "Upgrade")
	out.Header.Set("Upgrade", "websocket")
	if err := out.Write(conn); err != nil {
		return f.failed(ctx, r)
	}
	in := bufio.NewReader(io.LimitReader(conn, maxHeader))
	response, err := http.ReadResponse(in, out)
	if err != nil {
		return f.failed(ctx, r)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(response.Header.Get("Upgrade"), "websocket") {
		defer func() { _ = response.Body.Close() }() // what matters was read
		f.answer(ctx, w, r, response)
		return true
	}
	copyHeader(w.Header(), response.Header)
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	early, _ := in.Peek(in.Buffered()) // what is buffered can be peeked at
	if !hurry() {
		return f.failed(ctx, r)
	}
	client, late, err := f.hijack(w)
	if err != nil {
		f.abort(cutOff)
	}
	done = true
	f.metrics.count(forwarded)
	f.connect(client, conn, late, early)
	return true
}

// hijack answers a handshake, and returns the client's connection, with what the
// client has sent already.
func (f *Relay) hijack(w http.ResponseWriter) (conn net.Conn, sent []byte, err error) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(f.options.WriteTimeout)) // if there are deadlines
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := control.Hijack() // writes the header, and takes the deadline away
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // for ourselves
	}
	sent, _ = buffered.Peek(buffered.Reader.Buffered()) // as above
	return conn, bytes.Clone(sent), nil
}

// takeSocket admits an upgrade; false if there are too many, or the relay stops.
func (f *Relay) takeSocket() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopping || len(f.sockets)+f.opening >= f.options.MaxSockets {
		return false
	}
	f.opening++
	f.running.Add(1)
	return true
}

func (f *Relay) releaseSocket() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening--
	f.running.Done()
}
