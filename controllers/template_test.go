package controllers_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// What no pod can be is refused where it is written, and the field is named.
func TestTemplateRefusals(t *testing.T) {
	w := newWorld(t)
	tests := map[string]struct {
		template string
		wantErr  string
	}{
		"an operator that is none": {
			template: "tolerations: [{key: a, operator: Exist}]",
			wantErr:  "spec.auth.template.tolerations: Invalid value: a toleration's operator must be Exists, Equal, Lt or Gt",
		},
		"a toleration of nothing": {
			template: "tolerations: [{value: a}]",
			wantErr:  "spec.auth.template.tolerations: Invalid value: a toleration needs a key",
		},
		"a value that cannot matter": {
			template: "tolerations: [{key: a, operator: Exists, value: b}]",
			wantErr:  "a toleration with the operator Exists must not have a value",
		},
		"an effect that is none": {
			template: "tolerations: [{key: a, effect: NoRun}]",
			wantErr:  "a toleration's effect must be NoSchedule, PreferNoSchedule or NoExecute",
		},
		"seconds of what evicts nobody": {
			template: "tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 3}]",
			wantErr:  "a toleration with tolerationSeconds must have the effect NoExecute",
		},
		"no skew": {
			template: "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
			wantErr:  "spec.auth.template.topologySpreadConstraints: Invalid value: a topology spread constraint's maxSkew must be 1 or more",
		},
		"no topology": {
			template: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: '', whenUnsatisfiable: DoNotSchedule}]",
			wantErr:  "a topology spread constraint's topologyKey must be a node label",
		},
		"no such action": {
			template: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}]",
			wantErr:  "a topology spread constraint's whenUnsatisfiable must be DoNotSchedule or ScheduleAnyway",
		},
		"domains that nobody insists on": {
			template: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}]",
			wantErr:  "a topology spread constraint's minDomains must be 1 or more, and needs whenUnsatisfiable: DoNotSchedule",
		},
		"no such policy": {
			template: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Obey}]",
			wantErr:  "nodeAffinityPolicy and nodeTaintsPolicy must be Honor or Ignore",
		},
		"one constraint twice": {
			template: "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]",
			wantErr:  "spec.auth.template.topologySpreadConstraints[1]: Duplicate value",
		},
		"the operator's variable": {
			template: "env: [{name: MARKETPLANE_ISSUER, value: me}]",
			wantErr:  "spec.auth.template.env[0].name: Invalid value: \"MARKETPLANE_ISSUER\": an env name must",
		},
		"the memory limit's variable": {
			template: "env: [{name: GOMEMLIMIT, value: '1'}]",
			wantErr:  "be neither GOMEMLIMIT nor begin with MARKETPLANE_",
		},
		"a variable twice": {
			template: "env: [{name: A, value: b}, {name: A, value: c}]",
			wantErr:  "spec.auth.template.env[1]: Duplicate value",
		},
		"the operator's annotation": {
			template: "annotations: {marketplane.dev/config-checksum: mine}",
			wantErr:  "spec.auth.template.annotations: Invalid value: template.annotations must not begin with marketplane.dev/",
		},
		"a label value that is none": {
			template: "nodeSelector: {disk: 'very fast'}",
			wantErr:  "spec.auth.template.nodeSelector.disk: Invalid value: \"very fast\"",
		},
		"a priority class that is none": {
			template: "priorityClassName: Very_High",
			wantErr:  "spec.auth.template.priorityClassName: Invalid value: \"Very_High\"",
		},
		"an image with a space": {
			template: "image: 'a b'",
			wantErr:  "spec.auth.template.image: Invalid value: \"a b\"",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := w.tryMarketplace("shop", "auth: {template: {"+tt.template+"}}")
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
		})
	}
}

// All that a template can hold is taken by the API server as the operator
// renders it.
func TestTemplateIsApplied(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	const template = `template: {
  image: 'registry.example.com/marketplane:fix',
  env: [{name: A, value: '$(HOME)'}],
  annotations: {example.com/team: shop},
  nodeSelector: {kubernetes.io/arch: arm64, empty: ''},
  tolerations: [{key: a, value: b, effect: NoExecute, tolerationSeconds: 30}, {operator: Exists}],
  topologySpreadConstraints: [
    {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, minDomains: 2, matchLabelKeys: [pod-template-hash]},
    {maxSkew: 2, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, nodeAffinityPolicy: Ignore, labelSelector: {matchExpressions: [{key: a, operator: Exists}]}}],
  priorityClassName: high,
  imagePullSecrets: [{name: pull}],
}`
	m := w.marketplace("shop", "auth: {"+template+"}\ntasks: {"+template+"}\nmessaging: {"+template+"}")
	w.awaitReady(m)
	for _, name := range []string{"shop-auth", "shop-tasks", "shop-messaging"} {
		if got := w.image(name); got != "registry.example.com/marketplane:fix" {
			t.Errorf("%s runs %s", name, got)
		}
	}

	// Without it everything is as it was before, and so no field is forgotten.
	plain := w.marketplace("plain", "")
	w.awaitReady(plain)
	w.must(w.get("shop", m))
	w.edit(m, func() { m.Spec.Auth.Template = nil })
	w.awaitReady(m)
	was, is := &appsv1.Deployment{}, &appsv1.Deployment{}
	w.must(w.get("plain-auth", was))
	w.must(w.get("shop-auth", is))
	if n := len(is.Spec.Template.Spec.Containers[0].Env) - len(was.Spec.Template.Spec.Containers[0].Env); n != 0 {
		t.Errorf("%d variables were left behind", n)
	}
	if s := is.Spec.Template.Spec; len(s.Tolerations)+len(s.NodeSelector)+len(s.ImagePullSecrets) > 0 || s.PriorityClassName != "" ||
		len(s.TopologySpreadConstraints) != 1 || len(is.Spec.Template.Annotations) != 1 {
		t.Errorf("something of the template was left behind: %+v", is.Spec.Template)
	}
}

// What only the API server knows to be wrong stalls, and the message names the
// field of the Marketplace.
func TestRefusedTemplateNamesTheField(t *testing.T) {
	tests := map[string]struct{ spec, want string }{
		"a node label that is none": {
			"tasks: {template: {nodeSelector: {'not a label': x}}}",
			"mend spec.tasks.template.nodeSelector of the Marketplace",
		},
		"a taint that is none": {
			"messaging: {template: {tolerations: [{key: 'not a taint', operator: Exists}]}}",
			"mend spec.messaging.template.tolerations of the Marketplace",
		},
		"two at once": {
			"auth: {template: {nodeSelector: {'not a label': x}, tolerations: [{key: 'not a taint', operator: Exists}]}}",
			"mend spec.auth.template.nodeSelector, spec.auth.template.tolerations of the Marketplace",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runEverything(true)
			w.startOperator()
			m := w.marketplace("shop", tt.spec)
			message := w.awaitStalled(m, v1alpha1.ReasonRefused)
			if !strings.Contains(message, tt.want) {
				t.Errorf("message = %q, want %q", message, tt.want)
			}
		})
	}
}
