package controllers

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/rotation"
)

func TestRotateRequest(t *testing.T) {
	long := strings.Repeat("é", 1000)
	of := func(value string) string {
		return rotateRequest(&v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{v1alpha1.AnnotationRotateKeys: value},
		}})
	}
	if got := rotateRequest(&v1alpha1.Marketplace{}); got != "" {
		t.Errorf("request = %q where there is none", got)
	}
	if got := of("now"); got != "now" {
		t.Errorf("request = %q, want now", got)
	}
	if got := of(long); len(got) > maxRequest || !utf8.ValidString(got) || got == of(long+"x") || got != of(long) {
		t.Errorf("a long request is remembered as %q, and one that differs at its end as %q", got, of(long+"x"))
	}
	if got := of("revoke " + long); !strings.HasPrefix(got, "revoke") {
		t.Errorf("a long request to revoke is remembered as %q", got)
	}
}

func TestKeysState(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	key := func(id string, at time.Duration) rotation.Key { return rotation.Key{ID: id, ActivatesAt: now.Add(at)} }
	tests := map[string]struct {
		keys        []rotation.Key // none: the Secret is missing
		paused      bool
		asked       bool
		unpublished bool
		want        state
	}{
		"no Secret": {
			want: state{reason: "Waiting", message: "Secret shop-signing with the signing keys is not there yet, or damaged"},
		},
		"not published": {
			keys: []rotation.Key{key("a", -day)}, unpublished: true,
			want: state{reason: "Progressing", message: "the public keys are being published"},
		},
		"all is well": {
			keys: []rotation.Key{key("a", -day)},
			want: state{ok: true, reason: "Ready", message: "key a signs; the next is made at 2026-01-29T23:56:20Z"},
		},
		"the next key waits": {
			keys: []rotation.Key{key("a", -day), key("b", time.Minute)},
			want: state{ok: true, reason: "Ready", message: "key a signs; key b is published and signs from 2026-01-01T00:01:00Z on"},
		},
		"due, and about to be made": {
			keys: []rotation.Key{key("a", -30*day)},
			want: state{ok: true, reason: "Ready", message: "key a signs; the next is made at 2025-12-31T23:56:20Z"},
		},
		"overdue": {
			keys: []rotation.Key{key("a", -31*day)},
			want: state{reason: "RotationOverdue", message: "key a signs; the next was due at 2025-12-30T23:56:20Z"},
		},
		"overdue, and paused": {
			keys: []rotation.Key{key("a", -31*day)}, paused: true,
			want: state{ok: true, reason: "Ready", message: "key a signs; the next was due at 2025-12-30T23:56:20Z, and is not made while spec.paused is set"},
		},
		"a wrong clock": {
			keys: []rotation.Key{key("a", -day), key("b", 365*day)}, asked: true,
			want: state{reason: "RotationOverdue", message: "key a signs; the next is not made: key b is to sign only from 2027-01-01T00:00:00Z on: a clock was or is wrong; set the clocks right, and revoke the keys if that is not enough"},
		},
		"more requests than there is room for": {
			keys: func() (keys []rotation.Key) {
				for i := range rotation.MaxKeys {
					keys = append(keys, key(string(rune('a'+i)), time.Duration(i-rotation.MaxKeys)*4*time.Minute))
				}
				return keys
			}(), asked: true,
			want: state{ok: true, reason: "Ready", message: "key h signs; 8 keys are published; the next is made when the first of them retires, at 2026-01-01T00:32:00Z"},
		},
		"the clock stepped back": {
			keys: []rotation.Key{key("a", time.Minute)},
			want: state{reason: "Waiting", message: "no key signs before 2026-01-01T00:01:00Z"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
			m.Spec.Paused = tt.paused
			if tt.asked {
				m.Annotations = map[string]string{v1alpha1.AnnotationRotateKeys: "now"}
			}
			r := &Reconciler{Now: func() time.Time { return now }}
			seen := observation{secretsKnown: true, secrets: map[string]secretFacts{}, objects: map[objectKey]client.Object{}}
			if tt.keys != nil {
				facts := &keyFacts{jwks: []byte("public"), keys: tt.keys}
				seen.secrets["shop-signing"] = secretFacts{keys: facts}
				seen.rotation = r.planKeys(m, facts)
			}
			if !tt.unpublished {
				seen.objects[objectKey{kindConfigMap, "shop-jwks"}] = &corev1.ConfigMap{Data: map[string]string{contract.FileJWKS: "public"}}
			}
			if diff := cmp.Diff(tt.want, keysState(m, seen), cmp.AllowUnexported(state{})); diff != "" {
				t.Errorf("state (-want +got):\n%s", diff)
			}
		})
	}
}
