package controllers_test

import (
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What the policies admit is tested in controllers/desired; here, that they
// come, come back, and go.
func TestNetworkPolicies(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "")
	w.awaitReady(m)

	w.must(w.client.DeleteAllOf(w.ctx, &networkingv1.NetworkPolicy{}, client.InNamespace(w.namespace)))
	w.eventuallyPolicies("they are made again", 5)

	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.NetworkPolicy.Disabled = true })
	w.eventuallyPolicies("they are removed", 0)
	w.awaitReady(m)
}

func (w *world) eventuallyPolicies(what string, want int) {
	w.t.Helper()
	w.eventually(what, func() error {
		policies := &networkingv1.NetworkPolicyList{}
		w.must(w.client.List(w.ctx, policies, client.InNamespace(w.namespace)))
		if got := len(policies.Items); got != want {
			return fmt.Errorf("%d NetworkPolicies, want %d", got, want)
		}
		return nil
	})
}
