package controllers

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// keyFacts are the public side of the signing keys.
type keyFacts struct {
	jwks      []byte
	published []publishedKey
}

type publishedKey struct {
	id          string
	activatesAt time.Time
}

// active returns the id of the key that signs at now, or nothing.
func (k keyFacts) active(now time.Time) string {
	var best publishedKey
	for _, key := range k.published {
		if !key.activatesAt.After(now) && (best.id == "" || key.activatesAt.After(best.activatesAt)) {
			best = key
		}
	}
	return best.id
}

// signingKind is the Secret that auth signs with.
func (r *Reconciler) signingKind(names desired.Names) secretKind {
	return secretKind{
		name: names.Signing(), component: contract.ComponentAuth,
		create: r.createSigningKeys,
		keys:   []string{contract.FileSigningKeys, contract.FileRefreshKey},
		read:   readSigningKeys,
	}
}

// readSigningKeys takes down the public side of the signing keys.
func readSigningKeys(secret *corev1.Secret, f *secretFacts) error {
	keys, err := contract.ParseSigningKeys(secret.Data[contract.FileSigningKeys])
	if err != nil {
		return stop(v1alpha1.ReasonSecretInvalid, "Secret %s: %w: %s", secret.Name, err, remedy)
	}
	jwks, err := keys.JWKS()
	if err != nil {
		return fmt.Errorf("derive public keys: %w", err)
	}
	f.keys = &keyFacts{jwks: jwks}
	for _, key := range keys.Keys {
		f.keys.published = append(f.keys.published, publishedKey{id: key.ID, activatesAt: key.ActivatesAt})
	}
	return nil
}

// createSigningKeys makes the first key, which signs at once: nothing has been
// published before that could be cached without it. A minute is left for
// clocks that differ.
func (r *Reconciler) createSigningKeys() (map[string][]byte, error) {
	key, err := contract.NewSigningKey(r.Now().Add(-time.Minute))
	if err != nil {
		return nil, err
	}
	document, err := contract.SigningKeys{Keys: []contract.SigningKey{key}}.Marshal()
	if err != nil {
		return nil, err
	}
	refresh := make([]byte, 32)
	if _, err := rand.Read(refresh); err != nil {
		return nil, err
	}
	return map[string][]byte{
		contract.FileSigningKeys: document,
		contract.FileRefreshKey:  []byte(base64.StdEncoding.EncodeToString(refresh)),
	}, nil
}
