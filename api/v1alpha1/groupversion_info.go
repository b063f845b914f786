// Package v1alpha1 is the Marketplace resource: what a user asks for and what
// the operator tells about it. It imports apimachinery only and must not know
// how a Marketplace is run.
//
// Files named *_types.go hold data, files named *_funcs.go behaviour.
//
// +kubebuilder:object:generate=true
// +groupName=marketplane.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is the kind of a Marketplace.
const Kind = "Marketplace"

var (
	// GroupVersion is the group and version of this package's kinds.
	GroupVersion = schema.GroupVersion{Group: "marketplane.dev", Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers this package's kinds.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Marketplace{}, &MarketplaceList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
