package clientaddr

import (
	"net/netip"
	"testing"
)

func TestClientAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	tests := map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"direct":                         {"192.0.2.1:1234", nil, "192.0.2.1"},
		"a stranger's word":              {"192.0.2.1:1234", []string{"198.51.100.7"}, "192.0.2.1"},
		"a proxy's word":                 {"10.1.2.3:1234", []string{"198.51.100.7"}, "198.51.100.7"},
		"what a client wrote before it":  {"10.1.2.3:1234", []string{"203.0.113.9, 198.51.100.7"}, "198.51.100.7"},
		"two proxies":                    {"10.1.2.3:1234", []string{"203.0.113.9", "198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		"a proxy without a word":         {"10.1.2.3:1234", nil, "10.1.2.3"},
		"a proxy's nonsense":             {"10.1.2.3:1234", []string{"198.51.100.7, unknown"}, "10.1.2.3"},
		"IPv4 in IPv6":                   {"[::ffff:10.1.2.3]:1234", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		"IPv6 is a network":              {"[2001:db8:1:2:3:4:5:6]:1234", nil, "2001:db8:1:2::/64"},
		"IPv6 with a zone":               {"[fe80::1%eth0]:1234", nil, "fe80::/64"},
		"all of them proxies":            {"10.1.2.3:1234", []string{"10.2.2.2, 10.3.3.3"}, "10.2.2.2"},
		"something else than an address": {"@", []string{"198.51.100.7"}, "@"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := find(tt.peer, tt.forwarded, trusted); got != tt.want {
				t.Errorf("= %q, want %q", got, tt.want)
			}
		})
	}
}
