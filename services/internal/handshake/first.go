package handshake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// firstSize is what is read of a connection, at most: a handshake of browsers with a
// few cookies is one or two kilobytes.
const firstSize = 4 << 10

// first is what a client sends first.
type first struct {
	buf    [firstSize]byte
	n      int // are filled
	head   int // of them are a request's head, once it was read
	source bytes.Reader
	reader *bufio.Reader
}

var firsts = sync.Pool{New: func() any {
	f := &first{}
	f.reader = bufio.NewReaderSize(&f.source, firstSize)
	return f
}}

func getFirst() *first { return firsts.Get().(*first) } //nolint:errcheck,forcetypeassert // the pool holds nothing else

func (f *first) release() {
	f.source.Reset(nil)
	f.n, f.head = 0, 0
	firsts.Put(f)
}

// read reads once. A handshake is sent in one piece, and small enough to arrive so.
func (f *first) read(conn io.Reader) error {
	n, err := conn.Read(f.buf[:])
	if n > 0 {
		f.n = n
		return nil
	}
	return fmt.Errorf("read a request: %w", err)
}

func (f *first) copy() []byte { return bytes.Clone(f.buf[:f.n]) }

// rest is a copy of what came after the head.
func (f *first) rest() []byte { return bytes.Clone(f.buf[f.head:f.n]) }

var (
	beginning = []byte("GET /")
	endOfHead = []byte("\r\n\r\n")
)

// handshake returns the request, if it is all there and a WebSocket handshake in
// which nothing is strange; or nil: net/http knows what to say to everything else.
func (f *first) handshake() *http.Request {
	all := f.buf[:f.n]
	if !bytes.HasPrefix(all, beginning) {
		return nil
	}
	end := bytes.Index(all, endOfHead)
	if end < 0 {
		return nil
	}
	f.head = end + len(endOfHead)
	f.source.Reset(all[:f.head])
	f.reader.Reset(&f.source)
	r, err := http.ReadRequest(f.reader)
	if err != nil || !plain(r) {
		return nil
	}
	if f.reader.Buffered()+f.source.Len() > 0 { // the head ended before, in a way of its own
		return nil
	}
	return r
}

// plain says whether a request is a handshake (RFC 6455, section 4.1) that net/http's
// server would give to its handler without a word of its own.
func plain(r *http.Request) bool {
	if r.Proto != "HTTP/1.1" || r.Body != http.NoBody || r.Header.Get("Expect") != "" {
		return false
	}
	if !httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket") ||
		!httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") || r.Header.Get("Sec-WebSocket-Key") == "" {
		return false
	}
	if !strings.HasPrefix(r.RequestURI, "/") || r.Host == "" || !httpguts.ValidHostHeader(r.Host) {
		return false
	}
	for name := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) { // values are looked at by ReadRequest
			return false
		}
	}
	return true
}
