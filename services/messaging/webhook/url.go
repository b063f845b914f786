package webhook

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

var (
	errURL   = errors.New("is not a URL such as https://push.example.com/marketplane, without user and fragment")
	errPlain = errors.New("must be https, unless the host is a Service of the cluster, such as http://push.team.svc:8080")
)

// ParseURL returns the URL of an endpoint. Plain HTTP stays inside of the
// cluster, or of the machine.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errURL
	}
	if u.Scheme == "http" && !isLocal(u.Hostname()) {
		return nil, errPlain
	}
	return u, nil
}

// isLocal says whether a host is a Service of the cluster or this machine.
func isLocal(host string) bool {
	if isLoopback(host) {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".svc.cluster.local")
}

// isLoopback says whether a host is this machine.
func isLoopback(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return address.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

var errAddress = errors.New("the webhook's name leads to an address of this machine or its link, which is refused")

// guard refuses addresses that no back end has, whatever a name leads to: those
// of this process's own ports, unless the URL says so itself, and those at which
// clouds hand out credentials. Others of private networks are as good as any: it
// is where most back ends are.
func guard(loopback bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return errAddress
		}
		switch ip := to.Addr().Unmap(); {
		case ip.IsLoopback() && !loopback, ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast():
			return errAddress
		default:
			return nil
		}
	}
}
