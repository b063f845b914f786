package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/databaseurl"
	"github.com/marketplane/marketplane/controllers/desired"
	"github.com/marketplane/marketplane/controllers/reach"
)

// external is what is known of a server that someone else runs.
type external struct {
	// problem says why what the spec names cannot be used; nil where it can.
	problem *problem
	// found is what the last look at the server found; looked says that there
	// was one.
	found  reach.Result
	looked bool
}

// state is the condition about the server; e is nil where it could not even be
// looked what the spec names.
func (e *external) state() state {
	switch {
	case e == nil:
		s := notYet(v1alpha1.ReasonProgressing, "it has not been looked at yet")
		s.pending = true
		return s
	case e.problem != nil:
		s := notYet(e.problem.reason, "%s", e.problem.Error())
		s.stalled = true
		return s
	case !e.looked:
		s := notYet(v1alpha1.ReasonProgressing, "it has not been looked at yet")
		s.pending = true
		return s
	case e.found.OK():
		return ready("%s", e.found.Message)
	default:
		s := notYet(e.found.Reason, "%s", e.found.Message)
		s.stalled = needsSomeone(e.found.Reason)
		return s
	}
}

// needsSomeone says whether what is wrong with an external server stays so
// until someone acts.
func needsSomeone(reason string) bool {
	switch reason {
	case v1alpha1.ReasonSecretMissing, v1alpha1.ReasonSecretInvalid,
		v1alpha1.ReasonAuthenticationFailed, v1alpha1.ReasonUnsupported:
		return true
	default:
		return false
	}
}

// sourceFacts is what is remembered of the user's Secrets behind one section of
// the spec; nothing in it is secret.
type sourceFacts struct {
	// id names the Secrets' versions and what the spec says about them. While it
	// is the same, so is all that follows from them.
	id      string
	problem *problem
}

// What the prober tells a Marketplace's two targets apart by.
const (
	concernDatabase = "database"
	concernBus      = "bus"
)

func proberOwner(m types.NamespacedName, concern string) reach.Owner {
	return reach.Owner{Marketplace: m, Concern: concern}
}

// forgetExternal ends the looks at the servers of a Marketplace that has gone.
func (r *Reconciler) forgetExternal(m types.NamespacedName) {
	r.prober.Forget(proberOwner(m, concernDatabase))
	r.prober.Forget(proberOwner(m, concernBus))
}

// databaseSource is the external database that the spec names. Its Secrets are
// read when what they say is needed; what is kept of them, the prober keeps, to
// look at the server.
type databaseSource struct {
	r      *Reconciler
	m      *v1alpha1.Marketplace
	facts  sourceFacts
	server *databaseurl.Server
	ca     []byte
	// unread: it could not be looked what the Secrets say.
	unread bool
}

// observeDatabase looks whether what the spec names as external database can
// be used, and what is known of the server. It returns nil for an embedded one,
// and an unread source with an error.
func (r *Reconciler) observeDatabase(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation) (*databaseSource, error) {
	owner := proberOwner(client.ObjectKeyFromObject(m), concernDatabase)
	spec := m.Spec.Database.External
	if spec == nil {
		r.prober.Forget(owner)
		mem.database = sourceFacts{}
		return nil, nil
	}
	s := &databaseSource{r: r, m: m, unread: true}
	id, err := r.versionsOf(ctx, m, databaseRefs(spec)...)
	if err != nil {
		return s, err
	}
	if spec.TLS != nil {
		id += " mode " + string(spec.TLS.Mode)
	}
	s.facts.id = id
	if mem.database.id == id {
		s.facts = mem.database
	} else if err := s.load(ctx); err != nil {
		return s, err
	} else {
		mem.database = s.facts
		if s.facts.problem != nil {
			r.prober.Forget(owner)
		} else {
			r.prober.Watch(owner, reach.Database{Server: *s.server, CA: s.ca, Namespace: m.Namespace})
		}
	}
	s.unread = false
	seen.database = &external{problem: s.facts.problem}
	seen.database.found, seen.database.looked = r.prober.Last(owner)
	return s, nil
}

// secretRef is one key of a Secret that a field of the spec names.
type secretRef struct {
	field string
	name  string
	key   string
}

func databaseRefs(spec *v1alpha1.ExternalDatabase) []secretRef {
	refs := []secretRef{{
		"spec.database.external.urlSecretRef", spec.URLSecretRef.Name, spec.URLSecretRef.KeyOr(contract.FileDatabaseURL),
	}}
	if spec.TLS != nil && spec.TLS.CASecretRef != nil {
		refs = append(refs, secretRef{
			"spec.database.external.tls.caSecretRef", spec.TLS.CASecretRef.Name, spec.TLS.CASecretRef.KeyOr(contract.FileCA),
		})
	}
	return refs
}

// load reads the Secrets, unless it has.
func (s *databaseSource) load(ctx context.Context) error {
	if s.server != nil || s.facts.problem != nil {
		return nil //nolint:nilerr // A problem is what was found, not a failure to look.
	}
	err := s.read(ctx)
	s.facts.problem, err = problemOf(err)
	return err
}

func (s *databaseSource) read(ctx context.Context) error {
	spec := s.m.Spec.Database.External
	refs := databaseRefs(spec)
	raw, err := s.r.readKey(ctx, s.m, refs[0])
	if err != nil {
		return err
	}
	if len(refs) > 1 {
		if s.ca, err = s.r.readKey(ctx, s.m, refs[1]); err != nil {
			return err
		}
		if err := checkCertificates(refs[1], s.ca); err != nil {
			return err
		}
	}
	server, err := databaseurl.Parse(string(raw), spec.TLS)
	if err != nil {
		return refs[0].invalid("the URL cannot be used: %w", err)
	}
	s.server = &server
	return nil
}

// derive completes a Secret of our own: data holds a password, and gets a URL
// and, where the spec names some, the certificates to verify the server with.
func (s *databaseSource) derive(role string) func(context.Context, map[string][]byte) error {
	return func(ctx context.Context, data map[string][]byte) error {
		if err := s.load(ctx); err != nil {
			return err
		}
		if s.facts.problem != nil {
			return s.facts.problem
		}
		const caFile = contract.MountDatabase + "/" + contract.FileCA
		if role == "" {
			data[contract.FileDatabaseURL] = []byte(s.server.AdminURL(caFile))
		} else {
			data[contract.FileDatabaseURL] = []byte(s.server.RoleURL(role, string(data[contract.FilePassword]), caFile))
		}
		delete(data, contract.FileCA)
		if len(s.ca) > 0 {
			data[contract.FileCA] = s.ca
		}
		return nil
	}
}

// observeBus looks whether what the spec names as external bus can be used, and
// what is known of the servers.
func (r *Reconciler) observeBus(ctx context.Context, m *v1alpha1.Marketplace, mem *memory, seen *observation) error {
	owner := proberOwner(client.ObjectKeyFromObject(m), concernBus)
	spec := m.Spec.Bus.External
	if spec == nil {
		r.prober.Forget(owner)
		mem.bus = sourceFacts{}
		return nil
	}
	id, err := r.versionsOf(ctx, m, busRefs(spec)...)
	if err != nil {
		return err
	}
	id += " at " + strings.Join(desired.BusURLs(*spec), ",") + " as " + seen.installation
	if mem.bus.id != id {
		target, err := r.loadBus(ctx, m, seen.installation)
		facts := sourceFacts{id: id}
		if facts.problem, err = problemOf(err); err != nil {
			return err
		}
		mem.bus = facts
		if facts.problem != nil {
			r.prober.Forget(owner)
		} else {
			r.prober.Watch(owner, target)
		}
	}
	seen.bus = &external{problem: mem.bus.problem}
	seen.bus.found, seen.bus.looked = r.prober.Last(owner)
	return nil
}

// busRefs are the Secrets of a bus; those that are more than one key have none.
func busRefs(spec *v1alpha1.ExternalBus) []secretRef {
	var refs []secretRef
	if ref := spec.CredentialsSecretRef; ref != nil {
		refs = append(refs, secretRef{"spec.bus.external.credentialsSecretRef", ref.Name, ""})
	}
	if tls := spec.TLS; tls != nil && tls.CASecretRef != nil {
		refs = append(refs, secretRef{
			"spec.bus.external.tls.caSecretRef", tls.CASecretRef.Name, tls.CASecretRef.KeyOr(contract.FileCA),
		})
	}
	if tls := spec.TLS; tls != nil && tls.ClientCertificateSecretRef != nil {
		refs = append(refs, secretRef{"spec.bus.external.tls.clientCertificateSecretRef", tls.ClientCertificateSecretRef.Name, ""})
	}
	return refs
}

func (r *Reconciler) loadBus(ctx context.Context, m *v1alpha1.Marketplace, installation string) (reach.Bus, error) {
	spec := m.Spec.Bus.External
	target := reach.Bus{
		URLs: desired.BusURLs(*spec), Prefix: contract.SubjectPrefix(installation), Namespace: m.Namespace,
	}
	for _, ref := range busRefs(spec) {
		secret, err := r.readNamedSecret(ctx, m, ref)
		if err != nil {
			return target, err
		}
		switch {
		case ref.key != "":
			if target.CA, err = ref.valueIn(secret); err == nil {
				err = checkCertificates(ref, target.CA)
			}
		case spec.CredentialsSecretRef != nil && ref.field == "spec.bus.external.credentialsSecretRef":
			err = takeCredentials(&target, ref, secret.Data)
		default:
			target.Certificate, target.Key = secret.Data[contract.FileCertificate], secret.Data[contract.FileKey]
			if _, pairErr := tls.X509KeyPair(target.Certificate, target.Key); pairErr != nil {
				// What it says may quote the key.
				err = ref.invalid("the keys %q and %q must hold a certificate and its private key, in PEM", contract.FileCertificate, contract.FileKey)
			}
		}
		if err != nil {
			return target, err
		}
	}
	return target, nil
}

// takeCredentials takes the one kind of credentials that a Secret holds.
func takeCredentials(target *reach.Bus, ref secretRef, data map[string][]byte) error {
	value := func(key string) string { return strings.TrimSpace(string(data[key])) }
	var kinds []string
	for _, key := range []string{contract.FileBusToken, contract.FileBusUsername, contract.FileBusCreds} {
		if value(key) != "" {
			kinds = append(kinds, key)
		}
	}
	switch {
	case len(kinds) == 0:
		return ref.invalid("it needs the key %q, or %q and %q, or %q",
			contract.FileBusToken, contract.FileBusUsername, contract.FilePassword, contract.FileBusCreds)
	case len(kinds) > 1:
		return ref.invalid("it has the keys %s, each of which would do: keep one", strings.Join(kinds, " and "))
	case kinds[0] == contract.FileBusUsername && value(contract.FilePassword) == "":
		return ref.invalid("it has the key %q and not %q: add it", contract.FileBusUsername, contract.FilePassword)
	}
	switch kinds[0] {
	case contract.FileBusToken:
		target.Token = value(contract.FileBusToken)
	case contract.FileBusUsername:
		target.Username, target.Password = value(contract.FileBusUsername), value(contract.FilePassword)
	default:
		target.Creds = data[contract.FileBusCreds]
	}
	return nil
}

// versionsOf names the present versions of the Secrets: what is read from them
// is the same while this is.
func (r *Reconciler) versionsOf(ctx context.Context, m *v1alpha1.Marketplace, refs ...secretRef) (string, error) {
	var id strings.Builder
	for _, ref := range refs {
		key := types.NamespacedName{Namespace: m.Namespace, Name: ref.name}
		head := &metav1.PartialObjectMetadata{}
		head.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		if err := r.Client.Get(ctx, key, head); client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("look up Secret %s: %w", key, err)
		}
		fmt.Fprintf(&id, "%s %s %s %s;", ref.name, ref.key, head.UID, head.ResourceVersion)
	}
	return id.String(), nil
}

// readNamedSecret reads a Secret that the spec names.
func (r *Reconciler) readNamedSecret(ctx context.Context, m *v1alpha1.Marketplace, ref secretRef) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: m.Namespace, Name: ref.name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		what := ""
		if ref.key != "" {
			what = fmt.Sprintf(" with the key %q", ref.key)
		}
		return nil, stop(v1alpha1.ReasonSecretMissing, "%s: there is no Secret %s in this namespace: make it%s, or name another", ref.field, ref.name, what)
	case err != nil:
		return nil, fmt.Errorf("read Secret %s/%s: %w", m.Namespace, ref.name, err)
	}
	return secret, nil
}

func (r *Reconciler) readKey(ctx context.Context, m *v1alpha1.Marketplace, ref secretRef) ([]byte, error) {
	secret, err := r.readNamedSecret(ctx, m, ref)
	if err != nil {
		return nil, err
	}
	return ref.valueIn(secret)
}

func (ref secretRef) valueIn(secret *corev1.Secret) ([]byte, error) {
	if value := secret.Data[ref.key]; len(value) > 0 {
		return value, nil
	}
	return nil, ref.invalid("it has no key %q, or an empty one: add it, or name the right key in %s.key", ref.key, ref.field)
}

// invalid says that a Secret cannot be used. No argument may hold a value.
func (ref secretRef) invalid(format string, args ...any) error {
	return stop(v1alpha1.ReasonSecretInvalid, "%s: Secret %s: %w", ref.field, ref.name, fmt.Errorf(format, args...))
}

func checkCertificates(ref secretRef, pem []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return ref.invalid("the key %q must hold one or more certificates in PEM", ref.key)
	}
	return nil
}

// problemOf takes apart what someone must do something about and what is tried
// again.
func problemOf(err error) (*problem, error) {
	if p, ok := err.(*problem); ok { //nolint:errorlint // Those made here are not wrapped.
		return p, nil
	}
	return nil, err
}

// portsOf are the ports of a database URL of our own, each once.
func portsOf(raw []byte) []int32 {
	u, err := url.Parse(string(raw))
	if err != nil {
		return nil
	}
	known := map[int32]bool{}
	var ports []int32
	for host := range strings.SplitSeq(u.Host, ",") {
		port := int32(contract.DatabasePort)
		if i := strings.LastIndex(host, ":"); i >= 0 && !strings.HasSuffix(host, "]") {
			n, err := strconv.ParseUint(host[i+1:], 10, 16)
			if err != nil {
				continue
			}
			port = int32(n)
		}
		if !known[port] {
			known[port] = true
			ports = append(ports, port)
		}
	}
	return ports
}
