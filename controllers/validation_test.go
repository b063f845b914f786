package controllers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	tests := map[string]struct {
		name    string // "shop" where empty
		spec    string
		wantErr string
	}{
		"name too long": {
			name:    strings.Repeat("a", 41),
			wantErr: "use at most 40 characters of a-z, 0-9 and '-'",
		},
		"name with a dot": {
			name:    "a.b",
			wantErr: "the name begins the names of Services",
		},
		"name that starts with a digit": {
			name:    "1a",
			wantErr: "starting with a letter",
		},
		"max below min": {
			spec:    "messaging: {autoscaling: {minReplicas: 3, maxReplicas: 2}}",
			wantErr: "spec.messaging.autoscaling.maxReplicas: Invalid value: autoscaling.maxReplicas must not be less than autoscaling.minReplicas (1 where it is not set): raise maxReplicas or lower minReplicas",
		},
		"no max": {
			spec:    "messaging: {autoscaling: {minReplicas: 3}}",
			wantErr: "spec.messaging.autoscaling.maxReplicas: Required value",
		},
		"target of zero": {
			spec:    "messaging: {autoscaling: {maxReplicas: 3, targetConnections: 0}}",
			wantErr: "spec.messaging.autoscaling.targetConnections: Invalid value: 0",
		},
		"two bus servers": {
			spec:    "bus: {embedded: {replicas: 2}}",
			wantErr: "bus.embedded.replicas must be 1 (one server) or 3 (a cluster)",
		},
		"plain webhook outside of the cluster": {
			spec:    "messaging: {notifications: {url: 'http://push.example.com', secretRef: {name: push}}}",
			wantErr: "spec.messaging.notifications.url: Invalid value: \"http://push.example.com\": a webhook's URL must be https://host/path",
		},
		"plain webhook that looks like a Service": {
			spec:    "messaging: {notifications: {url: 'http://push.team.svc.example.com', secretRef: {name: push}}}",
			wantErr: "http is for Services of the cluster alone",
		},
		"webhook with a password": {
			spec:    "messaging: {notifications: {url: 'https://me:secret@push.example.com', secretRef: {name: push}}}",
			wantErr: "without user and fragment",
		},
		"webhook without a host": {
			spec:    "messaging: {notifications: {url: 'https://', secretRef: {name: push}}}",
			wantErr: "a webhook's URL must be https://host/path",
		},
		"webhook without a host, with a port": {
			spec:    "messaging: {notifications: {url: 'https://:443/in', secretRef: {name: push}}}",
			wantErr: "a webhook's URL must be https://host/path",
		},
		"plain webhook of a Service, with more behind it": {
			spec:    "messaging: {notifications: {url: 'http://push.team.svc:8080@push.example.com/', secretRef: {name: push}}}",
			wantErr: "a webhook's URL must be https://host/path",
		},
		"webhook with a fragment": {
			spec:    "messaging: {notifications: {url: 'https://push.example.com/in#here', secretRef: {name: push}}}",
			wantErr: "without user and fragment",
		},
		"webhook without a Secret": {
			spec:    "messaging: {notifications: {url: 'https://push.example.com'}}",
			wantErr: "spec.messaging.notifications.secretRef: Required value",
		},
		"origin with a path": {
			spec:    "messaging: {allowedOrigins: ['https://app.example.com/']}",
			wantErr: "spec.messaging.allowedOrigins[0]: Invalid value: \"https://app.example.com/\": an allowed origin must be scheme://host",
		},
		"origin with a wildcard": {
			spec:    "messaging: {allowedOrigins: ['https://*.example.com']}",
			wantErr: "an allowed origin must be scheme://host",
		},
		"origin without a scheme": {
			spec:    "messaging: {allowedOrigins: ['app.example.com']}",
			wantErr: "an allowed origin must be scheme://host",
		},
		"two origins in one": {
			spec:    "messaging: {allowedOrigins: ['https://a.example,https://b.example']}",
			wantErr: "an allowed origin must be scheme://host",
		},
		"recovery that is neither on nor off": {
			spec:    "messaging: {socketIO: {connectionStateRecovery: sometimes}}",
			wantErr: "spec.messaging.socketIO.connectionStateRecovery: Unsupported value: \"sometimes\": supported values: \"Enabled\", \"Disabled\"",
		},
		"support agent by name": {
			spec:    "messaging: {support: {userIDs: [anna]}}",
			wantErr: "spec.messaging.support.userIDs[0]: Invalid value: \"anna\": a user id must be a UUID in lower case",
		},
		"support agent in upper case": {
			spec:    "messaging: {support: {userIDs: [01890A5D-AC96-774B-BCCE-B302099A8057]}}",
			wantErr: "a user id must be a UUID in lower case",
		},
		"support agent that is nobody": {
			spec:    "messaging: {support: {userIDs: [00000000-0000-0000-0000-000000000000]}}",
			wantErr: "a user id must be a UUID in lower case",
		},
		"no support agents": {
			spec:    "messaging: {support: {userIDs: []}}",
			wantErr: "spec.messaging.support.userIDs",
		},
		"issuer that is no URL": {
			spec:    "auth: {issuer: 'auth.example.com'}",
			wantErr: "auth.issuer must be an http or https URL without query and fragment",
		},
		"keys that are kept for longer than they sign": {
			spec:    "auth: {keyRotation: {period: 1h, overlap: 2h}}",
			wantErr: "auth.keyRotation.overlap must not be longer than auth.keyRotation.period",
		},
		"keys that change every minute": {
			spec:    "auth: {keyRotation: {period: 1m}}",
			wantErr: "auth.keyRotation.period must be a duration from 1h to 87600h",
		},
		"trusted proxy that is no network": {
			spec:    "auth: {trustedProxies: ['10.0.0.1']}",
			wantErr: "spec.auth.trustedProxies[0]: Invalid value: \"10.0.0.1\": a trusted proxy must be a network in CIDR notation",
		},
		"tiny volume": {
			spec:    "database: {embedded: {storage: {size: 100Mi}}}",
			wantErr: "storage.size must be 1Gi or more",
		},
		"volume of no size": {
			spec:    "database: {embedded: {storage: {size: big}}}",
			wantErr: "spec.database.embedded.storage.size: Invalid value",
		},
		"unknown deletion policy": {
			spec:    "database: {embedded: {storage: {deletionPolicy: Keep}}}",
			wantErr: `supported values: "Retain", "Delete"`,
		},
		"request above limit": {
			spec:    "auth: {resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}",
			wantErr: "resources.requests.memory must not exceed resources.limits.memory: lower the request or raise the limit",
		},
		"less than no memory": {
			spec:    "tasks: {resources: {limits: {memory: '-1Gi'}}}",
			wantErr: "spec.tasks.resources.limits.memory: Invalid value: \"-1Gi\": an amount of memory must be more than 0",
		},
		"no cpu": {
			spec:    "bus: {embedded: {resources: {requests: {cpu: 0}}}}",
			wantErr: "spec.bus.embedded.resources.requests.cpu: Invalid value: 0: an amount of cpu must be more than 0",
		},
		"storage class that cannot be one": {
			spec:    "database: {embedded: {storage: {className: 'Very Fast'}}}",
			wantErr: "spec.database.embedded.storage.className: Invalid value: \"Very Fast\"",
		},
		"no pods": {
			spec:    "tasks: {replicas: 0}",
			wantErr: "spec.tasks.replicas: Invalid value: 0: spec.tasks.replicas in body should be greater than or equal to 1",
		},
		"two ways to expose": {
			spec:    "exposure: {hostname: market.example.com, ingress: {}, httpRoute: {parentRefs: [{name: public}]}}",
			wantErr: "spec.exposure: Invalid value: exposure needs either ingress or httpRoute, and not both",
		},
		"no way to expose": {
			spec:    "exposure: {hostname: market.example.com}",
			wantErr: "spec.exposure: Invalid value: exposure needs either ingress or httpRoute, and not both",
		},
		"exposure without a host name": {
			spec:    "exposure: {ingress: {}}",
			wantErr: "spec.exposure.hostname: Required value",
		},
		"host name with a scheme": {
			spec:    "exposure: {hostname: 'https://market.example.com', ingress: {}}",
			wantErr: `spec.exposure.hostname: Invalid value: "https://market.example.com": exposure.hostname must be a DNS name in lower case without scheme, port or wildcard, such as market.example.com`,
		},
		"host name with a wildcard": {
			spec:    "exposure: {hostname: '*.example.com', ingress: {}}",
			wantErr: "exposure.hostname must be a DNS name",
		},
		"host name in capitals": {
			spec:    "exposure: {hostname: Market.example.com, ingress: {}}",
			wantErr: "exposure.hostname must be a DNS name",
		},
		"no Gateway": {
			spec:    "exposure: {hostname: market.example.com, httpRoute: {parentRefs: []}}",
			wantErr: "spec.exposure.httpRoute.parentRefs: Invalid value: 0: spec.exposure.httpRoute.parentRefs in body should have at least 1 items",
		},
		"a scheme that is none of a browser's": {
			spec:    "exposure: {hostname: market.example.com, httpRoute: {scheme: wss, parentRefs: [{name: public}]}}",
			wantErr: `spec.exposure.httpRoute.scheme: Unsupported value: "wss"`,
		},
		"a release that is none": {
			spec:    "version: 0.2.0",
			wantErr: `spec.version: Invalid value: "0.2.0": version must be a release such as v0.2.0`,
		},
		"a release, and always the newest": {
			spec:    "{version: v0.2.0, upgradePolicy: Automatic}",
			wantErr: `spec.version: Invalid value: version and upgradePolicy: Automatic exclude each other`,
		},
		"two databases": {
			spec:    "database: {embedded: {}, external: {urlSecretRef: {name: postgres}}}",
			wantErr: "spec.database.external: Invalid value: database.embedded and database.external exclude each other: remove one",
		},
		"certificates, and no TLS": {
			spec:    "database: {external: {urlSecretRef: {name: postgres}, tls: {mode: Disable, caSecretRef: {name: ca}}}}",
			wantErr: "spec.database.external.tls.caSecretRef: Invalid value: tls.caSecretRef has no meaning with tls.mode Disable",
		},
		"an installation that names no role": {
			spec:    "database: {installation: Old_Shop}",
			wantErr: `spec.database.installation: Invalid value: "Old_Shop"`,
		},
		"two buses": {
			spec:    "bus: {embedded: {}, external: {urls: ['nats://bus:4222']}}",
			wantErr: "spec.bus.external: Invalid value: bus.embedded and bus.external exclude each other: remove one",
		},
		"a bus URL with credentials": {
			spec:    "bus: {external: {urls: ['nats://courier:hunter2@bus:4222']}}",
			wantErr: `spec.bus.external.urls[0]: Invalid value: "nats://courier:hunter2@bus:4222": a bus URL must be nats://host:port or tls://host:port, without credentials`,
		},
		"endless drain": {
			spec:    "messaging: {drain: {windowSeconds: 100000}}",
			wantErr: "spec.messaging.drain.windowSeconds: Invalid value",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			marketplace := tt.name
			if marketplace == "" {
				marketplace = "shop"
			}
			_, err := w.tryMarketplace(marketplace, tt.spec)
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	w := newWorld(t)
	tests := map[string]string{
		"a": "",
		"b": "{}",
		"c": "messaging: {autoscaling: {maxReplicas: 1}, allowedOrigins: ['https://app.example.com', 'http://localhost:3000', 'http://[::1]:8080'], support: {userIDs: [01890a5d-ac96-774b-bcce-b302099a8057]}}",
		"d": "auth: {issuer: 'https://auth.example.com/tenant', trustedProxies: ['10.0.0.0/8', 'fd00::/8'], resources: {requests: {cpu: 1}, limits: {cpu: 1500m}}}",
		"e": "database: {embedded: {storage: {size: 1Gi, className: fast, deletionPolicy: Delete}, image: 'postgres:17'}}",
	}
	for i, url := range []string{
		"https://push.example.com", "https://push.example.com:8443/in?tenant=7", "https://[fd00::1]/in", "https://push.team.svc/in",
		"http://push.team.svc", "http://push.team.svc.cluster.local:8080/in?tenant=7",
	} {
		tests[fmt.Sprintf("webhook-%d", i)] = "messaging: {notifications: {url: '" + url + "', secretRef: {name: push}}}"
	}
	for name, spec := range tests {
		if _, err := w.tryMarketplace(name, spec); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestRefusedChanges(t *testing.T) {
	w := newWorld(t)
	tests := map[string]struct {
		from, via, to string // via is skipped where empty
		wantErr       string // none where empty
	}{
		"storage may grow": {
			from: "database: {embedded: {storage: {size: 1Gi}}}",
			to:   "database: {embedded: {storage: {size: 2Gi}}}",
		},
		"storage may not shrink": {
			from:    "database: {embedded: {storage: {size: 2Gi}}}",
			to:      "database: {embedded: {storage: {size: 1Gi}}}",
			wantErr: "embedded.storage.size can only grow",
		},
		"nor below its default": {
			from:    "",
			to:      "database: {embedded: {storage: {size: 1Gi}}}",
			wantErr: "to use a smaller one, make another Marketplace",
		},
		"nor by falling back to its default": {
			from:    "database: {embedded: {storage: {size: 10Gi}}}",
			to:      "{}",
			wantErr: "embedded.storage.size can only grow",
		},
		"it may be as small as it was after an external database": {
			from: "database: {embedded: {storage: {size: 1Gi}}}",
			via:  "database: {external: {urlSecretRef: {name: postgres}}}",
			to:   "database: {embedded: {storage: {size: 1Gi}}}",
		},
		"the class may not change": {
			from:    "",
			to:      "database: {embedded: {storage: {className: fast}}}",
			wantErr: "embedded.storage.className cannot be changed",
		},
		"the deletion policy may": {
			from: "",
			to:   "database: {embedded: {storage: {deletionPolicy: Delete}}}",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := w.marketplace("change", tt.from)
			if tt.via != "" {
				u, err := unstructuredMarketplace(m, tt.via)
				w.must(err)
				w.must(w.client.Update(w.ctx, u))
				w.must(w.get("change", m))
			}
			u, err := unstructuredMarketplace(m, tt.to)
			w.must(err)
			err = w.client.Update(w.ctx, u)
			switch {
			case tt.wantErr == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.wantErr != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("error = %v, want %q", err, tt.wantErr)
			}
			w.must(w.client.Delete(w.ctx, m))
		})
	}
}

// What the API server fills in is what the operator supposes where it did not:
// in sections that were left out, and in objects from before a field existed.
func TestDefaultsAgree(t *testing.T) {
	w := newWorld(t)
	filled := w.marketplace("filled", `
database: {embedded: {}}
bus: {embedded: {}}
messaging: {autoscaling: {maxReplicas: 9}}
`).Spec
	type defaults struct {
		Storage                                  string
		DeletionPolicy                           v1alpha1.DeletionPolicy
		Bus, Auth, Tasks, Messaging, Min, PerPod int32
		Stabilization, DrainFloor, DrainWindow   time.Duration
	}
	of := func(s v1alpha1.MarketplaceSpec) defaults {
		a := v1alpha1.AutoscalingSpec{}
		if s.Messaging.Autoscaling != nil {
			a = *s.Messaging.Autoscaling
		}
		storage := s.Database.EmbeddedOrDefault().Storage
		return defaults{
			Storage: storage.Size.String(), DeletionPolicy: storage.DeletionPolicy,
			Bus: s.Bus.EmbeddedOrDefault().Replicas, Auth: s.Auth.ReplicasOrDefault(), Tasks: s.Tasks.ReplicasOrDefault(),
			Messaging: s.Messaging.ReplicasOrDefault(), Min: a.MinReplicasOrDefault(), PerPod: a.TargetConnectionsOrDefault(),
			Stabilization: a.ScaleDownStabilization(), DrainFloor: s.Messaging.Drain.Floor(), DrainWindow: s.Messaging.Drain.Window(),
		}
	}
	if filled.Auth.Replicas == nil || filled.Messaging.Autoscaling.TargetConnections == nil || filled.Messaging.Drain.FloorSeconds == nil {
		t.Fatalf("the API server filled nothing in: %+v", filled)
	}
	if diff := cmp.Diff(of(v1alpha1.MarketplaceSpec{}), of(filled)); diff != "" {
		t.Errorf("defaults (-operator +API server):\n%s", diff)
	}
}
