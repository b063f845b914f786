package handshake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// answer is the answer to a handshake: nothing, if the connection is taken over; or
// all of a response, after which the connection is closed.
type answer struct {
	conn     *net.TCPConn
	request  *http.Request
	header   http.Header
	status   int // zero: not written
	body     bytes.Buffer
	early    []byte // sent by the client after the request
	timeout  time.Duration
	hijacked bool
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.hijacked {
		return 0, http.ErrHijacked
	}
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p) //nolint:wrapcheck // a buffer takes everything
}

// Hijack implements http.Hijacker.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if a.status != 0 {
		if err := a.writeHead(); err != nil {
			return nil, nil, err
		}
	}
	a.hijacked = true
	reader := bufio.NewReaderSize(&rewound{a.conn, a.early}, max(1, len(a.early))) // zero would mean 4 KB
	_, _ = reader.Peek(len(a.early))                                               // they are there
	return a.conn, bufio.NewReadWriter(reader, bufio.NewWriterSize(a.conn, 1)), nil
}

// writeHead sends what stands before the connection that is taken over.
func (a *answer) writeHead() error {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(&head) // a buffer takes everything
	head.WriteString("\r\n")
	_ = a.conn.SetWriteDeadline(time.Now().Add(a.timeout)) // fails on what is closed
	_, err := a.conn.Write(head.Bytes())
	_ = a.conn.SetWriteDeadline(time.Time{}) // as above
	if err != nil {
		return fmt.Errorf("switch protocols: %w", err)
	}
	return nil
}

// finish sends the answer to a handshake that became nothing.
func (a *answer) finish() {
	if a.hijacked {
		return
	}
	a.WriteHeader(http.StatusOK)
	if a.header.Get("Date") == "" {
		a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	response := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Request: a.request, Header: a.header,
		Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()), Close: true,
	}
	_ = a.conn.SetWriteDeadline(time.Now().Add(a.timeout)) // as above
	_ = response.Write(a.conn)                             // who does not take it goes without
	// Closed with something unread, the kernel would take the answer back.
	_ = a.conn.CloseWrite()                               // as above
	_ = a.conn.SetReadDeadline(time.Now().Add(lingering)) // as above
	_, _ = io.CopyN(io.Discard, a.conn, maxUnread)        // it need not come
}

const (
	// lingering is how long a refused client may take to close the connection, and
	// maxUnread what it may send until then.
	lingering = 500 * time.Millisecond
	maxUnread = 64 << 10
)
