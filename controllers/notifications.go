package controllers

import (
	"context"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// observeNotifications looks whether the Secret that notifications are signed
// with can be used. It is read again only when it has changed. Nothing else waits
// for it: messaging runs without.
func (r *Reconciler) observeNotifications(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation) error {
	spec := m.Spec.Messaging.Notifications
	if spec == nil {
		mem.notifications = sourceFacts{}
		return nil
	}
	ref := secretRef{
		"spec.messaging.notifications.secretRef", spec.SecretRef.Name, spec.SecretRef.KeyOr(contract.FileNotificationsKey),
	}
	id, err := r.versionsOf(ctx, m, ref)
	if err != nil {
		return err
	}
	if mem.notifications.id != id {
		facts := sourceFacts{id: id}
		if facts.problem, err = problemOf(r.checkSigningKeys(ctx, m, ref)); err != nil {
			return err
		}
		mem.notifications = facts
	}
	found := ready("the signing keys are there")
	if p := mem.notifications.problem; p != nil {
		found = notYet(p.reason, "%s", p.Error())
		found.stalled = true
	}
	seen.notifications = &found
	return nil
}

func (r *Reconciler) checkSigningKeys(ctx context.Context, m *v1alpha1.Marketplace, ref secretRef) error {
	content, err := r.readKey(ctx, m, ref)
	if err != nil {
		return err
	}
	if _, err := contract.ParseWebhookKeys(content); err != nil {
		return ref.invalid("the key %q: %w", ref.key, err)
	}
	return nil
}
