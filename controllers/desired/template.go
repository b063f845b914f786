package desired

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// shape adds to a service's pods what the user asks for. What the operator set
// stays as it is. Without a template nothing is added, so that a field that the
// user does not use can never be why pods are replaced.
func (r renderer) shape(component string, t *v1alpha1.PodTemplate, template *corev1ac.PodTemplateSpecApplyConfiguration) {
	if t == nil {
		return
	}
	spec := template.Spec
	container := &spec.Containers[0]
	if t.Image != "" {
		container.WithImage(t.Image)
	}
	for _, variable := range t.Env {
		container.WithEnv(env(variable.Name, literal(variable.Value)))
	}
	for key, value := range t.Annotations {
		if _, set := template.Annotations[key]; !set {
			template.WithAnnotations(map[string]string{key: value})
		}
	}
	for label, value := range t.NodeSelector {
		spec.WithNodeSelector(map[string]string{label: string(value)})
	}
	for i := range t.Tolerations {
		spec.WithTolerations(toleration(t.Tolerations[i]))
	}
	if len(t.TopologySpreadConstraints) > 0 {
		spec.TopologySpreadConstraints = nil
		for i := range t.TopologySpreadConstraints {
			spec.WithTopologySpreadConstraints(r.userSpread(component, t.TopologySpreadConstraints[i]))
		}
	}
	if t.PriorityClassName != "" {
		spec.WithPriorityClassName(t.PriorityClassName)
	}
	for _, secret := range t.ImagePullSecrets {
		spec.WithImagePullSecrets(corev1ac.LocalObjectReference().WithName(secret.Name))
	}
}

// literal is a value of which the kubelet makes the same value again: it
// expands $(NAME), and makes one dollar sign of two.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }

func toleration(t corev1.Toleration) *corev1ac.TolerationApplyConfiguration {
	rendered := corev1ac.Toleration()
	if t.Key != "" {
		rendered.WithKey(t.Key)
	}
	if t.Operator != "" {
		rendered.WithOperator(t.Operator)
	}
	if t.Value != "" {
		rendered.WithValue(t.Value)
	}
	if t.Effect != "" {
		rendered.WithEffect(t.Effect)
	}
	if t.TolerationSeconds != nil {
		rendered.WithTolerationSeconds(*t.TolerationSeconds)
	}
	return rendered
}

// userSpread is a constraint that the user asks for. One that does not say
// which pods it is about is about the component's.
func (r renderer) userSpread(component string, c corev1.TopologySpreadConstraint) *corev1ac.TopologySpreadConstraintApplyConfiguration {
	rendered := corev1ac.TopologySpreadConstraint().
		WithMaxSkew(c.MaxSkew).
		WithTopologyKey(c.TopologyKey).
		WithWhenUnsatisfiable(c.WhenUnsatisfiable).
		WithLabelSelector(r.selector(component)).
		WithMatchLabelKeys(c.MatchLabelKeys...)
	if c.LabelSelector != nil {
		rendered.WithLabelSelector(labelSelector(*c.LabelSelector))
	}
	if c.MinDomains != nil {
		rendered.WithMinDomains(*c.MinDomains)
	}
	if c.NodeAffinityPolicy != nil {
		rendered.WithNodeAffinityPolicy(*c.NodeAffinityPolicy)
	}
	if c.NodeTaintsPolicy != nil {
		rendered.WithNodeTaintsPolicy(*c.NodeTaintsPolicy)
	}
	return rendered
}

func labelSelector(s metav1.LabelSelector) *metav1ac.LabelSelectorApplyConfiguration {
	rendered := metav1ac.LabelSelector()
	if len(s.MatchLabels) > 0 {
		rendered.WithMatchLabels(s.MatchLabels)
	}
	for _, e := range s.MatchExpressions {
		rendered.WithMatchExpressions(metav1ac.LabelSelectorRequirement().
			WithKey(e.Key).WithOperator(e.Operator).WithValues(e.Values...))
	}
	return rendered
}
