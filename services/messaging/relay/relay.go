package relay

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/marketplane/marketplane/services/internal/poller"
	"github.com/marketplane/marketplane/services/internal/wsconn"
	"github.com/marketplane/marketplane/services/messaging/seal"
)

// Purpose is what the sealer of sessions' ids is made for.
const Purpose = "engine.io session ids"

// Options of a Relay. Zero values mean the defaults.
type Options struct {
	// DialTimeout is how long an owner may take to accept a connection: 2 s.
	DialTimeout time.Duration
	// HandshakeTimeout is how long it may take to answer an upgrade: 10 s.
	HandshakeTimeout time.Duration
	// RequestTimeout is how long a forwarded request may take in all: 5 minutes. Polls
	// take Engine.IO's PingInterval; bodies MessageTimeout, and as long as it takes
	// to do what they ask for.
	RequestTimeout time.Duration
	// WriteTimeout is for how long either side may take nothing: 10 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long one side of a socket may outlive the other: 5 s.
	CloseTimeout time.Duration
	// Window is over how long Stop closes the forwarded sockets: at once.
	Window time.Duration

	// MaxRequests is how many requests may be forwarded at a time: 50,000.
	MaxRequests int
	// MaxSockets is how many sockets may be: 100,000.
	MaxSockets int
}

func (o Options) withDefaults() Options {
	setDefault(&o.DialTimeout, 2*time.Second)
	setDefault(&o.HandshakeTimeout, 10*time.Second)
	setDefault(&o.RequestTimeout, 5*time.Minute)
	setDefault(&o.WriteTimeout, 10*time.Second)
	setDefault(&o.CloseTimeout, 5*time.Second)
	setDefault(&o.MaxRequests, 50_000)
	setDefault(&o.MaxSockets, 100_000)
	return o
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

const (
	// maxIdle connections to all owners, and to one, wait for the next request; for
	// less long than owners let them wait.
	maxIdle      = 1024
	maxIdleOwner = 128
	idleTimeout  = 60 * time.Second

	// maxHeader is how many bytes an answer may have before its body, and that to an
	// upgrade in all.
	maxHeader = 32 << 10
)

// Relay forwards. Start it before it serves.
type Relay struct {
	self      netip.AddrPort
	sealer    *seal.Sealer
	options   Options
	dialer    net.Dialer
	transport *http.Transport
	metrics   metrics
	poller    *poller.Poller[side] // nil where there is none

	abandon context.Context //nolint:containedctx // ends all requests
	cancel  context.CancelFunc
	running sync.WaitGroup // requests, sockets, and whoever copies for them
	once    sync.Once

	mu       sync.Mutex
	stopping bool // no socket is taken any more
	drained  bool // and no request
	requests int
	opening  int // sockets that may come to be
	sockets  map[*socket]struct{}
}

// New makes a relay of the process whose internal server others reach at self.
func New(self netip.AddrPort, sealer *seal.Sealer, options Options, registry prometheus.Registerer) *Relay {
	f := &Relay{
		self: plain(self), sealer: sealer, options: options.withDefaults(),
		sockets: map[*socket]struct{}{},
	}
	f.abandon, f.cancel = context.WithCancel(context.Background())
	f.dialer.Timeout = f.options.DialTimeout
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	f.transport = &http.Transport{
		DialContext:            f.dialer.DialContext,
		Protocols:              &protocols,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdleOwner,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	f.metrics = newMetrics(registry, f)
	return f
}

// plain is an address in the form in which addresses are compared.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// An id is sealed: the version, random bytes, and the owner's address.
const (
	idVersion = 1
	idRandom  = 16
)

// NewID makes the id of a session that this process owns, for
// engineio.Options.NewID.
func (f *Relay) NewID() string {
	id := make([]byte, 1+idRandom, 64)
	id[0] = idVersion
	_, _ = rand.Read(id[1:])           // it never fails
	id, err := f.self.AppendBinary(id) // nor does this
	if err != nil {
		panic(err)
	}
	return f.sealer.Seal(id)
}

// owner is whom an id names; ok is false for what is none.
func (f *Relay) owner(sid string) (owner netip.AddrPort, ok bool) {
	id, err := f.sealer.Open(sid)
	if err != nil || len(id) < 1+idRandom || id[0] != idVersion {
		return netip.AddrPort{}, false
	}
	if err := owner.UnmarshalBinary(id[1+idRandom:]); err != nil {
		return netip.AddrPort{}, false
	}
	owner = plain(owner)
	return owner, owner.IsValid() && owner.Port() != 0
}

// Missing forwards a request to the owner of its session, for
// engineio.Options.Missing. It is false, and has written nothing, if there is no
// owner, or it is this process, or it cannot be reached. It panics with
// http.ErrAbortHandler to end the client's connection.
func (f *Relay) Missing(w http.ResponseWriter, r *http.Request, sid string) bool {
	owner, ok := f.owner(sid)
	if !ok || owner == f.self || r.Header.Get(headerForwarded) != "" {
		return false
	}
	if wsconn.IsUpgrade(r) && r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ContentLength == 0 {
		return f.upgrade(w, r, owner)
	}
	return f.forward(w, r, owner)
}

// Internal is the handler of the internal server, before that of the sessions: it
// takes what another process forwarded, and nothing that would begin a session.
func Internal(sessions http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerForwarded) == "" || r.URL.Query().Get("sid") == "" {
			http.NotFound(w, r)
			return
		}
		sessions.ServeHTTP(w, r)
	})
}

// Start begins to watch for what sockets bring.
func (f *Relay) Start(context.Context) (err error) {
	f.poller, err = poller.New((*side).wake)
	return err
}

// Sockets is how many sockets are forwarded at this moment.
func (f *Relay) Sockets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sockets)
}

// Forwarded is how many sockets and requests are forwarded at this moment.
func (f *Relay) Forwarded() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sockets) + f.requests
}

func (f *Relay) forget(s *socket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sockets, s)
	f.running.Done()
}

// take admits a request; false if there are too many, or the relay has drained.
func (f *Relay) take() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drained || f.requests >= f.options.MaxRequests {
		return false
	}
	f.requests++
	f.running.Add(1)
	return true
}

func (f *Relay) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests--
	f.running.Done()
}

// Stop takes no more sockets, and closes those that are there, at an even pace
// over the window: their clients come back by themselves, with new sessions.
// Requests are answered, until all sockets were told. When ctx is done, all ends at
// once.
// It is safe to call twice.
func (f *Relay) Stop(ctx context.Context) error {
	f.mu.Lock()
	f.stopping = true
	f.mu.Unlock()
	err := f.drain(ctx)
	f.mu.Lock()
	f.drained = true // so that nothing begins while we wait for the end of the rest
	f.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		f.running.Wait()
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.cancel()
	f.closeAll()
	<-gone
	f.transport.CloseIdleConnections()
	if f.poller != nil {
		f.once.Do(f.poller.Stop)
	}
	return err
}

// step is how often a drain closes sockets.
const step = 50 * time.Millisecond

// drain closes the sockets over the window.
func (f *Relay) drain(ctx context.Context) error {
	f.mu.Lock()
	left := make([]*socket, 0, len(f.sockets))
	for s := range f.sockets {
		left = append(left, s)
	}
	f.mu.Unlock()
	start, total := time.Now(), len(left)
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		due := total
		if elapsed := time.Since(start); elapsed < f.options.Window {
			due = int(int64(total) * int64(elapsed) / int64(f.options.Window))
		}
		for len(left) > total-due {
			left[0].shut()
			left = left[1:]
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Relay) closeAll() {
	f.mu.Lock()
	all := make([]*socket, 0, len(f.sockets))
	for s := range f.sockets {
		all = append(all, s)
	}
	f.mu.Unlock()
	for _, s := range all {
		s.close()
	}
}
