package proxy

import (
	"cmp"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// streamCloseDelay is how long streams (WebSockets) outlive the
	// configuration under which they were opened: as good as for ever on a local
	// cluster.
	streamCloseDelay = 24 * time.Hour
	// tryFor is how long a connection that a pod refuses is tried again:
	// kube-proxy learns a little late that a pod is gone. Nothing but connecting
	// is repeated.
	tryFor, tryEvery = 2 * time.Second, 100 * time.Millisecond
	dialTimeout      = 3 * time.Second
)

// proxyTo passes requests on. Each has a connection of its own, so that the
// Service spreads requests, and none waits on a pod that drains.
func proxyTo(dial string) handler {
	return handler{
		Handler:          "reverse_proxy",
		Upstreams:        []upstream{{Dial: dial}},
		Transport:        &transport{Protocol: "http", DialTimeout: dialTimeout},
		LoadBalancing:    &loadBalancing{TryDuration: tryFor, TryInterval: tryEvery},
		StreamCloseDelay: streamCloseDelay,
	}
}

func unavailable(reason string) handler { return answer(http.StatusServiceUnavailable, reason) }

// answer says something itself. Braces would be placeholders.
func answer(status int, text string) handler {
	return handler{
		Handler: "static_response", StatusCode: status, Body: strings.NewReplacer("{", `\{`, "}", `\}`).Replace(text) + "\n",
		Headers: map[string][]string{"Content-Type": {"text/plain; charset=utf-8"}},
	}
}

// routes returns what the two servers do, each in the order in which it is
// tried. A host with a certificate is sent from HTTP to HTTPS.
func (r *renderer) routes() (plain, secure []route) {
	slices.SortStableFunc(r.rules, byPrecedence)
	for _, host := range slices.Sorted(maps.Keys(r.secured)) {
		redirect := handler{Handler: "static_response", StatusCode: http.StatusPermanentRedirect, Headers: map[string][]string{
			"Location": {"https://{http.request.host}{http.request.uri}"},
		}}
		plain = append(plain, route{Match: matches(rule{host: host}), Handle: []handler{redirect}, Terminal: true})
	}
	for _, rule := range r.rules {
		secure = append(secure, route{Match: matches(rule), Handle: []handler{rule.handler}, Terminal: true})
	}
	secure = append(secure, route{Handle: []handler{answer(http.StatusNotFound, "no Ingress has this host and path")}, Terminal: true})
	return append(plain, secure...), secure
}

// byPrecedence puts first what decides: an exact host before a wildcard before
// none, then the longer path, then an exact path before a prefix.
func byPrecedence(a, b rule) int {
	hostKind := func(r rule) int {
		switch {
		case r.last:
			return 3
		case r.host == "":
			return 2
		case strings.HasPrefix(r.host, "*."):
			return 1
		}
		return 0
	}
	exactFirst := func(r rule) int {
		if r.exact {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(hostKind(a), hostKind(b)), cmp.Compare(a.host, b.host),
		cmp.Compare(len(b.path), len(a.path)), cmp.Compare(exactFirst(a), exactFirst(b)),
	)
}

// matches says which requests a rule is for. Paths of an Ingress are compared
// in their case, which Caddy's plain path matcher does not do, and by elements:
// /v1 is the prefix of /v1/auth and not of /v10.
func matches(r rule) []match {
	var m match
	if r.host != "" {
		m.Host = []string{r.host}
	}
	switch {
	case r.exact:
		m.PathRegexp = &pathRegexp{Pattern: "^" + regexp.QuoteMeta(r.path) + "$"}
	case r.path != "":
		m.PathRegexp = &pathRegexp{Pattern: "^" + regexp.QuoteMeta(r.path) + "(/|$)"}
	}
	if m.Host == nil && m.PathRegexp == nil {
		return nil
	}
	return []match{m}
}
