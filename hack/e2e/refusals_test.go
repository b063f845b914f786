//go:build e2e

package e2e

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kube "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// A Marketplace that could not work is refused when it is applied, with the
// field and the reason.
func TestRefusesWhatCannotWork(t *testing.T) {
	namespace := makeNamespace(t, "refusals")
	tests := map[string]struct {
		name      string
		spec      string
		wantField string
		wantSays  string
	}{
		"name too long": {
			name:     strings.Repeat("a", 41),
			wantSays: "at most 40 characters",
		},
		"fewer at most than at least": {
			spec:      "messaging: {autoscaling: {minReplicas: 3, maxReplicas: 2}}",
			wantField: "spec.messaging.autoscaling.maxReplicas",
			wantSays:  "must not be less than autoscaling.minReplicas",
		},
		"autoscaling without a limit": {
			spec:      "messaging: {autoscaling: {}}",
			wantField: "spec.messaging.autoscaling.maxReplicas",
			wantSays:  "Required value",
		},
		"two bus servers": {
			spec:      "bus: {embedded: {replicas: 2}}",
			wantField: "spec.bus.embedded.replicas",
			wantSays:  "must be 1 (one server) or 3 (a cluster)",
		},
		"no auth pod": {
			spec:      "auth: {replicas: 0}",
			wantField: "spec.auth.replicas",
			wantSays:  "greater than or equal to 1",
		},
		"origin with a path": {
			spec:      "messaging: {allowedOrigins: ['https://app.example.com/chat']}",
			wantField: "spec.messaging.allowedOrigins",
			wantSays:  "must be scheme://host",
		},
		"issuer that is no URL": {
			spec:      "auth: {issuer: example}",
			wantField: "spec.auth.issuer",
			wantSays:  "must be an http or https URL",
		},
		"volume too small": {
			spec:      "database: {embedded: {storage: {size: 10Mi}}}",
			wantField: "spec.database.embedded.storage.size",
			wantSays:  "1Gi or more",
		},
		"unknown deletion policy": {
			spec:      "database: {embedded: {storage: {deletionPolicy: Shred}}}",
			wantField: "spec.database.embedded.storage.deletionPolicy",
			wantSays:  `supported values: "Retain", "Delete"`,
		},
		"request above its limit": {
			spec:      "tasks: {resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}",
			wantField: "spec.tasks.resources",
			wantSays:  "must not exceed resources.limits.memory",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			object := document(t, namespace, tt.name, tt.spec)
			err := cluster.kube.Create(t.Context(), object)
			if !apierrors.IsInvalid(err) {
				t.Fatalf("error = %v, want that it is invalid", err)
			}
			if !strings.Contains(err.Error(), tt.wantField) || !strings.Contains(err.Error(), tt.wantSays) {
				t.Errorf("the refusal is %q; want it to name %q and to say %q", err, tt.wantField, tt.wantSays)
			}
		})
	}
	t.Run("unknown field", func(t *testing.T) {
		object := document(t, namespace, "", "messaging: {replica: 3}")
		err := cluster.kube.Create(t.Context(), object, kube.FieldValidation("Strict"))
		if err == nil || !strings.Contains(err.Error(), `unknown field "spec.messaging.replica"`) {
			t.Errorf("error = %v, want one that names the unknown field", err)
		}
	})
	t.Run("nothing was made", func(t *testing.T) {
		list := &v1alpha1.MarketplaceList{}
		if err := cluster.kube.List(t.Context(), list, kube.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) > 0 {
			t.Errorf("%d Marketplaces exist", len(list.Items))
		}
	})
}

// A change that would need what a volume cannot do is refused as well. The
// Marketplace is paused, so that nothing is made for it.
func TestRefusesImpossibleChanges(t *testing.T) {
	namespace := makeNamespace(t, "changes")
	object := document(t, namespace, "", "{paused: true, database: {embedded: {storage: {size: 2Gi}}}}")
	if err := cluster.kube.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change   string
		wantSays string
	}{
		"smaller volume":        {"database: {embedded: {storage: {size: 1Gi}}}", "can only grow"},
		"another storage class": {"database: {embedded: {storage: {className: other}}}", "className cannot be changed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			patch, err := yaml.YAMLToJSON([]byte("spec: {" + tt.change + "}"))
			if err != nil {
				t.Fatal(err)
			}
			err = cluster.kube.Patch(t.Context(), object.DeepCopy(), kube.RawPatch("application/merge-patch+json", patch))
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.wantSays) || !strings.Contains(err.Error(), "spec.database.embedded") {
				t.Errorf("error = %v, want a refusal that says %q", err, tt.wantSays)
			}
		})
	}
}

// document is a Marketplace as a user would write it: fields that the type
// does not know, and values that it could not hold, are possible.
func document(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	if name == "" {
		name = "refused"
	}
	parsed := map[string]any{}
	if err := yaml.Unmarshal([]byte(spec), &parsed); err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": parsed}}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Marketplace"))
	object.SetNamespace(namespace)
	object.SetName(name)
	return object
}
