package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// change is one object that an apply made or changed.
type change struct {
	key    objectKey
	before client.Object // nil where the object is new
	after  *unstructured.Unstructured
	size   size
	// repaired says that the same was applied before: someone changed or deleted
	// it since.
	repaired bool
	// leftAlone says that an autoscaler decides the replicas: that they are others
	// than those that were seen is not this apply's doing.
	leftAlone bool
}

// kind is how the change is counted.
func (c change) kind() metrics.Change {
	switch {
	case c.repaired:
		return metrics.Repaired
	case c.before == nil:
		return metrics.Created
	default:
		return metrics.Updated
	}
}

// isWorkload says whether objects of a kind run or hold something. That a new
// Marketplace gets all the others needs no Event for each.
func isWorkload(kind string) bool {
	switch kind {
	case kindDeployment, kindStatefulSet, kindJob, kindVolume:
		return true
	default:
		return false
	}
}

// tellChange says in an Event what was changed and why.
func (r *Reconciler) tellChange(m *v1alpha1.Marketplace, c change) {
	switch {
	case c.before == nil:
		if c.repaired {
			r.event(m, c.after, corev1.EventTypeNormal, "Repaired", "%s: it was gone; it is made again", c.key)
		} else if isWorkload(c.key.kind) {
			r.event(m, c.after, corev1.EventTypeNormal, "Created", "%s: created", c.key)
		}
		if c.key.kind == kindStatefulSet && c.after.GetLabels()[contract.LabelComponent] == contract.ComponentDatabase {
			r.event(m, c.after, corev1.EventTypeNormal, "EmbeddedDatabase",
				"database: the embedded PostgreSQL is for evaluation: it survives restarts, not the loss of its volume")
		}
		return
	case c.repaired:
		r.event(m, c.after, corev1.EventTypeNormal, "Repaired", "%s: someone had changed it; it is as the spec asks again", c.key)
		return
	}
	if claim, ok := c.before.(*corev1.PersistentVolumeClaim); ok && !claimChanged(claim, c.after) {
		return
	}
	reason, text := "Updated", fmt.Sprintf("%s: applied because the spec or the operator changed", c.key)
	switch {
	case c.key.kind == kindDeployment, c.key.kind == kindStatefulSet:
		reason, text = workloadChange(c)
	case c.key == objectKey{kindConfigMap, desired.NamesOf(m).JWKS()}:
		text = fmt.Sprintf("%s: applied because the signing keys changed", c.key)
	}
	r.event(m, c.after, corev1.EventTypeNormal, reason, "%s", text)
}

// claimChanged says whether a claim changed in what people care about. That its
// class is known once it is bound is not that.
func claimChanged(before *corev1.PersistentVolumeClaim, after *unstructured.Unstructured) bool {
	size, _, _ := unstructured.NestedString(after.Object, "spec", "resources", "requests", "storage")
	return before.Spec.Resources.Requests.Storage().String() != size ||
		len(before.OwnerReferences) != len(after.GetOwnerReferences())
}

// workload is what Deployments and StatefulSets have in common.
type workload struct {
	replicas int32
	template corev1.PodTemplateSpec
}

// workloadOf reads a Deployment or a StatefulSet; false where it is neither.
func workloadOf(object runtime.Object) (workload, bool) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return workload{replicasIn(o), o.Spec.Template}, true
	case *appsv1.StatefulSet:
		w := workload{1, o.Spec.Template}
		if o.Spec.Replicas != nil {
			w.replicas = *o.Spec.Replicas
		}
		return w, true
	default:
		return workload{}, false
	}
}

// appliedWorkload reads the answer to an apply.
func appliedWorkload(kind string, u *unstructured.Unstructured) (workload, bool) {
	var typed runtime.Object = &appsv1.Deployment{}
	if kind == kindStatefulSet {
		typed = &appsv1.StatefulSet{}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
		return workload{}, false
	}
	return workloadOf(typed)
}

// workloadChange says what an apply changed in a workload, and why.
func workloadChange(c change) (reason, text string) {
	component := c.after.GetLabels()[contract.LabelComponent]
	was, known := workloadOf(c.before)
	is, read := appliedWorkload(c.key.kind, c.after)
	if !known || !read {
		return "Updated", c.key.String() + ": applied because the spec or the operator changed"
	}
	if c.leftAlone {
		was.replicas = is.replicas
	}
	scaled := fmt.Sprintf("scaled from %d to %d: as the spec says", was.replicas, is.replicas)
	if component == contract.ComponentMessaging {
		scaled = scalingText(was.replicas, c.size)
	}
	reasons := rollReasons(component, was.template, is.template)
	switch {
	case len(reasons) > 0 && was.replicas != is.replicas:
		return "Rolled", fmt.Sprintf("%s: rolled because %s; %s", component, strings.Join(reasons, " and "), scaled)
	case len(reasons) > 0:
		return "Rolled", fmt.Sprintf("%s: rolled because %s", component, strings.Join(reasons, " and "))
	case was.replicas != is.replicas:
		return "Scaled", component + ": " + scaled
	default:
		return "Updated", component + ": changed without a restart, because the spec or the operator changed"
	}
}

// byAutoscaler says whether all that changed since it was seen is what an
// autoscaler decided.
func (c change) byAutoscaler() bool {
	if !c.repaired || !c.leftAlone || c.before == nil {
		return false
	}
	was, known := workloadOf(c.before)
	is, read := appliedWorkload(c.key.kind, c.after)
	return known && read && equality.Semantic.DeepEqual(was.template, is.template)
}

// rollReasons says why a workload's pods are replaced; none where they are not.
func rollReasons(component string, was, is corev1.PodTemplateSpec) []string {
	if equality.Semantic.DeepEqual(was, is) {
		return nil
	}
	var reasons []string
	because := func(changed bool, format string, args ...any) {
		if changed {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	differ := func(a, b any) bool { return !equality.Semantic.DeepEqual(a, b) }

	reads := "a Secret that it reads"
	if component == contract.ComponentDatabase {
		reads = "a Secret or a script that it reads"
	}
	configWas, configIs := was.Annotations[desired.AnnotationConfig], is.Annotations[desired.AnnotationConfig]
	because(configWas != configIs, "%s at its start changed", reads)
	because(differ(others(was.Annotations), others(is.Annotations)), "its annotations changed")
	if len(was.Spec.Containers) > 0 && len(is.Spec.Containers) > 0 {
		a, b := was.Spec.Containers[0], is.Spec.Containers[0]
		because(a.Image != b.Image, "the image changed from %s to %s", a.Image, b.Image)
		if names := changedEnv(a.Env, b.Env); len(names) > 0 {
			because(true, "its environment changed (%s)", strings.Join(names, ", "))
		}
		because(differ(a.Resources, b.Resources), "its resources changed")
	}
	because(differ(was.Spec.NodeSelector, is.Spec.NodeSelector) ||
		differ(was.Spec.Affinity, is.Spec.Affinity) ||
		differ(was.Spec.Tolerations, is.Spec.Tolerations) ||
		differ(was.Spec.TopologySpreadConstraints, is.Spec.TopologySpreadConstraints) ||
		was.Spec.PriorityClassName != is.Spec.PriorityClassName, "its placement changed")
	because(differ(was.Spec.Volumes, is.Spec.Volumes), "what it mounts changed")
	because(differ(was.Spec.TerminationGracePeriodSeconds, is.Spec.TerminationGracePeriodSeconds), "the time that it has to stop changed")
	because(len(reasons) == 0, "its pods' template changed")
	return reasons
}

// others are the annotations beside the configuration's checksum.
func others(annotations map[string]string) map[string]string {
	rest := maps.Clone(annotations)
	delete(rest, desired.AnnotationConfig)
	return rest
}

// changedEnv names the variables that differ, in order.
func changedEnv(was, is []corev1.EnvVar) []string {
	before := map[string]corev1.EnvVar{}
	for _, v := range was {
		before[v.Name] = v
	}
	changed := map[string]bool{}
	for _, v := range is {
		if old, ok := before[v.Name]; !ok || !equality.Semantic.DeepEqual(old, v) {
			changed[v.Name] = true
		}
		delete(before, v.Name)
	}
	for name := range before {
		changed[name] = true
	}
	return slices.Sorted(maps.Keys(changed))
}
