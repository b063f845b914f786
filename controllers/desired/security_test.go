package desired_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podsecurityapi "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// rendered are all objects of every Marketplace that the golden files know, of
// both releases, and those that leave.
func rendered(t *testing.T) map[string][]desired.Object {
	t.Helper()
	found := map[string][]desired.Object{}
	add := func(name, spec string, change func(*desired.Inputs)) {
		for _, release := range []string{contract.Release, contract.PreviousRelease} {
			in := inputs()
			in.Release, in.Monitored = release, true
			if change != nil {
				change(&in)
			}
			objects := desired.Build(marketplace(t, spec), in)
			found[name+" of "+release] = append(objects.All(), objects.Leaving...)
		}
	}
	for name, tt := range goldenCases {
		add(name, tt.spec, tt.change)
	}
	for name, tt := range exposureCases {
		add(name, tt.spec, nil)
	}
	for _, component := range contract.Services() {
		add("template of "+component, component+":\n  "+fullTemplate, nil)
	}
	return found
}

// read is an object as the API's own type.
func read[T any](t *testing.T, object desired.Object) T {
	t.Helper()
	var typed T
	document, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(document, &typed); err != nil {
		t.Fatal(err)
	}
	return typed
}

// podsIn are the pod templates of the workloads, by component.
func podsIn(t *testing.T, objects []desired.Object) map[string]corev1.PodTemplateSpec {
	t.Helper()
	pods := map[string]corev1.PodTemplateSpec{}
	for _, object := range objects {
		switch *object.GetKind() {
		case "Deployment", "StatefulSet", "Job":
			template := read[struct {
				Spec struct {
					Template corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			}](t, object).Spec.Template
			pods[template.Labels[contract.LabelComponent]] = template
		}
	}
	return pods
}

// The internal port is for the operator and who watches, which find the pods by
// themselves: no Service, Ingress or HTTPRoute leads to it.
func TestNothingLeadsToTheInternalPort(t *testing.T) {
	for name, objects := range rendered(t) {
		leads := 0
		check := func(object desired.Object, port int32, portName string) {
			leads++
			if port == contract.InternalPort || portName == contract.InternalPortName {
				t.Errorf("%s: %s %s leads to port %d %s", name, *object.GetKind(), *object.GetName(), port, portName)
			}
		}
		for _, object := range objects {
			switch *object.GetKind() {
			case "Service":
				for _, p := range read[corev1.Service](t, object).Spec.Ports {
					check(object, p.Port, p.Name)
					check(object, p.TargetPort.IntVal, p.TargetPort.StrVal)
				}
			case "Ingress":
				ingress := read[networkingv1.Ingress](t, object)
				backends := []*networkingv1.IngressBackend{}
				if ingress.Spec.DefaultBackend != nil {
					backends = append(backends, ingress.Spec.DefaultBackend)
				}
				for _, rule := range ingress.Spec.Rules {
					for i := range rule.HTTP.Paths {
						backends = append(backends, &rule.HTTP.Paths[i].Backend)
					}
				}
				for _, b := range backends {
					check(object, b.Service.Port.Number, b.Service.Port.Name)
				}
			case "HTTPRoute":
				for _, rule := range read[gatewayv1.HTTPRoute](t, object).Spec.Rules {
					for _, ref := range rule.BackendRefs {
						check(object, *ref.Port, "")
					}
				}
			}
		}
		if leads == 0 {
			t.Errorf("%s: nothing leads anywhere", name)
		}
	}
}

// credentialsOf are the Secrets that a pod gets, each with the keys that it is
// limited to.
func credentialsOf(pod corev1.PodSpec) []string {
	held := map[string]bool{}
	add := func(secret string, items []corev1.KeyToPath) {
		keys := make([]string, 0, len(items))
		for _, item := range items {
			keys = append(keys, item.Key)
		}
		if len(keys) > 0 {
			secret += " (" + strings.Join(keys, ", ") + ")"
		}
		held[secret] = true
	}
	for _, volume := range pod.Volumes {
		if volume.Secret != nil {
			add(volume.Secret.SecretName, volume.Secret.Items)
		}
		if volume.Projected != nil {
			for _, source := range volume.Projected.Sources {
				if source.Secret != nil {
					add(source.Secret.Name, source.Secret.Items)
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(held))
}

// A pod has the credentials that it needs, and no other: only the migration
// has the administrator's, beside the embedded database itself, only auth the
// signing keys, and only messaging those of notifications.
func TestCredentialsReachOnlyTheirPods(t *testing.T) {
	withBus := func(bus ...string) map[string][]string {
		services := map[string][]string{}
		for _, service := range contract.Services() {
			services[service] = append([]string{"shop-database-" + service}, bus...)
		}
		services[contract.ComponentAuth] = append(services[contract.ComponentAuth], "shop-signing")
		services[contract.ComponentMigrate] = []string{
			"shop-database-admin",
			"shop-database-auth (password)", "shop-database-messaging (password)", "shop-database-tasks (password)",
		}
		return services
	}
	embedded := withBus("shop-bus")
	embedded[contract.ComponentBus] = []string{"shop-bus"}
	embedded[contract.ComponentDatabase] = []string{"shop-database-admin"}
	everything := maps.Clone(embedded)
	everything[contract.ComponentMessaging] = append(slices.Clone(everything[contract.ComponentMessaging]), "push (signing)")
	tests := map[string]map[string][]string{
		"empty":      embedded,
		"everything": everything,
		"external":   withBus("nats (token, username, password, user.creds)", "nats-ca (root.pem)", "nats-client (tls.crt, tls.key)"),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			in := inputs()
			if change := goldenCases[name].change; change != nil {
				change(&in)
			}
			got := map[string][]string{}
			for component, pod := range podsIn(t, desired.Build(marketplace(t, goldenCases[name].spec), in).All()) {
				got[component] = credentialsOf(pod.Spec)
			}
			for _, secrets := range want {
				slices.Sort(secrets)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Secrets by component (-want +got):\n%s", diff)
			}
		})
	}
}

// Credentials are files: an environment is shown by kubectl describe, is
// inherited by every child, and does not follow a change.
func TestNoCredentialIsInAnEnvironment(t *testing.T) {
	for name, objects := range rendered(t) {
		for component, pod := range podsIn(t, objects) {
			for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				if len(container.EnvFrom) > 0 {
					t.Errorf("%s: %s takes a whole environment from elsewhere: %v", name, component, container.EnvFrom)
				}
				for _, variable := range container.Env {
					if variable.ValueFrom != nil && variable.ValueFrom.SecretKeyRef != nil {
						t.Errorf("%s: %s has %s from Secret %s", name, component, variable.Name, variable.ValueFrom.SecretKeyRef.Name)
					}
				}
			}
		}
	}
}

// Namespaces that enforce Pod Security "restricted" admit every pod, by the
// rules of the API server's own admission, and none has a token for the API
// server.
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := podsecurityapi.LevelVersion{Level: podsecurityapi.LevelRestricted, Version: podsecurityapi.LatestVersion()}
	seen := map[string]bool{}
	for name, objects := range rendered(t) {
		for component, pod := range podsIn(t, objects) {
			seen[component] = true
			result := podsecurity.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
			if !result.Allowed {
				t.Errorf("%s: %s is not admitted: %s", name, component, result.ForbiddenDetail())
			}
			for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				if root := container.SecurityContext.ReadOnlyRootFilesystem; root == nil || !*root {
					t.Errorf("%s: %s can write to its root", name, component)
				}
			}
			if mounts := pod.Spec.AutomountServiceAccountToken; mounts == nil || *mounts {
				t.Errorf("%s: %s gets a token for the API server", name, component)
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("only pods of %v were looked at", seen)
	}
	// The rules do refuse.
	privileged := corev1.PodSpec{Containers: []corev1.Container{{Name: "any", Image: "any"}}}
	if podsecurity.AggregateCheckResults(evaluator.EvaluatePod(restricted, &metav1.ObjectMeta{}, &privileged)).Allowed {
		t.Error("a pod without a security context is admitted")
	}
}
