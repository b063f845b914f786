package controllers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

func TestStripKeepsNothingOfASecret(t *testing.T) {
	got, err := strip(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "database", Namespace: "market", UID: "u", ResourceVersion: "7",
		Labels:        map[string]string{"a": "b"},
		Annotations:   map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"data":{"url":"c2VjcmV0"}}`},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		OwnerReferences: []metav1.OwnerReference{
			{Kind: "ExternalSecret", Name: "database"}, {Kind: v1alpha1.Kind, Name: "shop"},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "database", Namespace: "market", UID: "u", ResourceVersion: "7",
		OwnerReferences: []metav1.OwnerReference{{Kind: v1alpha1.Kind, Name: "shop"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if kept, err := strip(&corev1.Secret{}); err == nil {
		t.Errorf("a whole Secret is kept: %v", kept)
	}
}
