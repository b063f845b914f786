package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/marketplane/marketplane/api/contract"
)

// A field of an object that the operator renders, and the field of the
// Marketplace that it comes from. The first that fits counts.
var origins = []struct {
	kind, prefix string
	// origin is below the component's section.
	origin string
}{
	{kindDeployment, "spec.template.spec.nodeSelector", "template.nodeSelector"},
	{kindDeployment, "spec.template.spec.tolerations", "template.tolerations"},
	{kindDeployment, "spec.template.spec.topologySpreadConstraints", "template.topologySpreadConstraints"},
	{kindDeployment, "spec.template.spec.priorityClassName", "template.priorityClassName"},
	{kindDeployment, "spec.template.spec.imagePullSecrets", "template.imagePullSecrets"},
	{kindDeployment, "spec.template.spec.containers[0].env", "template.env"},
	{kindDeployment, "spec.template.spec.containers[0].image", "template.image"},
	{kindDeployment, "spec.template.spec.containers[0].resources", "resources"},
	{kindDeployment, "spec.template.annotations", "template.annotations"},
	{kindDeployment, "spec.template.metadata.annotations", "template.annotations"},
	{kindStatefulSet, "spec.template.spec.containers[0].resources", "resources"},
	{kindStatefulSet, "spec.template.spec.containers[0].image", "image"},
	{kindVolume, "spec.storageClassName", "storage.className"},
	{kindVolume, "spec", "storage.size"},
}

// sectionOf is where the spec of a Marketplace speaks of a component.
func sectionOf(component string) string {
	switch component {
	case contract.ComponentAuth, contract.ComponentTasks, contract.ComponentMessaging:
		return "spec." + component
	case contract.ComponentDatabase, contract.ComponentBus:
		return "spec." + component + ".embedded"
	default:
		return ""
	}
}

// withOrigin adds to the API server's refusal of an object which fields of the
// Marketplace to mend, where it is told what is wrong with the object.
func withOrigin(err error, kind, component string) error {
	var status apierrors.APIStatus
	section := sectionOf(component)
	if section == "" || !errors.As(err, &status) || status.Status().Details == nil {
		return err
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		for _, o := range origins {
			if o.kind == kind && strings.HasPrefix(cause.Field, o.prefix) {
				if field := section + "." + o.origin; !slices.Contains(fields, field) {
					fields = append(fields, field)
				}
				break
			}
		}
	}
	if len(fields) == 0 {
		return err
	}
	return fmt.Errorf("mend %s of the Marketplace: %w", strings.Join(fields, ", "), err)
}
