package controllers_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// The operator's rights are named one by one, and what cannot be made again, it
// cannot delete: Secrets and volumes go with their owner, by Kubernetes' hand.
func TestRightsOfTheOperator(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "config", "rbac", "role.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict(document, &role); err != nil {
		t.Fatal(err)
	}
	rights := map[string][]string{} // verbs by resource
	for _, rule := range role.Rules {
		if len(rule.NonResourceURLs) > 0 {
			t.Errorf("rights on %v", rule.NonResourceURLs)
		}
		for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
			if word == rbacv1.ResourceAll {
				t.Errorf("a rule is about all there is: %+v", rule)
			}
		}
		for _, resource := range rule.Resources {
			rights[resource] = append(rights[resource], rule.Verbs...)
			// These would let it take more rights, or other identities, than it has.
			for _, verb := range []string{"bind", "escalate", "impersonate", "deletecollection"} {
				if slices.Contains(rule.Verbs, verb) {
					t.Errorf("it may %s %s", verb, resource)
				}
			}
		}
	}
	for _, resource := range []string{"secrets", "persistentvolumeclaims", "marketplaces"} {
		if len(rights[resource]) == 0 {
			t.Errorf("no rights on %s: this test sees nothing", resource)
		}
		if slices.Contains(rights[resource], "delete") {
			t.Errorf("it may delete %s", resource)
		}
	}
	for _, resource := range []string{"nodes", "serviceaccounts", "roles", "clusterroles", "rolebindings", "clusterrolebindings", "pods/exec", "serviceaccounts/token"} {
		if verbs := rights[resource]; len(verbs) > 0 {
			t.Errorf("it may %v %s", verbs, resource)
		}
	}
}
