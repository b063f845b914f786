package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// Whatever an apply changes in a workload has its reason in the Event.
func TestWorkloadChange(t *testing.T) {
	template := func(component string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{
				Labels:      map[string]string{contract.LabelComponent: component},
				Annotations: map[string]string{desired.AnnotationConfig: "c1"},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: component, Image: "marketplane:one",
				Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "1"}},
			}}},
		}
	}
	tests := map[string]struct {
		kind       string
		component  string
		change     func(replicas *int32, template *corev1.PodTemplateSpec)
		size       size
		wantReason string
		want       string
	}{
		"the image": {
			kind: kindDeployment, component: "auth",
			change:     func(_ *int32, p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "marketplane:two" },
			wantReason: "Rolled", want: "auth: rolled because the image changed from marketplane:one to marketplane:two",
		},
		"the database's image": {
			kind: kindStatefulSet, component: "database",
			change:     func(_ *int32, p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "postgres:18" },
			wantReason: "Rolled", want: "database: rolled because the image changed from marketplane:one to postgres:18",
		},
		"the database's scripts": {
			kind: kindStatefulSet, component: "database",
			change:     func(_ *int32, p *corev1.PodTemplateSpec) { p.Annotations[desired.AnnotationConfig] = "c2" },
			wantReason: "Rolled", want: "database: rolled because a Secret or a script that it reads at its start changed",
		},
		"a Secret, and the environment": {
			kind: kindStatefulSet, component: "bus",
			change: func(_ *int32, p *corev1.PodTemplateSpec) {
				p.Annotations[desired.AnnotationConfig] = "c2"
				p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "B", Value: "2"}, {Name: "C", Value: "1"}}
			},
			wantReason: "Rolled",
			want:       "bus: rolled because a Secret that it reads at its start changed and its environment changed (A, B, C)",
		},
		"annotations, resources, nodes and time": {
			kind: kindDeployment, component: "tasks",
			change: func(_ *int32, p *corev1.PodTemplateSpec) {
				p.Annotations["example.com/team"] = "a"
				p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}
				p.Spec.NodeSelector = map[string]string{"disk": "fast"}
				p.Spec.TerminationGracePeriodSeconds = new(int64(9))
			},
			wantReason: "Rolled",
			want: "tasks: rolled because its annotations changed and its resources changed and its placement changed" +
				" and the time that it has to stop changed",
		},
		"volumes": {
			kind: kindDeployment, component: "tasks",
			change:     func(_ *int32, p *corev1.PodTemplateSpec) { p.Spec.Volumes = []corev1.Volume{{Name: "ca"}} },
			wantReason: "Rolled", want: "tasks: rolled because what it mounts changed",
		},
		"something else": {
			kind: kindDeployment, component: "tasks",
			change:     func(_ *int32, p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Args = []string{"x"} },
			wantReason: "Rolled", want: "tasks: rolled because its pods' template changed",
		},
		"the size of messaging": {
			kind: kindDeployment, component: "messaging",
			change:     func(replicas *int32, _ *corev1.PodTemplateSpec) { *replicas = 5 },
			size:       size{5, "9 connections"},
			wantReason: "Scaled", want: "messaging: scaled from 2 to 5: 9 connections",
		},
		"the size of the bus": {
			kind: kindStatefulSet, component: "bus",
			change:     func(replicas *int32, _ *corev1.PodTemplateSpec) { *replicas = 3 },
			wantReason: "Scaled", want: "bus: scaled from 2 to 3: as the spec says",
		},
		"the image and the size": {
			kind: kindDeployment, component: "auth",
			change: func(replicas *int32, p *corev1.PodTemplateSpec) {
				*replicas, p.Spec.Containers[0].Image = 3, "marketplane:two"
			},
			wantReason: "Rolled",
			want:       "auth: rolled because the image changed from marketplane:one to marketplane:two; scaled from 2 to 3: as the spec says",
		},
		"what replaces no pod": {
			kind: kindDeployment, component: "auth",
			change:     func(*int32, *corev1.PodTemplateSpec) {},
			wantReason: "Updated", want: "auth: changed without a restart, because the spec or the operator changed",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			object := func(change func(*int32, *corev1.PodTemplateSpec)) client.Object {
				replicas, pods := int32(2), template(tt.component)
				change(&replicas, &pods)
				meta := metav1.ObjectMeta{Name: "shop-" + tt.component, Labels: map[string]string{contract.LabelComponent: tt.component}}
				if tt.kind == kindStatefulSet {
					return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Template: pods}}
				}
				return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: pods}}
			}
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object(tt.change))
			if err != nil {
				t.Fatal(err)
			}
			reason, text := workloadChange(change{
				key:    objectKey{tt.kind, "shop-" + tt.component},
				before: object(func(*int32, *corev1.PodTemplateSpec) {}),
				after:  &unstructured.Unstructured{Object: content},
				size:   tt.size,
			})
			if diff := cmp.Diff([]string{tt.wantReason, tt.want}, []string{reason, text}); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}
