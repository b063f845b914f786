package reach

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"
)

// resolver finds servers as pods in a namespace do: a name of one label is a
// Service there. The operator itself runs elsewhere.
type resolver struct {
	namespace string
}

// lookup returns the addresses of a host.
func (r resolver) lookup(ctx context.Context, host string) ([]string, error) {
	if isLocal(host) && r.namespace != "" {
		if found, err := net.DefaultResolver.LookupHost(ctx, host+"."+r.namespace+".svc"); err == nil {
			return found, nil
		}
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

// share is a look's time for each of several servers: one that does not answer
// leaves the others theirs.
func share(servers int) time.Duration { return Timeout / time.Duration(max(servers, 1)) }

// addresses is how many there are of the hosts together; one that cannot be
// looked up counts, too.
func (r resolver) addresses(ctx context.Context, hosts []string) int {
	n := 0
	for _, host := range hosts {
		found, _ := r.lookup(ctx, host) // Who connects is told why not.
		n += max(1, len(found))
	}
	return n
}

// dial connects to the first address of a host that answers. Each has its part
// of the time that is left.
func (r resolver) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := r.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	for i, a := range addresses {
		dialer := net.Dialer{}
		if deadline, ok := ctx.Deadline(); ok {
			dialer.Timeout = time.Until(deadline) / time.Duration(len(addresses)-i)
		}
		if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(a, port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// isLocal says whether a host is another one in each namespace.
func isLocal(host string) bool {
	return host != "localhost" && !strings.Contains(host, ".") && net.ParseIP(host) == nil
}

// digest of parts and their order; it is never told to anybody.
func digest(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s;", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
