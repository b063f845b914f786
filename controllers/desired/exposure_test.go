package desired_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// exposing are the objects of a spec that expose its services.
func exposing(t *testing.T, spec string) []desired.Object {
	t.Helper()
	var found []desired.Object
	for _, object := range desired.Build(marketplace(t, spec), inputs()).All() {
		switch *object.GetKind() {
		case "Ingress", "HTTPRoute":
			found = append(found, object)
		}
	}
	return found
}

// exposureCases are the ways of being exposed.
var exposureCases = map[string]struct {
	spec string
	// into is the type that the object must be read into strictly.
	into any
}{
	"ingress": {
		spec: "exposure: {hostname: market.example.com, ingress: {}}",
		into: &networkingv1.Ingress{},
	},
	"ingress-tls": {
		spec: `
exposure:
  hostname: market.example.com
  ingress:
    className: nginx
    annotations:
      cert-manager.io/cluster-issuer: letsencrypt
      nginx.ingress.kubernetes.io/proxy-read-timeout: "120"
    tls: {secretName: market-tls}
`,
		into: &networkingv1.Ingress{},
	},
	"http-route": {
		spec: `
exposure:
  hostname: market.example.com
  httpRoute:
    annotations: {example.com/team: chores}
    parentRefs:
    - {name: public, namespace: infra, sectionName: https, port: 443}
    - {name: internal}
`,
		into: &gatewayv1.HTTPRoute{},
	},
}

func TestExposureGolden(t *testing.T) {
	for name, tt := range exposureCases {
		t.Run(name, func(t *testing.T) {
			objects := exposing(t, tt.spec)
			got := render(t, objects)
			golden := filepath.Join("testdata", "exposure", name+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("objects (-want +got; -update writes them anew):\n%s", diff)
			}
			if err := yaml.UnmarshalStrict(got, tt.into); err != nil {
				t.Errorf("not a %T: %v", tt.into, err)
			}
		})
	}
}

func TestNothingIsExposedUnlessAsked(t *testing.T) {
	if objects := exposing(t, ""); len(objects) > 0 {
		t.Errorf("objects:\n%s", render(t, objects))
	}
}

// A proxy does not close a connection before messaging has pinged it often:
// pings may be late, and some lost.
func TestProxiesWaitForPings(t *testing.T) {
	const pings = 10
	annotations := read[networkingv1.Ingress](t, exposing(t, exposureCases["ingress"].spec)[0]).Annotations
	for _, name := range []string{
		"nginx.ingress.kubernetes.io/proxy-read-timeout", "nginx.ingress.kubernetes.io/proxy-send-timeout",
		"nginx.org/proxy-read-timeout", "nginx.org/proxy-send-timeout",
	} {
		seconds, err := strconv.Atoi(strings.TrimSuffix(annotations[name], "s"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if idle := time.Duration(seconds) * time.Second; idle < pings*contract.WebSocketPing {
			t.Errorf("%s is %s, less than %d pings of %s", name, idle, pings, contract.WebSocketPing)
		}
	}
	// What is no Ingress says that there is no limit.
	webSockets := 0
	for _, rule := range read[gatewayv1.HTTPRoute](t, exposing(t, exposureCases["http-route"].spec)[0]).Spec.Rules {
		if *rule.Matches[0].Path.Value != contract.PathWebSocket {
			continue
		}
		webSockets++
		if rule.Timeouts == nil || *rule.Timeouts.Request != "0s" || *rule.Timeouts.BackendRequest != "0s" {
			t.Errorf("timeouts of %s: %+v", contract.PathWebSocket, rule.Timeouts)
		}
	}
	if webSockets != 1 {
		t.Errorf("%d rules are about %s", webSockets, contract.PathWebSocket)
	}
}
