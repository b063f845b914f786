package desired

import (
	"net/url"
	"strconv"
	"strings"

	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// policyNotifications ends the name of the policy about the webhook.
const policyNotifications = "notifications"

// notifications is what messaging needs for its webhook.
type notifications struct {
	env     []*corev1ac.EnvVarApplyConfiguration
	volumes []*corev1ac.VolumeApplyConfiguration
	mounts  []*corev1ac.VolumeMountApplyConfiguration
}

// webhook is who is told; nil for nobody. The first release tells nobody: see
// Lacks.
func (r renderer) webhook() *v1alpha1.NotificationsSpec {
	if r.in.Release == FirstRelease {
		return nil
	}
	return r.m.Spec.Messaging.Notifications
}

// notifications mounts the user's Secret itself. It is read again for each
// request, so a new key rolls nothing; and it is optional, since a Secret that is
// gone must keep no pod from starting: conversations go on without notifications.
func (r renderer) notifications() notifications {
	spec := r.webhook()
	if spec == nil {
		return notifications{}
	}
	volume := corev1ac.Volume().WithName("notifications").WithSecret(corev1ac.SecretVolumeSource().
		WithSecretName(spec.SecretRef.Name).
		WithOptional(true).
		WithDefaultMode(secretMode).
		WithItems(corev1ac.KeyToPath().
			WithKey(spec.SecretRef.KeyOr(contract.FileNotificationsKey)).
			WithPath(contract.FileNotificationsKey)))
	return notifications{
		env: []*corev1ac.EnvVarApplyConfiguration{
			env(contract.EnvNotificationsURL, string(spec.URL)),
			env(contract.EnvNotificationsKeyFile, contract.MountNotifications+"/"+contract.FileNotificationsKey),
		},
		volumes: []*corev1ac.VolumeApplyConfiguration{volume},
		mounts:  []*corev1ac.VolumeMountApplyConfiguration{mountReadOnly("notifications", contract.MountNotifications)},
	}
}

// notificationsPolicy lets messaging, and no other service, reach the webhook.
func (r renderer) notificationsPolicy() []Object {
	spec := r.webhook()
	if spec == nil {
		return nil
	}
	policy := r.networkPolicy(policyNotifications, contract.ComponentMessaging)
	policy.Spec.WithEgress(webhookEgress(string(spec.URL)))
	return []Object{policy}
}

// webhookEgress leads to the URL's port wherever it is: a policy knows no host
// names. The pods behind a Service may listen on another port than it does, so to
// those of its namespace it leads on every port.
func webhookEgress(address string) *networkingv1ac.NetworkPolicyEgressRuleApplyConfiguration {
	u, err := url.Parse(address)
	if err != nil {
		return egress(443) // the API server takes no such URL
	}
	host := strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), ".cluster.local")
	if service, ok := strings.CutSuffix(host, ".svc"); ok {
		namespace := service[strings.LastIndexByte(service, '.')+1:]
		return networkingv1ac.NetworkPolicyEgressRule().WithTo(fromNamespaces([]string{namespace}))
	}
	port := int32(443)
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		port = int32(n)
	}
	return egress(port)
}
