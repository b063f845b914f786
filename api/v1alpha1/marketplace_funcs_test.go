package v1alpha1_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

func TestNamedSecrets(t *testing.T) {
	key := func(name string) *v1alpha1.SecretKeyReference { return &v1alpha1.SecretKeyReference{Name: name} }
	tests := map[string]struct {
		spec v1alpha1.MarketplaceSpec
		want []string
	}{
		"none": {},
		"database": {
			spec: v1alpha1.MarketplaceSpec{Database: v1alpha1.DatabaseSpec{External: &v1alpha1.ExternalDatabase{
				URLSecretRef: *key("db"), TLS: &v1alpha1.DatabaseTLS{CASecretRef: key("db-ca")},
			}}},
			want: []string{"db", "db-ca"},
		},
		"bus": {
			spec: v1alpha1.MarketplaceSpec{Bus: v1alpha1.BusSpec{External: &v1alpha1.ExternalBus{
				CredentialsSecretRef: &v1alpha1.SecretReference{Name: "nats"},
				TLS: &v1alpha1.BusTLS{
					CASecretRef: key("nats-ca"), ClientCertificateSecretRef: &v1alpha1.SecretReference{Name: "nats-client"},
				},
			}}},
			want: []string{"nats", "nats-ca", "nats-client"},
		},
		"notifications": {
			spec: v1alpha1.MarketplaceSpec{Messaging: v1alpha1.MessagingSpec{
				Notifications: &v1alpha1.NotificationsSpec{SecretRef: *key("push")},
			}},
			want: []string{"push"},
		},
		"exposure": {
			spec: v1alpha1.MarketplaceSpec{Exposure: &v1alpha1.ExposureSpec{
				Ingress: &v1alpha1.IngressExposure{TLS: &v1alpha1.IngressTLS{SecretName: "market-tls"}},
			}},
			want: []string{"market-tls"},
		},
		"one for everything": {
			spec: v1alpha1.MarketplaceSpec{
				Database: v1alpha1.DatabaseSpec{External: &v1alpha1.ExternalDatabase{
					URLSecretRef: *key("all"), TLS: &v1alpha1.DatabaseTLS{CASecretRef: key("all")},
				}},
				Bus: v1alpha1.BusSpec{External: &v1alpha1.ExternalBus{CredentialsSecretRef: &v1alpha1.SecretReference{Name: "all"}}},
			},
			want: []string{"all"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := (&v1alpha1.Marketplace{Spec: tt.spec}).NamedSecrets()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}
