package controllers

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/controllers/internal/testpg"
)

func TestCertificateState(t *testing.T) {
	authority := testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "market.example.com")
	wildcard, wildcardKey := authority.Issue(t, "*.example.com")
	_, otherKey := authority.Issue(t, "market.example.com")
	now := time.Now()
	tests := map[string]struct {
		data     map[string][]byte
		hostname string
		at       time.Time
		want     string // of the message; empty where it can be used
	}{
		"good":                 {data: map[string][]byte{"tls.crt": certificate, "tls.key": key}},
		"good, by a wildcard":  {data: map[string][]byte{"tls.crt": wildcard, "tls.key": wildcardKey}},
		"no certificate":       {data: map[string][]byte{"tls.key": key}, want: "has no key tls.crt"},
		"no key":               {data: map[string][]byte{"tls.crt": certificate}, want: "has no key tls.key"},
		"no PEM":               {data: map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": key}, want: "holds no certificate with its private key"},
		"another's key":        {data: map[string][]byte{"tls.crt": certificate, "tls.key": otherKey}, want: "holds no certificate with its private key"},
		"the two mixed up":     {data: map[string][]byte{"tls.crt": key, "tls.key": certificate}, want: "holds no certificate with its private key"},
		"another host":         {data: map[string][]byte{"tls.crt": certificate, "tls.key": key}, hostname: "shop.example.com", want: "holds no certificate for shop.example.com"},
		"deeper than wildcard": {data: map[string][]byte{"tls.crt": wildcard, "tls.key": wildcardKey}, hostname: "a.b.example.com", want: "holds no certificate for a.b.example.com"},
		"expired":              {data: map[string][]byte{"tls.crt": certificate, "tls.key": key}, at: now.Add(2 * time.Hour), want: "expired at " + now.UTC().Add(time.Hour).Format("2006-01-02T15")},
		"of the future":        {data: map[string][]byte{"tls.crt": certificate, "tls.key": key}, at: now.Add(-2 * time.Hour), want: "counts only from"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "market-tls"}, Data: tt.data}
			if tt.hostname == "" {
				tt.hostname = "market.example.com"
			}
			if tt.at.IsZero() {
				tt.at = now
			}
			got := certificateIn(secret).stateFor(tt.hostname, tt.at)
			if got.ok != (tt.want == "") || !strings.Contains(got.message, tt.want) {
				t.Errorf("state = %+v, want %q", got, tt.want)
			}
			if strings.Contains(got.message, "PRIVATE") {
				t.Errorf("the key is told: %s", got.message)
			}
		})
	}
}
