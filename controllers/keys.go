package controllers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/metrics"
	"github.com/marketplane/marketplane/controllers/rotation"
)

const (
	// keyWriteTimeout bounds how long a new key is on its way: its activation
	// time counts from the moment when it was decided on.
	keyWriteTimeout = 10 * time.Second
	// lateRotation is how long after its time a rotation is called overdue.
	lateRotation = 10 * time.Minute
	// maxRequest bounds a request to rotate as it is remembered, in bytes.
	maxRequest = 64
)

// keyFacts are the public side of the signing keys.
type keyFacts struct {
	jwks []byte
	// keys in the order of the document.
	keys []rotation.Key
	// answered is the request to rotate that was answered last. It is written
	// together with the keys that answer it, so that no request is answered twice.
	answered string
}

// signingKind is the Secret that auth signs with. The first key answers the
// request that stands there already.
func (r *Reconciler) signingKind(m *v1alpha1.Marketplace) secretKind {
	return secretKind{
		name: desired.NamesOf(m).Signing(), component: contract.ComponentAuth,
		create:      r.createSigningKeys,
		annotations: answeredAnnotation(rotateRequest(m)),
		keys:        []string{contract.FileSigningKeys, contract.FileRefreshKey},
		read:        readSigningKeys,
	}
}

// createSigningKeys makes the first key, which signs at once: nothing has been
// published before that could be cached without it.
func (r *Reconciler) createSigningKeys() (map[string][]byte, error) {
	key, err := contract.NewSigningKey(r.Now().Add(-rotation.AtOnce))
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
	f.keys = &keyFacts{jwks: jwks, answered: secret.Annotations[v1alpha1.AnnotationRotateKeys]}
	for _, key := range keys.Keys {
		f.keys.keys = append(f.keys.keys, rotation.Key{ID: key.ID, ActivatesAt: key.ActivatesAt})
	}
	return nil
}

// rotateRequest is the request to rotate that stands on m, cut to what can be
// remembered of it.
func rotateRequest(m *v1alpha1.Marketplace) string {
	value := m.Annotations[v1alpha1.AnnotationRotateKeys]
	if len(value) <= maxRequest {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return head(value, maxRequest/2) + hex.EncodeToString(sum[:])[:maxRequest/4]
}

// answeredAnnotation remembers a request on the Secret.
func answeredAnnotation(request string) map[string]string {
	if request == "" {
		return nil
	}
	return map[string]string{v1alpha1.AnnotationRotateKeys: request}
}

func (r *Reconciler) planKeys(m *v1alpha1.Marketplace, facts *keyFacts) *rotation.Plan {
	spec := m.Spec.Auth.KeyRotation.OrDefault()
	p := rotation.Decide(rotation.Input{
		Keys:   facts.keys,
		Policy: rotation.Policy{Period: spec.Period.Duration, Overlap: spec.Overlap.Duration},
		Wanted: rotateRequest(m), Answered: facts.answered,
		Now: r.Now(),
	})
	return &p
}

// rotateKeys makes and retires signing keys where that is due, and puts into
// seen what has become of them.
func (r *Reconciler) rotateKeys(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation) error {
	name := desired.NamesOf(m).Signing()
	facts := seen.secrets[name]
	if facts.keys == nil {
		return nil
	}
	p := r.planKeys(m, facts.keys)
	seen.rotation = p
	if m.Spec.Paused || p.Make == nil && len(p.Retire) == 0 && p.Answered == facts.keys.answered {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keyWriteTimeout)
	defer cancel()
	written, err := r.writeKeys(ctx, m, mem, *seen, facts, p)
	if err != nil {
		// It may have been written all the same: it is read again before the
		// public keys are published anew.
		seen.keysUnsettled = true
		facts.resourceVersion = ""
		mem.secrets[name] = facts
		return err
	}
	seen.secrets[name], mem.secrets[name] = written, written
	seen.rotation = r.planKeys(m, written.keys)
	return nil
}

// writeKeys carries a plan out. The public keys go first: whatever happens then,
// no key is in the Secret that verifiers have not been told of. The Secret is
// changed only if it is still the one that was planned on, and only its
// document: the refresh key is not sent.
func (r *Reconciler) writeKeys(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation, planned secretFacts, p *rotation.Plan) (secretFacts, error) {
	key := types.NamespacedName{Namespace: m.Namespace, Name: desired.NamesOf(m).Signing()}
	secret := &corev1.Secret{}
	if err := r.Live.Get(ctx, key, secret); err != nil {
		return secretFacts{}, fmt.Errorf("read Secret %s: %w", key, err)
	}
	if secret.UID != planned.uid || secret.ResourceVersion != planned.resourceVersion {
		return secretFacts{}, fmt.Errorf("rotate keys: %w", apierrors.NewConflict(
			corev1.Resource("secrets"), key.Name, errors.New("it was changed since it was looked at")))
	}
	keys, err := contract.ParseSigningKeys(secret.Data[contract.FileSigningKeys])
	if err != nil {
		return secretFacts{}, fmt.Errorf("read Secret %s: %w", key, err)
	}
	keys.Keys = slices.DeleteFunc(keys.Keys, func(k contract.SigningKey) bool {
		return slices.ContainsFunc(p.Retire, func(r rotation.Retirement) bool { return r.ID == k.ID })
	})
	made := contract.SigningKey{}
	if p.Make != nil {
		if made, err = contract.NewSigningKey(p.Make.ActivatesAt); err != nil {
			return secretFacts{}, err
		}
		keys.Keys = append(keys.Keys, made)
	}

	before := secret.DeepCopy()
	if p.Make != nil || len(p.Retire) > 0 {
		jwks, err := keys.JWKS()
		if err != nil {
			return secretFacts{}, fmt.Errorf("derive public keys: %w", err)
		}
		if err := r.applyObject(ctx, m, mem, seen, desired.PublicKeys(m, desired.Inputs{JWKS: jwks}), size{}); err != nil {
			return secretFacts{}, err
		}
		if secret.Data[contract.FileSigningKeys], err = keys.Marshal(); err != nil {
			return secretFacts{}, fmt.Errorf("write signing keys: %w", err)
		}
	}
	delete(secret.Annotations, v1alpha1.AnnotationRotateKeys)
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	maps.Copy(secret.Annotations, answeredAnnotation(p.Answered))
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, secret, patch, client.FieldOwner(FieldOwner)); err != nil {
		return secretFacts{}, classify(err, "Secret "+key.Name)
	}
	r.Changes.Count("Secret", metrics.Updated)
	r.tellRotation(m, secret, made, p)
	return factsOf(secret, r.signingKind(m))
}

// tellRotation says in Events what was done about the keys. Ids are public.
func (r *Reconciler) tellRotation(m *v1alpha1.Marketplace, secret *corev1.Secret, made contract.SigningKey, p *rotation.Plan) {
	tell := func(reason, format string, args ...any) {
		r.event(m, secret, corev1.EventTypeNormal, reason, format, args...)
	}
	if p.Make != nil {
		tell("KeyMade", "auth: key %s is published, and signs from %s on: %s", made.ID, date(made.ActivatesAt), p.Make.Reason)
	}
	var retired string
	for _, k := range p.Retire {
		retired += fmt.Sprintf("; key %s is not published any more: %s", k.ID, k.Reason)
	}
	if retired != "" {
		tell("KeyRetired", "auth: %s", retired[len("; "):])
	}
	if p.Answer != "" {
		tell("NoKeyMade", "auth: %s", p.Answer)
	}
}

// tellActiveKey says in an Event that another key signs than the status told
// before.
func (r *Reconciler) tellActiveKey(m *v1alpha1.Marketplace, before *v1alpha1.KeysStatus) {
	now := m.Status.Keys
	if now == nil || now.Active == "" || before != nil && before.Active == now.Active {
		return
	}
	r.event(m, m, corev1.EventTypeNormal, "KeyActive", "auth: key %s signs", now.Active)
}

// keysStatus tells of the keys; they are published in the order of their
// activation.
func keysStatus(p *rotation.Plan, answered string) *v1alpha1.KeysStatus {
	next := timestamp(p.NextRotation)
	s := &v1alpha1.KeysStatus{Active: p.Signer, NextRotation: &next, RotateRequest: answered}
	for _, slot := range p.Schedule {
		scheduled := v1alpha1.ScheduledKey{ID: slot.ID, ActivatesAt: timestamp(slot.ActivatesAt)}
		if !slot.RetiresAt.IsZero() {
			at := timestamp(slot.RetiresAt)
			scheduled.RetiresAt = &at
		}
		s.Published = append(s.Published, slot.ID)
		s.Schedule = append(s.Schedule, scheduled)
	}
	return s
}

func keysState(m *v1alpha1.Marketplace, seen observation) state {
	names := desired.NamesOf(m)
	keys, p := seen.keys(names), seen.rotation
	if !seen.secretsKnown {
		return state{
			reason: v1alpha1.ReasonWaiting, unknown: true, pending: true,
			message: "the signing keys could not be looked at: see the other conditions",
		}
	}
	if keys == nil || p == nil {
		return notYet(v1alpha1.ReasonWaiting, "Secret %s with the signing keys is not there yet, or damaged", names.Signing())
	}
	published, ok := seen.objects[objectKey{kindConfigMap, names.JWKS()}].(*corev1.ConfigMap)
	switch {
	case !ok || published.Data[contract.FileJWKS] != string(keys.jwks):
		return notYet(v1alpha1.ReasonProgressing, "the public keys are being published")
	case p.Signer == "" && p.Trouble != "":
		return notYet(v1alpha1.ReasonRotationOverdue, "%s", p.Trouble)
	case p.Signer == "":
		return notYet(v1alpha1.ReasonWaiting, "no key signs before %s", date(p.Due))
	case m.Spec.Paused && p.Late > 0:
		return ready("key %s signs; the next was due at %s, and is not made while spec.paused is set", p.Signer, date(p.NextRotation))
	case p.Trouble != "":
		return notYet(v1alpha1.ReasonRotationOverdue, "key %s signs; the next is not made: %s", p.Signer, p.Trouble)
	case p.Late > lateRotation:
		return notYet(v1alpha1.ReasonRotationOverdue, "key %s signs; the next was due at %s", p.Signer, date(p.NextRotation))
	case p.Held != "":
		return ready("key %s signs; %s", p.Signer, p.Held)
	}
	if newest := p.Schedule[len(p.Schedule)-1]; newest.ActivatesAt.Equal(p.Due) {
		return ready("key %s signs; key %s is published and signs from %s on", p.Signer, newest.ID, date(newest.ActivatesAt))
	}
	return ready("key %s signs; the next is made at %s", p.Signer, date(p.NextRotation))
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
