package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// headerForwarded marks what a relay forwards, which nobody forwards again.
const headerForwarded = "Marketplane-Forwarded"

// hopByHop are the fields of one connection alone (RFC 9110, section 7.6.1), beside
// those that Connection names.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func removeHopByHop(h http.Header) {
	for _, value := range h.Values("Connection") {
		for name := range strings.SplitSeq(value, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// outgoing is the request to the owner: the same but for its way.
func outgoing(ctx context.Context, r *http.Request, owner netip.AddrPort) *http.Request {
	out := r.Clone(ctx)
	out.URL = &url.URL{Scheme: "http", Host: owner.String(), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	out.Host, out.RequestURI, out.Close = r.Host, "", false
	removeHopByHop(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http would write its own
	}
	hops := r.Header.Values("X-Forwarded-For")
	if peer, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		hops = append(hops[:len(hops):len(hops)], peer)
	}
	out.Header["X-Forwarded-For"] = []string{strings.Join(hops, ", ")}
	out.Header.Set(headerForwarded, "1")
	return out
}

// forward forwards a request that is no upgrade.
func (f *Relay) forward(w http.ResponseWriter, r *http.Request, owner netip.AddrPort) bool {
	if !f.take() {
		f.refuse(w)
		return true
	}
	defer f.release()
	ctx, cancel := context.WithTimeout(r.Context(), f.options.RequestTimeout)
	defer cancel()
	defer context.AfterFunc(f.abandon, cancel)()
	out := outgoing(ctx, r, owner)
	// The transport may still be reading when it has failed, which must not go on after
	// the handler's end.
	defer func() { _ = out.Body.Close() }() // the server's has nothing to tell
	response, err := f.transport.RoundTrip(out)
	if err != nil {
		return f.failed(ctx, r)
	}
	defer func() { _ = response.Body.Close() }() // what matters was read
	f.answer(ctx, w, r, response)
	return true
}

// failed is what becomes of a request to which the owner has given no answer.
func (f *Relay) failed(ctx context.Context, r *http.Request) bool {
	switch {
	case r.Context().Err() != nil:
		f.abort(givenUp)
	case ctx.Err() != nil:
		f.abort(timedOut)
	}
	f.metrics.count(unreachable)
	return false
}

// abort ends the client's connection.
func (f *Relay) abort(why result) {
	f.metrics.count(why)
	panic(http.ErrAbortHandler)
}

// refuse answers that too much is forwarded already.
func (f *Relay) refuse(w http.ResponseWriter) {
	f.metrics.count(refused)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "too much is forwarded at this moment", http.StatusServiceUnavailable)
}

// answer gives the client the owner's answer.
func (f *Relay) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, response *http.Response) {
	copyHeader(w.Header(), response.Header)
	w.WriteHeader(response.StatusCode)
	client := &limitedWriter{w, http.NewResponseController(w), f.options.WriteTimeout}
	if _, err := copyPooled(client, response.Body); err != nil {
		switch {
		case r.Context().Err() != nil:
			f.abort(givenUp)
		case ctx.Err() != nil:
			f.abort(timedOut)
		default:
			f.abort(cutOff)
		}
	}
	client.limit()
	_ = client.control.Flush()                       // the client is gone if this fails
	_ = client.control.SetWriteDeadline(time.Time{}) // of the connection, which has more requests to come
	f.metrics.count(forwarded)
}

// copyHeader lets the owner's fields stand for those that are there already.
func copyHeader(to, from http.Header) {
	removeHopByHop(from)
	for name, values := range from {
		to[name] = values
	}
}

// limitedWriter gives each write its time.
type limitedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (w *limitedWriter) limit() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // if there are deadlines
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	w.limit()
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // for ourselves
}

// bufferSize is what is copied at a time.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func newBuffer() *[bufferSize]byte { return buffers.Get().(*[bufferSize]byte) } //nolint:errcheck,forcetypeassert // the pool holds nothing else

// copyPooled is io.Copy with a buffer that is used again.
func copyPooled(to io.Writer, from io.Reader) (int64, error) {
	b := newBuffer()
	defer buffers.Put(b)
	n, err := io.CopyBuffer(to, struct{ io.Reader }{from}, b[:])
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err //nolint:wrapcheck // for ourselves
}
