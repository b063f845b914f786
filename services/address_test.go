package main

import (
	"net/netip"
	"testing"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/env"
)

func TestReadAddress(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		address, listen string
		want            string
		wantErr         bool
	}{
		"not said":       {listen: ":8081"},
		"a pod":          {address: "10.244.0.7", listen: ":8081", want: "10.244.0.7:8081"},
		"IPv6":           {address: "fd00::7", listen: "[::]:8081", want: "[fd00::7]:8081"},
		"a name":         {address: "pod", listen: ":8081", wantErr: true},
		"everywhere":     {address: "0.0.0.0", listen: ":8081", wantErr: true},
		"of one network": {address: "fe80::1%eth0", listen: ":8081", wantErr: true},
		"any port":       {address: "10.244.0.7", listen: ":0", wantErr: true},
		"a port's name":  {address: "10.244.0.7", listen: ":http", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := env.New(func(variable string) string {
				return map[string]string{contract.EnvAddress: tt.address}[variable]
			})
			got := readAddress(source, tt.listen)
			if err := source.Err(); (err != nil) != tt.wantErr {
				t.Errorf("error %v", err)
			}
			var want netip.AddrPort
			if tt.want != "" {
				want = netip.MustParseAddrPort(tt.want)
			}
			if got != want {
				t.Errorf("%v, not %v", got, want)
			}
		})
	}
}
