// Package clientaddr finds the network address of the client that sent a
// request, behind the proxies that the marketplace trusts: what rates are
// bounded by. It proves nothing of who the client is.
package clientaddr

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Of is the peer's address, or, where the peer is a trusted proxy, the last
// address in X-Forwarded-For that is not one: what stands before it was written
// by strangers. An IPv6 client is its /64, since whoever has one has all of it.
func Of(r *http.Request, trusted []netip.Prefix) string {
	return find(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), trusted)
}

func find(peer string, forwarded []string, trusted []netip.Prefix) string {
	addrPort, err := netip.ParseAddrPort(peer)
	if err != nil {
		return peer
	}
	address := addrPort.Addr().Unmap()
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(address) }) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		address = next.Unmap().WithZone("")
	}
	if address.Is6() {
		if network, err := address.WithZone("").Prefix(64); err == nil {
			return network.String()
		}
	}
	return address.String()
}
