package engineio

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marketplane/marketplane/services/internal/wsconn"
)

// Code is an error's, in the answer to a request: {"code":…,"message":…}.
type Code int

// The error codes. CodeForbidden comes with status 403, unless a Refusal has
// another; the rest with 400.
const (
	CodeUnknownTransport Code = iota
	CodeUnknownSession
	CodeBadHandshakeMethod
	CodeBadRequest
	CodeForbidden
	CodeUnsupportedVersion
)

// String is the message of the reference implementation.
func (c Code) String() string {
	return [...]string{
		CodeUnknownTransport:   "Transport unknown",
		CodeUnknownSession:     "Session ID unknown",
		CodeBadHandshakeMethod: "Bad handshake method",
		CodeBadRequest:         "Bad request",
		CodeForbidden:          "Forbidden",
		CodeUnsupportedVersion: "Unsupported protocol version",
	}[c]
}

// version is the protocol's, in the parameter EIO (section "Query parameters").
const version = "4"

// maxAge is for how long browsers may remember the answer to a preflight request.
const maxAge = 10 * time.Minute

// ServeHTTP serves every request of the protocol, whatever its path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// Whatever becomes of the request: net/http reads the rest of a body before it
		// sends an answer. Once a body was read, it takes the deadline away.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.options.MessageTimeout)) // if there are deadlines
	}
	if !s.allowed(r) {
		w.Header().Add("Vary", "Origin")
		s.writeError(w, http.StatusForbidden, CodeForbidden, "Origin not allowed")
		return
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		preflight(w, r)
		return
	}
	query := r.URL.Query()
	transport := Transport(query.Get("transport"))
	if transport != Polling && transport != WebSocket {
		s.fail(w, r, CodeUnknownTransport)
		return
	}
	if sid := query.Get("sid"); sid != "" {
		s.resume(w, r, transport, sid, query)
		return
	}
	s.handshake(w, r, transport, query)
}

// resume serves a request of a session (sections "Sending and receiving data" and
// "Upgrade").
func (s *Server) resume(w http.ResponseWriter, r *http.Request, transport Transport, sid string, query url.Values) {
	c := s.find(sid)
	upgrade := wsconn.IsUpgrade(r)
	switch {
	case c == nil && s.missing(w, r, sid):
	case c == nil:
		s.fail(w, r, CodeUnknownSession)
	case query.Get("EIO") != version:
		s.fail(w, r, CodeBadRequest)
	case upgrade != (transport == WebSocket), upgrade && (!s.upgrades() || !takesUpgrade(r)):
		s.fail(w, r, CodeBadRequest)
	case upgrade:
		s.accept(w, r, c, asksBase64(query))
	case query.Has("j"):
		s.failJSONP(w, r)
	case r.Method == http.MethodGet && r.ContentLength == 0: // or nobody would notice that the client gives up
		s.poll(w, r, c)
	case r.Method == http.MethodPost:
		s.post(w, r, c)
	default:
		s.fail(w, r, CodeBadRequest)
	}
}

// missing asks the program about a session that is not held here.
func (s *Server) missing(w http.ResponseWriter, r *http.Request, sid string) (answered bool) {
	if s.options.Missing == nil {
		return false
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as for a poll
	return s.options.Missing(w, r, sid)
}

// takesUpgrade says whether a handshake is one of RFC 6455, section 4.2.1. What is
// left to be refused is the HTTP server's fault.
func takesUpgrade(r *http.Request) bool {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) && err == nil && len(key) == 16 &&
		strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") && r.Header.Get("Sec-WebSocket-Version") == "13"
}

// handshake serves the request that begins a session (section "Handshake").
func (s *Server) handshake(w http.ResponseWriter, r *http.Request, transport Transport, query url.Values) {
	upgrade := wsconn.IsUpgrade(r)
	switch {
	case !slices.Contains(s.options.Transports, transport):
		s.fail(w, r, CodeUnknownTransport)
	case r.Method != http.MethodGet:
		s.fail(w, r, CodeBadHandshakeMethod)
	case upgrade != (transport == WebSocket), upgrade && !takesUpgrade(r), r.ContentLength != 0:
		s.fail(w, r, CodeBadRequest)
	case query.Get("EIO") != version:
		s.fail(w, r, CodeUnsupportedVersion)
	case query.Has("j"):
		s.failJSONP(w, r)
	case upgrade:
		s.openWebSocket(w, r, asksBase64(query))
	default:
		s.openPolling(w, r)
	}
}

// asksBase64 says whether a client takes no binary messages on WebSocket. The
// specification has forgotten it; the stock client's option forceBase64 asks so.
func asksBase64(query url.Values) bool { return query.Get("b64") != "" }

// fail answers a request with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, code Code) {
	status := http.StatusBadRequest
	if code == CodeForbidden {
		status = http.StatusForbidden
	}
	s.failWith(w, r, status, code, code.String())
}

// failJSONP refuses what clients of old browsers and old versions do.
func (s *Server) failJSONP(w http.ResponseWriter, r *http.Request) {
	s.failWith(w, r, http.StatusBadRequest, CodeBadRequest, "JSONP is not supported: use polling without the parameter j, or websocket")
}

// refuse answers a request for a session that must not begin.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	status, message := refusal.Status, refusal.Message
	if status == 0 {
		status = http.StatusForbidden
	}
	if message == "" {
		message = CodeForbidden.String()
	}
	if refusal.RetryAfter > 0 {
		seconds := (refusal.RetryAfter + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	s.failWith(w, r, status, CodeForbidden, message)
}

func (s *Server) failWith(w http.ResponseWriter, r *http.Request, status int, code Code, message string) {
	allow(w, r)
	s.writeError(w, status, code, message)
}

func (s *Server) writeError(w http.ResponseWriter, status int, code Code, message string) {
	s.refused[code].Add(1)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // if the client is there
		Code    Code   `json:"code"`
		Message string `json:"message"`
	}{code, message})
}

// allowed says whether a page of the request's origin may speak to us. Browsers let
// every page open WebSockets, and send what is simple enough; it is we who have to
// look.
func (s *Server) allowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if u, err := url.Parse(origin); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	return s.options.Origin != nil && s.options.Origin(r, origin)
}

// allow lets the page that sent a request, which is allowed, read the answer.
func allow(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin) // with credentials, "*" is not taken
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// preflight answers what browsers ask before they send what is not simple.
func preflight(w http.ResponseWriter, r *http.Request) {
	allow(w, r)
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	if asked := r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
	}
	h.Set("Access-Control-Max-Age", strconv.Itoa(int(maxAge.Seconds())))
	w.WriteHeader(http.StatusNoContent)
}

// openPolling begins a session with a GET, whose answer is the first of a poll.
func (s *Server) openPolling(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r) {
		return
	}
	c := s.newConn()
	c.polling = &polling{ended: make(chan struct{}), queue: s.openPacket(c.id, Polling)}
	c.polling.count(s, len(c.polling.queue))
	s.begin(c, r)
	s.poll(w, r, c)
}
