package desired_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// deployment is what a spec makes of a service.
func deployment(t *testing.T, spec, component string) *appsv1ac.DeploymentApplyConfiguration {
	t.Helper()
	for _, object := range desired.Build(marketplace(t, spec), inputs()).Workloads {
		if d, ok := object.(*appsv1ac.DeploymentApplyConfiguration); ok && *d.Name == "shop-"+component {
			return d
		}
	}
	t.Fatalf("no Deployment of %s", component)
	return nil
}

const fullTemplate = `template:
    image: registry.example.com/marketplane:fix
    env: [{name: HTTPS_PROXY, value: 'http://proxy.example.com:3128'}, {name: EMPTY}]
    annotations: {prometheus.io/scrape: 'true', marketplane.dev/config-checksum: mine}
    nodeSelector: {disk: fast, kubernetes.io/arch: arm64}
    tolerations:
    - {key: dedicated, value: market, effect: NoExecute, tolerationSeconds: 30}
    - {operator: Exists}
    topologySpreadConstraints:
    - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2, matchLabelKeys: [pod-template-hash]}
    - maxSkew: 2
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      nodeAffinityPolicy: Ignore
      nodeTaintsPolicy: Honor
      labelSelector: {matchLabels: {tier: front}, matchExpressions: [{key: team, operator: In, values: [a, b]}]}
    priorityClassName: high
    imagePullSecrets: [{name: pull}]
`

// What the user asks of one service's pods is about that one alone.
func TestTemplateGolden(t *testing.T) {
	for _, component := range contract.Services() {
		spec := component + ":\n  " + fullTemplate
		t.Run(component, func(t *testing.T) {
			got := render(t, []desired.Object{deployment(t, spec, component)})
			golden := filepath.Join("testdata", "template-"+component+".golden.yaml")
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
				t.Errorf("Deployment (-want +got; -update writes it anew):\n%s", diff)
			}
			for _, other := range contract.Services() {
				if other == component {
					continue
				}
				if diff := cmp.Diff(deployment(t, "", other), deployment(t, spec, other)); diff != "" {
					t.Errorf("%s changed too (-without +with):\n%s", other, diff)
				}
			}
		})
	}
}

// A template that asks for nothing replaces no pod.
func TestEmptyTemplateChangesNothing(t *testing.T) {
	for _, component := range contract.Services() {
		empty := component + ": {template: {env: [], annotations: {}, nodeSelector: {}, tolerations: [], topologySpreadConstraints: [], imagePullSecrets: []}}"
		if diff := cmp.Diff(deployment(t, "", component), deployment(t, empty, component)); diff != "" {
			t.Errorf("%s (-without +with):\n%s", component, diff)
		}
	}
}

// Messaging has as many threads as whole processors that it is given, or what its
// template says.
func TestProcessorsOfMessaging(t *testing.T) {
	const asked = "template: {env: [{name: GOMAXPROCS, value: '6'}]}"
	for spec, want := range map[string]string{
		"resources: {}":                       "1",
		"resources: {requests: {cpu: 1}}":     "1",
		"resources: {requests: {cpu: 1100m}}": "2",
		"resources: {limits: {cpu: 3500m}}":   "4",
		"resources: {limits: {memory: 2Gi}}":  "1",
		asked:                                 "6",
	} {
		var got []string
		for _, v := range deployment(t, "messaging: {"+spec+"}", contract.ComponentMessaging).Spec.Template.Spec.Containers[0].Env {
			if *v.Name == "GOMAXPROCS" {
				got = append(got, *v.Value)
			}
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("with %q it is %q, want %q", spec, got, want)
		}
	}
}

// The kubelet expands $(NAME) and turns $$ into $: what the user wrote must
// come out of that again.
func TestTemplateEnvIsLiteral(t *testing.T) {
	tests := map[string]struct{ value, want string }{
		"a reference":         {"$(MARKETPLANE_DATABASE_URL_FILE)", "$$(MARKETPLANE_DATABASE_URL_FILE)"},
		"an escaped one":      {"$$(HOME)", "$$$$(HOME)"},
		"a shell's":           {"${HOME} and $HOME", "$${HOME} and $$HOME"},
		"two dollars":         {"a$$b", "a$$$$b"},
		"one at the end":      {"price in $", "price in $$"},
		"none":                {"(plain)", "(plain)"},
		"an unclosed opening": {"$(x", "$$(x"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := deployment(t, "auth: {template: {env: [{name: X, value: '"+tt.value+"'}]}}", contract.ComponentAuth)
			variables := d.Spec.Template.Spec.Containers[0].Env
			got := *variables[len(variables)-1].Value
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			if back := kubeletExpands(got); back != tt.value {
				t.Errorf("a process would see %q, want %q", back, tt.value)
			}
		})
	}
}

// kubeletExpands does what the kubelet does to the value of a variable: see
// "Dependent environment variables" in the documentation of Kubernetes.
func kubeletExpands(value string) string {
	out := ""
	for i := 0; i < len(value); i++ {
		if value[i] != '$' || i+1 == len(value) {
			out += string(value[i])
			continue
		}
		switch next := value[i+1]; {
		case next == '$':
			out += "$"
			i++
		case next == '(' && closes(value[i+2:]):
			return out + "(expanded)"
		default:
			out += "$"
		}
	}
	return out
}

func closes(rest string) bool {
	for i := range len(rest) {
		if rest[i] == ')' {
			return true
		}
	}
	return false
}
