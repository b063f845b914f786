package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Transport is the way to a deployment that is not reached by name: every
// connection goes to one address, at the port of the URL, and names are for the
// Host header and certificates alone. Without an address, names are resolved;
// without roots, the system's authorities are trusted.
func Transport(to netip.Addr, roots *x509.CertPool) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: connectTimeout,
		MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second,
	}
	if to.IsValid() {
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort(to.String(), port))
		}
	}
	return transport
}
