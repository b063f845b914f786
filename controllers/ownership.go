package controllers

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// checkOwned says whether the operator may write object for m. Objects of
// other owners are never taken over.
func checkOwned(m *v1alpha1.Marketplace, kind string, object metav1.Object) error {
	if object.GetDeletionTimestamp() != nil {
		return wait(v1alpha1.ReasonWaiting, "%s %s is being deleted", kind, object.GetName())
	}
	owner := metav1.GetControllerOf(object)
	switch {
	case owner != nil && owner.UID == m.UID:
		return nil
	case owner != nil && owner.Kind == v1alpha1.Kind && owner.Name == m.Name:
		// What an earlier Marketplace of this name left is collected soon.
		return wait(v1alpha1.ReasonWaiting, "%s %s of the earlier Marketplace %s is being deleted",
			kind, object.GetName(), m.Name)
	case owner == nil && isVolumeOf(m, kind, object):
		return nil
	default:
		return stop(v1alpha1.ReasonNameTaken,
			"%s %s exists and belongs to someone else; it is left alone: delete or rename it, or give this Marketplace another name",
			kind, object.GetName())
	}
}

// isVolumeOf says whether object is the database volume of m, which has no
// owner while it is to be kept.
func isVolumeOf(m *v1alpha1.Marketplace, kind string, object metav1.Object) bool {
	labels := object.GetLabels()
	installation := labels[contract.LabelInstallation]
	return kind == kindVolume &&
		labels[contract.LabelMarketplace] == m.Name &&
		installation != "" &&
		(m.Status.Installation == "" || m.Status.Installation == installation)
}
