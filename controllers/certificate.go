package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// certificateFacts are what is remembered of the Secret with the certificate
// of exposure.ingress.tls. The key is not among them.
type certificateFacts struct {
	name            string
	uid             types.UID
	resourceVersion string
	// leaf is the certificate itself, nil where problem says why there is none.
	leaf    *x509.Certificate
	problem string
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
	if err == nil && !mem.certificate.are(head) {
		secret := &corev1.Secret{}
		if err = r.Live.Get(ctx, key, secret); err == nil {
			mem.certificate = certificateIn(secret)
		}
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
	state := mem.certificate.stateFor(m.Spec.Exposure.Hostname, seen.at)
	seen.certificate = &state
	return nil
}

// are says whether the facts are those of this very version of a Secret.
func (c certificateFacts) are(head *metav1.PartialObjectMetadata) bool {
	return c.name == head.Name && c.uid == head.UID && c.resourceVersion == head.ResourceVersion
}

func certificateIn(secret *corev1.Secret) certificateFacts {
	c := certificateFacts{name: secret.Name, uid: secret.UID, resourceVersion: secret.ResourceVersion}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[key]) == 0 {
			c.problem = fmt.Sprintf("has no key %s; it must be one of type %s", key, corev1.SecretTypeTLS)
			return c
		}
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		// What it says may quote the key.
		c.problem = fmt.Sprintf("holds no certificate with its private key, in PEM, under %s and %s", corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
		return c
	}
	c.leaf = pair.Leaf
	return c
}

// stateFor says whether clients of a host take the certificate at a time. Who
// signed it is theirs to judge: they may know an authority that the operator
// does not.
func (c certificateFacts) stateFor(hostname string, now time.Time) state {
	problem := c.problem
	if problem == "" {
		switch err := c.leaf.VerifyHostname(hostname); {
		case err != nil:
			problem = fmt.Sprintf("holds no certificate for %s: %s", hostname, err)
		case now.After(c.leaf.NotAfter):
			problem = "holds a certificate that expired at " + c.leaf.NotAfter.UTC().Format(time.RFC3339)
		case now.Before(c.leaf.NotBefore):
			problem = "holds a certificate that counts only from " + c.leaf.NotBefore.UTC().Format(time.RFC3339)
		}
	}
	if problem != "" {
		return notYet(v1alpha1.ReasonSecretInvalid, "exposure.ingress.tls.secretName: Secret %s %s", c.name, problem)
	}
	return ready("the certificate is there")
}
