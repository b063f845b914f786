package controllers_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// Notifications are as good as the Secret that they are signed with; nothing else
// waits for it, and another key rolls nothing.
func TestNotifications(t *testing.T) {
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "messaging: {notifications: {url: 'https://push.example.com/in', secretRef: {name: push}}}")
	const condition = v1alpha1.ConditionNotificationsReady
	w.tells(m, condition, v1alpha1.ReasonSecretMissing, "spec.messaging.notifications.secretRef", "no Secret push ", `with the key "key"`)
	w.eventually("messaging runs without", func() error {
		w.must(w.get("shop", m))
		if !meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionMessagingAvailable) {
			return errors.New("MessagingAvailable is not True")
		}
		return nil
	})
	w.putSecret("push", map[string]string{"other": "hunter2"})
	w.tells(m, condition, v1alpha1.ReasonSecretInvalid, `it has no key "key"`)
	w.putSecret("push", map[string]string{"key": "hunter2"})
	w.tells(m, condition, v1alpha1.ReasonSecretInvalid, "signing key 1 must be whsec_")
	key := func(letter string) string {
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32)))
	}
	w.putSecret("push", map[string]string{"key": key("a")})
	w.awaitReady(m)
	generation := w.generation("shop-messaging")
	w.putSecret("push", map[string]string{"key": key("a") + "\n" + key("b")})
	w.looked()
	w.awaitReady(m)
	if got := w.generation("shop-messaging"); got != generation {
		t.Errorf("messaging was changed: generation %d, before %d", got, generation)
	}
	w.keepsFromPeople(m, "hunter", key("a")[8:])

	w.edit(m, func() { m.Spec.Messaging.Notifications = nil })
	w.awaitReady(m)
	if c := meta.FindStatusCondition(m.Status.Conditions, condition); c != nil {
		t.Errorf("the condition stays: %+v", c)
	}
}
