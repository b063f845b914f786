package controllers

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sort"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/metrics"
)

// secretFacts is what is remembered of a Secret; nothing in it is secret.
type secretFacts struct {
	uid             types.UID
	resourceVersion string
	// fingerprint is a digest of its contents, which are random enough that
	// nobody guesses them from it; while it is pending, of those that it shall
	// have.
	fingerprint string
	// pending: what is derived in it is renewed after the migration.
	pending bool
	// source is the kind's, at the time when the Secret was as it says.
	source string
	// keys are set for the signing keys.
	keys *keyFacts
	// ports are those of a database's URL.
	ports []int32
}

// secretKind is a Secret that the operator makes once. What is random in it is
// never overwritten; what is derived follows what it is derived from.
type secretKind struct {
	name      string
	component string
	// create makes the first contents.
	create func() (map[string][]byte, error)
	// annotations that it is made with.
	annotations map[string]string
	// keys must be there and not be empty.
	keys []string
	// derive, unless nil, completes or renews what follows from elsewhere. It is
	// called for each new Secret, and again when source changes.
	derive func(ctx context.Context, data map[string][]byte) error
	source string
	// afterMigration says that what is derived in a Secret that exists is renewed
	// once the migration has succeeded, and not before: pods that run, and those
	// that take their place meanwhile, go on with what they have.
	afterMigration bool
	// read takes down what is to be known of the contents, nil where that is
	// nothing beyond their fingerprint.
	read func(*corev1.Secret, *secretFacts) error
}

// secretKinds are the Secrets of a Marketplace. external is nil where the
// database is embedded.
func (r *Reconciler) secretKinds(m *v1alpha1.Marketplace, installation string, external *databaseSource) []secretKind {
	names := desired.NamesOf(m)
	kinds := []secretKind{
		r.signingKind(m),
		databaseLogin(names, names.DatabaseAdmin(), contract.ComponentDatabase, desired.DatabaseSuperuser, external),
	}
	if m.Spec.Bus.External == nil {
		kinds = append(kinds, secretKind{
			name: names.Bus(), component: contract.ComponentBus,
			create: createToken,
			keys:   []string{contract.FileBusToken},
		})
	}
	for _, service := range contract.Services() {
		role := contract.DatabaseRole(installation, service)
		kind := databaseLogin(names, names.DatabaseRole(service), service, role, external)
		kind.afterMigration = true
		kinds = append(kinds, kind)
	}
	if m.Spec.Paused {
		for i := range kinds {
			kinds[i].source += ", paused" // Nothing is renewed until it is not.
		}
	}
	return kinds
}

// databaseLogin is the Secret of a role. Its password is made once, and stays
// the same whatever server the URL names. Beside the URL of an external
// database's administrator it is that of the embedded one's, of no use there
// but to keep the Secret's fingerprint from telling whether a guess at the
// user's password is right.
func databaseLogin(names desired.Names, name, component, role string, external *databaseSource) secretKind {
	kind := secretKind{
		name: name, component: component,
		create: createPassword,
		keys:   []string{contract.FilePassword},
		read: func(secret *corev1.Secret, f *secretFacts) error {
			f.ports = portsOf(secret.Data[contract.FileDatabaseURL])
			return nil
		},
	}
	if external == nil {
		kind.source = "embedded " + role
		kind.derive = func(_ context.Context, data map[string][]byte) error {
			data[contract.FileDatabaseURL] = []byte(names.DatabaseURL(role, string(data[contract.FilePassword])))
			delete(data, contract.FileCA)
			return nil
		}
		return kind
	}
	if role == desired.DatabaseSuperuser {
		role = "" // The URL names the administrator.
	}
	kind.source = "external " + role + " " + external.facts.id
	kind.derive = external.derive(role)
	return kind
}

// ensureSecrets makes the Secrets that are missing and puts facts about all into
// what is seen. Only Secrets that changed since the last time are read.
func (r *Reconciler) ensureSecrets(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation, external *databaseSource) error {
	var errs []error
	for _, kind := range r.secretKinds(m, seen.installation, external) {
		if kind.derive != nil && external != nil && external.unread {
			// It stays as it is until it is known what it follows from.
			if known, ok := mem.secrets[kind.name]; ok {
				seen.secrets[kind.name] = known
			}
			continue
		}
		f, err := r.ensureSecret(ctx, m, mem, kind)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen.secrets[kind.name] = f
		if f.pending {
			seen.pending = append(seen.pending, kind)
		}
	}
	mem.secrets = seen.secrets
	return errors.Join(errs...)
}

func (r *Reconciler) ensureSecret(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, kind secretKind) (secretFacts, error) {
	key := types.NamespacedName{Namespace: m.Namespace, Name: kind.name}

	// The cache holds metadata alone.
	head := &metav1.PartialObjectMetadata{}
	head.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.Client.Get(ctx, key, head)
	if client.IgnoreNotFound(err) != nil {
		return secretFacts{}, fmt.Errorf("look up Secret %s: %w", key, err)
	}
	known, ok := mem.secrets[kind.name]
	if err == nil && ok && known.uid == head.UID && known.resourceVersion == head.ResourceVersion &&
		known.source == kind.source && head.DeletionTimestamp == nil {
		return known, nil
	}

	var secret *corev1.Secret
	if err != nil && !ok && !m.Spec.Paused {
		// Refused where it is there, and the cache does not know it yet.
		secret, err = r.createSecret(ctx, m, kind, metrics.Created)
		if p, _ := problemOf(err); p == nil && err != nil && !apierrors.IsAlreadyExists(err) {
			return secretFacts{}, classify(err, "Secret "+kind.name)
		}
	}
	if secret == nil {
		if secret, err = r.readSecret(ctx, m, kind, key); err != nil {
			return secretFacts{}, err
		}
	}
	if err := checkOwned(m, "Secret", secret); err != nil {
		return secretFacts{}, err
	}
	renewed, err := r.renewed(ctx, m, kind, secret)
	if err != nil {
		return secretFacts{}, err
	}
	if renewed != nil && !kind.afterMigration {
		if err := r.renewSecret(ctx, m, secret, renewed); err != nil {
			return secretFacts{}, err
		}
	}
	f, err := factsOf(secret, kind)
	if renewed != nil && kind.afterMigration {
		f.fingerprint, f.pending = fingerprint(renewed), true
	}
	return f, err
}

// renewed returns the contents that a Secret shall have, nil where it has them.
// While what they are derived from cannot be used, they stay as they are, for
// those who use them.
func (r *Reconciler) renewed(ctx context.Context, m *v1alpha1.Marketplace, kind secretKind, secret *corev1.Secret) (map[string][]byte, error) {
	for _, key := range kind.keys {
		if len(secret.Data[key]) == 0 {
			return nil, nil // It is damaged, and reported as that.
		}
	}
	if kind.derive == nil || m.Spec.Paused {
		return nil, nil
	}
	data := maps.Clone(secret.Data)
	problem, err := problemOf(kind.derive(ctx, data))
	if err != nil {
		return nil, fmt.Errorf("derive Secret %s: %w", secret.Name, err)
	}
	if problem != nil || maps.EqualFunc(secret.Data, data, bytes.Equal) {
		return nil, nil //nolint:nilerr // The problem is reported where it was found.
	}
	return data, nil
}

func (r *Reconciler) renewSecret(ctx context.Context, m *v1alpha1.Marketplace, secret *corev1.Secret, data map[string][]byte) error {
	patch := client.MergeFromWithOptions(secret.DeepCopy(), client.MergeFromWithOptimisticLock{})
	secret.Data = data
	if err := r.Client.Patch(ctx, secret, patch, client.FieldOwner(FieldOwner)); err != nil {
		return classify(err, "Secret "+secret.Name)
	}
	r.Changes.Count("Secret", metrics.Updated)
	r.event(m, secret, corev1.EventTypeNormal, "Updated", "Secret %s: leads to the database that the spec names now", secret.Name)
	return nil
}

// renewPending renews the Secrets that waited for the migration, once it has
// succeeded for just what they shall hold.
func (r *Reconciler) renewPending(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen observation) error {
	for _, kind := range seen.pending {
		known := seen.secrets[kind.name]
		secret := &corev1.Secret{}
		key := types.NamespacedName{Namespace: m.Namespace, Name: kind.name}
		if err := r.Live.Get(ctx, key, secret); err != nil {
			return fmt.Errorf("read Secret %s: %w", key, err)
		}
		data, err := r.renewed(ctx, m, kind, secret)
		if err != nil {
			return err
		}
		if secret.UID != known.uid || data == nil || fingerprint(data) != known.fingerprint {
			return wait(v1alpha1.ReasonWaiting, "Secret %s, or what it is derived from, has just changed", kind.name)
		}
		if err := r.renewSecret(ctx, m, secret, data); err != nil {
			return err
		}
		if mem.secrets[kind.name], err = factsOf(secret, kind); err != nil {
			return err
		}
	}
	return nil
}

// readSecret returns a Secret as it is now, or makes it.
func (r *Reconciler) readSecret(ctx context.Context, m *v1alpha1.Marketplace, kind secretKind, key types.NamespacedName) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Live.Get(ctx, key, secret)
	switch {
	case err == nil:
		return secret, nil
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read Secret %s: %w", key, err)
	case m.Spec.Paused:
		return nil, wait(v1alpha1.ReasonPaused, "Secret %s is missing and is not made while spec.paused is set", kind.name)
	}
	secret, err = r.createSecret(ctx, m, kind, metrics.Repaired)
	return secret, classify(err, "Secret "+kind.name)
}

// createSecret makes a Secret, and counts that as change; the error is the API
// server's own.
func (r *Reconciler) createSecret(ctx context.Context, m *v1alpha1.Marketplace, kind secretKind, change metrics.Change) (*corev1.Secret, error) {
	data, err := kind.create()
	if err != nil {
		return nil, fmt.Errorf("make Secret %s: %w", kind.name, err)
	}
	if kind.derive != nil {
		if err := kind.derive(ctx, data); err != nil {
			return nil, err
		}
	}
	yes := true
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:        kind.name,
			Namespace:   m.Namespace,
			Labels:      desired.Labels(m, kind.component),
			Annotations: kind.annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(),
				Kind:       v1alpha1.Kind,
				Name:       m.Name,
				UID:        m.UID,
				Controller: &yes, BlockOwnerDeletion: &yes,
			}},
		},
		Type: corev1.SecretTypeOpaque,
		Data: data,
	}
	if err := r.Client.Create(ctx, secret, client.FieldOwner(FieldOwner)); err != nil {
		return nil, err
	}
	r.Changes.Count("Secret", change)
	// That a new Marketplace gets its Secrets needs no Event.
	if m.Status.Installation != "" {
		r.event(m, secret, corev1.EventTypeNormal, "Created", "Secret %s: created", kind.name)
	}
	return secret, nil
}

// remedy is what to do about a damaged Secret.
const remedy = "restore it, or delete the Secret to have a new one made"

// factsOf checks a Secret and takes down what may be remembered of it.
func factsOf(secret *corev1.Secret, kind secretKind) (secretFacts, error) {
	for _, key := range kind.keys {
		if len(secret.Data[key]) == 0 {
			return secretFacts{}, stop(v1alpha1.ReasonSecretInvalid, "Secret %s has no key %q: %s", secret.Name, key, remedy)
		}
	}
	f := secretFacts{uid: secret.UID, resourceVersion: secret.ResourceVersion, fingerprint: fingerprint(secret.Data), source: kind.source}
	if kind.read == nil {
		return f, nil
	}
	if err := kind.read(secret, &f); err != nil {
		return secretFacts{}, err
	}
	return f, nil
}

func createPassword() (map[string][]byte, error) {
	password, err := randomText()
	return map[string][]byte{contract.FilePassword: []byte(password)}, err
}

func createToken() (map[string][]byte, error) {
	token, err := randomText()
	return map[string][]byte{contract.FileBusToken: []byte(token)}, err
}

// randomText is 256 random bits in characters that need no quoting anywhere.
func randomText() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

func fingerprint(data map[string][]byte) string {
	keys := make([]string, 0, len(data))
	for key := range data {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	h := sha256.New()
	for _, key := range keys {
		fmt.Fprintf(h, "%d:%s%d:", len(key), key, len(data[key]))
		h.Write(data[key])
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
