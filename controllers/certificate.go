package controllers

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// certificateFacts are what is remembered of the Secret with the certificate.
type certificateFacts struct {
	name, hostname  string
	uid             types.UID
	resourceVersion string
	// state is what can be told without a clock.
	state state
	// from and until are when it is valid.
	from, until time.Time
}

// at is the state at a time.
func (f certificateFacts) at(now time.Time) state {
	const field = "exposure.ingress.tls.secretName"
	switch {
	case !f.state.ok:
		return f.state
	case now.Before(f.from):
		return notYet(v1alpha1.ReasonSecretInvalid,
			"%s: the certificate in Secret %s is valid from %s only", field, f.name, f.from.UTC().Format(time.RFC3339))
	case !now.Before(f.until):
		return notYet(v1alpha1.ReasonSecretInvalid,
			"%s: the certificate in Secret %s expired at %s: renew it", field, f.name, f.until.UTC().Format(time.RFC3339))
	default:
		return f.state
	}
}

// due is when the clock alone changes the state; zero where it will not.
func (f certificateFacts) due(now time.Time) time.Time {
	switch {
	case !f.state.ok || !now.Before(f.until):
		return time.Time{}
	case now.Before(f.from):
		return f.from
	default:
		return f.until
	}
}

// observeCertificate looks whether the Secret of exposure.ingress.tls can be
// used. It is read again only when it has changed.
func (r *Reconciler) observeCertificate(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation) error {
	if m.Spec.Exposure == nil || m.Spec.Exposure.Ingress == nil || m.Spec.Exposure.Ingress.TLS == nil {
		return nil
	}
	key := types.NamespacedName{Namespace: m.Namespace, Name: m.Spec.Exposure.Ingress.TLS.SecretName}
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.Client.Get(ctx, key, head)
	known := mem.certificate
	if err != nil || known.name != key.Name || known.hostname != m.Spec.Exposure.Hostname ||
		known.uid != head.UID || known.resourceVersion != head.ResourceVersion {
		secret := &corev1.Secret{}
		if err == nil {
			err = r.Live.Get(ctx, key, secret)
		}
		if apierrors.IsNotFound(err) {
			missing := notYet(v1alpha1.ReasonSecretMissing,
				"exposure.ingress.tls.secretName: there is no Secret %s yet: make it, with type %s, or let a certificate controller do so",
				key.Name, corev1.SecretTypeTLS)
			seen.certificate = &missing
			return nil
		}
		if err != nil {
			return fmt.Errorf("look up Secret %s: %w", key, err)
		}
		known = readCertificate(secret, m.Spec.Exposure.Hostname)
		mem.certificate = known
	}
	now := known.at(seen.at)
	seen.certificate, seen.certificateDue = &now, known.due(seen.at)
	return nil
}

// readCertificate takes down what is to be known of a certificate for hostname.
// Who signed it is for clients to judge.
func readCertificate(secret *corev1.Secret, hostname string) certificateFacts {
	f := certificateFacts{name: secret.Name, hostname: hostname, uid: secret.UID, resourceVersion: secret.ResourceVersion}
	invalid := func(format string, args ...any) certificateFacts {
		f.state = notYet(v1alpha1.ReasonSecretInvalid,
			"exposure.ingress.tls.secretName: Secret %s %s", secret.Name, fmt.Sprintf(format, args...))
		return f
	}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[key]) == 0 {
			return invalid("has no key %s; it must be one of type %s", key, corev1.SecretTypeTLS)
		}
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		// What it says may quote the key.
		return invalid("must hold a certificate (%s) and its private key (%s), in PEM", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	if err := pair.Leaf.VerifyHostname(hostname); err != nil {
		return invalid("has a certificate that is not for exposure.hostname: %s", err.Error())
	}
	f.from, f.until = pair.Leaf.NotBefore, pair.Leaf.NotAfter
	f.state = ready("the certificate is there")
	return f
}
