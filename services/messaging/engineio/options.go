package engineio

import (
	"net/http"
	"time"
)

// Transport is what carries a session's packets (section "Transports").
type Transport string

// The transports.
const (
	Polling   Transport = "polling"
	WebSocket Transport = "websocket"
)

// Options of a Server. Zero values mean the defaults.
type Options struct {
	// PingInterval is the time from a client's sign of life to the next ping: 25 s.
	// Clients are told of it, in milliseconds.
	PingInterval time.Duration
	// PingTimeout is how long a client may take to answer a ping: 20 s. A polling
	// session that nobody polls lives for PingInterval and this.
	PingTimeout time.Duration
	// UpgradeTimeout is how long an upgrade may take from the WebSocket's
	// handshake: 10 s. The session goes on polling after that.
	UpgradeTimeout time.Duration
	// MessageTimeout is how long a message, or the body of a POST, may take from its
	// first byte to its last: 30 s.
	MessageTimeout time.Duration
	// WriteTimeout is for how long a client may take nothing of what is being
	// written: 10 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long a client may take to fetch or answer the end of its
	// session: 5 s.
	CloseTimeout time.Duration

	// MaxPayload is how many bytes a client may send at once, in the body of a POST
	// or in a WebSocket's message: 1,000,000. Clients are told of it. In polling,
	// binary messages count as the base64 in which they come.
	MaxPayload int
	// MaxReading is how many bytes messages and POSTs may take while they come and are
	// handled, those of all sessions, as far as each is larger than 4 KiB: 64 times
	// MaxPayload. A client who finds nothing left is sent away for now: its POST is
	// answered with status 503, its WebSocket is closed (1013).
	MaxReading int
	// MaxPackets is how many packets there may be in the body of a POST: 16,384.
	MaxPackets int
	// MaxQueued is how many bytes may wait for a client: twice MaxPayload.
	MaxQueued int
	// MaxSessions is how many sessions there may be: 100,000. A client that has left
	// counts for up to a second, in which it may have a poll on its way.
	MaxSessions int

	// Transports are those with which a session may begin; both by default.
	Transports []Transport
	// NoUpgrades lets sessions that began with polling stay there.
	NoUpgrades bool

	// Origin says whether web pages of another origin may speak to the server, with
	// credentials. Nil refuses them all. Pages of the same host always may, and
	// clients that send no Origin. It is asked for every request, on WebSocket, too.
	Origin func(r *http.Request, origin string) bool
	// NewID makes a session's id, which stands in URLs, and must neither come twice
	// nor be guessed: 20 random bytes in base64url by default.
	NewID func() string
	// Refuse is asked before a session begins; nil lets it begin. It may block.
	Refuse func(r *http.Request) *Refusal
	// Missing is given requests with the id of a session that is not held here,
	// which another process may hold. If it is true, they are answered;
	// otherwise, the session is unknown. Nothing is written to w before, and writing
	// has no deadline. Who forwards requests keeps Host and Origin, which the owner
	// checks, ends its own request when the client ends the first (the owner has to
	// hear of a poll that is given up), and lets polls take PingInterval.
	Missing func(w http.ResponseWriter, r *http.Request, sid string) bool
}

func (o Options) withDefaults() Options {
	setDefault(&o.PingInterval, 25*time.Second)
	setDefault(&o.PingTimeout, 20*time.Second)
	setDefault(&o.UpgradeTimeout, 10*time.Second)
	setDefault(&o.MessageTimeout, 30*time.Second)
	setDefault(&o.WriteTimeout, 10*time.Second)
	setDefault(&o.CloseTimeout, 5*time.Second)
	setDefault(&o.MaxPayload, 1_000_000)
	setDefault(&o.MaxReading, 64*o.MaxPayload)
	setDefault(&o.MaxPackets, 16_384)
	setDefault(&o.MaxQueued, 2*o.MaxPayload)
	setDefault(&o.MaxSessions, 100_000)
	if len(o.Transports) == 0 {
		o.Transports = []Transport{Polling, WebSocket}
	}
	if o.NewID == nil {
		o.NewID = randomID
	}
	return o
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

// Refusal is why a session must not begin. Clients see it as error code 4.
type Refusal struct {
	// Status of the response: 403 if it is 0.
	Status int
	// Message for people: "Forbidden" if it is empty.
	Message string
	// RetryAfter is what the response asks the client to wait, if it is positive.
	RetryAfter time.Duration
}

// Origins allows a list of origins, as browsers write them (scheme, host, and port
// unless it is the scheme's). "*" allows every origin.
func Origins(list ...string) func(r *http.Request, origin string) bool {
	allowed := make(map[string]bool, len(list))
	for _, each := range list {
		allowed[each] = true
	}
	return func(_ *http.Request, origin string) bool { return allowed[origin] || allowed["*"] }
}
