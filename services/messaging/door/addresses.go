package door

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/marketplane/marketplane/services/internal/clientaddr"
	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
)

var errConnects = fault.New(fault.TooMany, "too_many_connects",
	"Too many connections come from your address. Slow down.")

// Addresses bounds how many connections a client's address opens, through all
// doors together. Nil bounds nothing.
type Addresses struct {
	limiter *messaging.Limiter[string]
	proxies []netip.Prefix
}

// NewAddresses allows each address a rate of connections. proxies are believed
// about addresses: without those that stand before the server, all clients are
// one.
func NewAddresses(rate messaging.Rate, proxies []netip.Prefix) *Addresses {
	return &Addresses{limiter: messaging.NewLimiter[string](rate, time.Now), proxies: proxies}
}

// Take counts a request for a connection. It is an error if that was one too
// many.
func (a *Addresses) Take(r *http.Request) error {
	if a == nil {
		return nil
	}
	if wait := a.limiter.Take(clientaddr.Of(r, a.proxies)); wait > 0 {
		return errConnects.After(wait)
	}
	return nil
}
