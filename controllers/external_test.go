package controllers_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsserver "github.com/nats-io/nats-server/v2/server"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/internal/testpg"
)

// putSecret makes or replaces a user's Secret.
func (w *world) putSecret(name string, data map[string]string) {
	w.t.Helper()
	secret := &corev1.Secret{}
	err := w.get(name, secret)
	if client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	secret.Name, secret.Namespace, secret.Data, secret.StringData = name, w.namespace, nil, data
	if apierrors.IsNotFound(err) {
		w.must(w.client.Create(w.ctx, secret))
		return
	}
	w.must(w.client.Update(w.ctx, secret))
}

// secretData reads a Secret's contents.
func (w *world) secretData(name string) map[string]string {
	w.t.Helper()
	secret := &corev1.Secret{}
	w.must(w.get(name, secret))
	data := map[string]string{}
	for key, value := range secret.Data {
		data[key] = string(value)
	}
	return data
}

// seconds is how soon people want to know: a server that was well is looked at
// every 10 seconds, and once more before an outage is believed.
const seconds = 20 * time.Second

// tells complains unless a condition becomes False for this reason, with these
// words, within seconds.
func (w *world) tells(m *v1alpha1.Marketplace, condition, reason string, words ...string) {
	w.t.Helper()
	began := time.Now()
	w.eventually(condition+" "+reason, func() error {
		if err := w.get(m.Name, m); err != nil {
			return err
		}
		if err := checkConditions(m); err != nil {
			return err
		}
		c := meta.FindStatusCondition(m.Status.Conditions, condition)
		if c.Status != metav1.ConditionFalse || c.Reason != reason {
			return fmt.Errorf("%+v", *c)
		}
		for _, want := range words {
			if !strings.Contains(c.Message, want) {
				return fmt.Errorf("message %q lacks %q", c.Message, want)
			}
		}
		return nil
	})
	if took := time.Since(began); took > seconds {
		w.t.Errorf("%s %s was told after %s", condition, reason, took)
	}
}

// keepsFromPeople complains if anything that people read without a right to
// Secrets, the operator's log at its most talkative included, holds one of the
// texts.
func (w *world) keepsFromPeople(m *v1alpha1.Marketplace, secrets ...string) {
	w.t.Helper()
	w.must(w.get(m.Name, m))
	var events eventsv1.EventList
	w.must(w.client.List(w.ctx, &events, client.InNamespace(w.namespace)))
	log := w.logged.String()
	if log == "" {
		w.t.Error("nothing of the operator's log is seen")
	}
	public := []any{m, events, log}
	for name, object := range w.inventory() {
		if !strings.HasPrefix(name, "Secret/") {
			public = append(public, object)
		}
	}
	document, err := json.Marshal(public)
	w.must(err)
	for _, secret := range secrets {
		if strings.Contains(string(document), secret) {
			w.t.Errorf("%q can be read without a right to Secrets", secret)
		}
	}
}

// externalPostgres starts a PostgreSQL with an administrator who is no superuser.
func externalPostgres(t *testing.T, options testpg.Options) *testpg.Server {
	t.Helper()
	pg := testpg.Start(t, options)
	pg.Exec("postgres", "CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'hunter2'", "CREATE DATABASE market OWNER boss")
	return pg
}

// startNATS runs a server until the test ends, and returns its host:port.
func startNATS(t *testing.T, change func(*natsserver.Options)) string {
	t.Helper()
	options := &natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true}
	change(options)
	s, err := natsserver.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends by itself once it listens
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s.Addr().String()
}

func TestExternalDatabase(t *testing.T) {
	pg := externalPostgres(t, testpg.Options{})
	w := newWorld(t)
	w.runEverything(true)
	stop := w.startOperator()
	const spec = "database: {external: {urlSecretRef: {name: postgres}, tls: {mode: Disable}}}"
	m := w.marketplace("shop", spec)

	// Each mistake is told as what it is, and heals as soon as it is mended.
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretMissing,
		"spec.database.external.urlSecretRef", "no Secret postgres", `key "url"`)
	w.awaitStalled(m, v1alpha1.ReasonSecretMissing)
	if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionSchemaCurrent); c.Status != metav1.ConditionUnknown {
		t.Errorf("SchemaCurrent = %+v, though nobody looked", c)
	}
	w.putSecret("postgres", map[string]string{"uri": "postgres://boss:hunter2@db/market"})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretInvalid, "Secret postgres", `no key "url"`)
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter2", "market", "sslmode=verify-full")})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretInvalid, "contradicts database.external.tls.mode: Disable")
	w.putSecret("postgres", map[string]string{"url": "postgres://boss:hunter2@127.0.0.1:1/market"})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnreachable, "127.0.0.1:1: connection refused")
	old := testpg.Fake(t, testpg.Greet("14.11"))
	w.putSecret("postgres", map[string]string{"url": "postgres://boss:hunter2@" + old + "/market"})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnsupported, old, "it is version 14.11, and 15 or newer is needed")
	w.awaitStalled(m, v1alpha1.ReasonUnsupported)
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter3", "market", "")})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonAuthenticationFailed, pg.Host, "password authentication failed")
	w.awaitStalled(m, v1alpha1.ReasonAuthenticationFailed)
	var jobs batchv1.JobList
	w.must(w.client.List(w.ctx, &jobs, client.InNamespace(w.namespace)))
	if len(jobs.Items) > 0 {
		t.Error("a migration was begun on a database that does not let it in")
	}
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter2", "market", "")})
	w.awaitReady(m)

	for name := range w.inventory() {
		if strings.Contains(name, "shop-database") && !strings.HasPrefix(name, "Secret/") {
			t.Errorf("%s exists beside an external database", name)
		}
	}
	role := contract.DatabaseRole(string(m.UID), contract.ComponentTasks)
	data := w.secretData("shop-database-tasks")
	want := map[string]string{"password": data["password"], "url": pg.URL(role, data["password"], "market", "sslmode=disable")}
	if diff := cmp.Diff(want, data); diff != "" || data["password"] == "" {
		t.Errorf("the Secret of tasks (-want +got):\n%s", diff)
	}

	// Nothing is written, and nothing asked, without a change; nor by a new
	// operator.
	w.looked()
	before, requests := w.versions(m), w.requests.Load()
	w.looked()
	if n := w.requests.Load() - requests; n > 0 {
		t.Errorf("%d requests without a change", n)
	}
	stop()
	w.startOperator()
	w.looked()
	if diff := cmp.Diff(before, w.versions(m)); diff != "" {
		t.Errorf("something was written without a change (-before +after):\n%s", diff)
	}

	// Another Marketplace on the same server shares nothing with it.
	other := w.marketplace("club", spec)
	w.awaitReady(other)
	for _, service := range contract.Services() {
		one, two := w.secretData("shop-database-"+service), w.secretData("club-database-"+service)
		a, errA := url.Parse(one["url"])
		b, errB := url.Parse(two["url"])
		if errA != nil || errB != nil || a.User.Username() == b.User.Username() || one["password"] == two["password"] {
			t.Errorf("both Marketplaces' %s has the role or the password of the other", service)
		}
	}

	// The administrator's new password reaches the migration, and rolls nothing.
	generation := w.generation("shop-auth")
	pg.Exec("postgres", "ALTER ROLE boss PASSWORD 'hunter4'")
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonAuthenticationFailed)
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter4", "market", "")})
	w.awaitReady(m)
	if got := w.secretData("shop-database-admin")["url"]; got != pg.URL("boss", "hunter4", "market", "sslmode=disable") {
		t.Error("the migration still has the old password")
	}

	// What runs goes on without the server, and without the user's Secret.
	pg.Stop()
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnreachable)
	w.must(w.client.Delete(w.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "postgres", Namespace: w.namespace}}))
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretMissing)
	replicas := int32(5)
	w.edit(m, func() { m.Spec.Tasks.Replicas = &replicas })
	w.eventually("tasks is scaled all the same", func() error {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-tasks", d))
		if *d.Spec.Replicas != 5 {
			return fmt.Errorf("%d replicas", *d.Spec.Replicas)
		}
		return nil
	})
	if got := w.generation("shop-auth"); got != generation {
		t.Errorf("auth was changed: generation %d, before %d", got, generation)
	}
	w.keepsFromPeople(m, "hunter", data["password"])
}

func (w *world) generation(deployment string) int64 {
	w.t.Helper()
	d := &appsv1.Deployment{}
	w.must(w.get(deployment, d))
	return d.Generation
}

// Certificates are verified with what the spec names, in full.
func TestExternalDatabaseTLS(t *testing.T) {
	authority, other := testpg.NewAuthority(t), testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "127.0.0.1")
	pg := externalPostgres(t, testpg.Options{Certificate: certificate, Key: key})
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	w.putSecret("postgres", map[string]string{"dsn": pg.URL("boss", "hunter2", "market", "")})
	w.putSecret("ca", map[string]string{"root.pem": string(other.PEM)})
	m := w.marketplace("shop", "database: {external: {urlSecretRef: {name: postgres, key: dsn}, tls: {caSecretRef: {name: ca, key: root.pem}}}}")
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnreachable, "signed by an authority that is not trusted")
	w.putSecret("ca", map[string]string{"root.pem": "none"})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretInvalid, "spec.database.external.tls.caSecretRef", "certificates in PEM")
	w.putSecret("ca", map[string]string{"root.pem": string(authority.PEM)})
	w.awaitReady(m)
	data := w.secretData("shop-database-auth")
	if data["ca.crt"] != string(authority.PEM) || !strings.HasSuffix(data["url"], "?sslmode=verify-full&sslrootcert=/etc/marketplane/database/ca.crt") {
		_, public, _ := strings.Cut(data["url"], "@")
		t.Errorf("auth does not verify the server: %s", public)
	}
}

// The roles keep their passwords, and the data its installation, wherever the
// database is. What serves stays where it is until the migration has succeeded,
// pods that start meanwhile included; what is embedded stays until nobody uses
// it.
func TestDatabaseIsMovedThereAndBack(t *testing.T) {
	pg := externalPostgres(t, testpg.Options{})
	w := newWorld(t)
	w.runEverything(false)
	stop := w.startOperator()
	m := w.marketplace("shop", "")
	first := w.migration("")
	w.must(w.finishJob(w.ctx, first, true))
	w.awaitReady(m)
	installation := m.Status.Installation
	embedded := map[string]map[string]string{}
	for _, name := range []string{"admin", "auth", "tasks", "messaging"} {
		embedded[name] = w.secretData("shop-database-" + name)
	}
	server := func() error { return w.get("shop-database", &appsv1.StatefulSet{}) }
	staysAt := func(where map[string]map[string]string) {
		t.Helper()
		for _, service := range contract.Services() {
			if !maps.Equal(where[service], w.secretData("shop-database-"+service)) {
				t.Errorf("%s was led away from the database that it uses", service)
			}
		}
	}

	// A Secret that is not there breaks nothing that runs.
	w.edit(m, func() {
		m.Spec.Database.External = &v1alpha1.ExternalDatabase{
			URLSecretRef: v1alpha1.SecretKeyReference{Name: "postgres"}, TLS: &v1alpha1.DatabaseTLS{Mode: v1alpha1.DatabaseTLSDisable},
		}
	})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonSecretMissing)
	w.looked()
	w.must(server())
	staysAt(embedded)

	// Nor does a host that is not there, a log-in that is refused, or a migration
	// that fails.
	generation := w.generation("shop-auth")
	w.putSecret("postgres", map[string]string{"url": "postgres://boss:hunter2@127.0.0.1:1/market"})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonUnreachable)
	staysAt(embedded)
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter3", "market", "")})
	w.tells(m, v1alpha1.ConditionDatabaseReady, v1alpha1.ReasonAuthenticationFailed)
	staysAt(embedded)
	w.putSecret("postgres", map[string]string{"url": pg.URL("boss", "hunter2", "market", "")})
	second := w.migration(first.Name)
	if got, want := w.secretData("shop-database-admin")["url"], pg.URL("boss", "hunter2", "market", "sslmode=disable"); got != want {
		t.Error("the migration does not go to the database that the spec names")
	}
	w.looked()
	staysAt(embedded)
	w.must(w.finishJob(w.ctx, second, false))
	w.awaitStalled(m, v1alpha1.ReasonMigrationFailed)
	staysAt(embedded)
	w.must(w.client.Delete(w.ctx, second, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	w.eventually("the Job is made anew", func() error {
		again := &batchv1.Job{}
		if err := w.get(second.Name, again); err != nil {
			return err
		}
		if again.UID == second.UID {
			return errors.New("it is the one that failed")
		}
		second = again
		return nil
	})
	// Another operator knows where it stands, too.
	stop()
	w.startOperator()
	w.looked()
	staysAt(embedded)
	w.must(w.get(second.Name, second))
	w.must(server())
	if got := w.generation("shop-auth"); got != generation {
		t.Error("auth was changed before the external database had its schema")
	}

	// A pod from before that still drains uses the embedded one.
	draining := w.runningPod("shop-messaging-old", w.podLabels("messaging"), "messaging", "10.0.0.1")
	draining.Finalizers = []string{"example.com/stays"}
	w.must(w.client.Update(w.ctx, draining))
	w.must(w.client.Delete(w.ctx, draining))
	w.must(w.finishJob(w.ctx, second, true))
	w.awaitReady(m)
	w.looked()
	w.must(server())
	w.edit(draining, func() { draining.Finalizers = nil })
	w.eventually("the embedded server goes", func() error {
		if err := server(); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
	w.must(w.get("shop-database", &corev1.PersistentVolumeClaim{}))
	for name, before := range embedded {
		after := w.secretData("shop-database-" + name)
		if after["password"] != before["password"] || after["url"] == before["url"] {
			t.Errorf("Secret of %s: the password or the server is not what it should be", name)
		}
	}

	// And back, to the volume that was kept.
	away := map[string]map[string]string{}
	for _, service := range contract.Services() {
		away[service] = w.secretData("shop-database-" + service)
	}
	w.edit(m, func() { m.Spec.Database.External = nil })
	third := w.migration(second.Name)
	w.looked()
	staysAt(away)
	w.must(w.finishJob(w.ctx, third, true))
	w.awaitReady(m)
	w.must(server())
	for name, before := range embedded {
		if diff := cmp.Diff(before, w.secretData("shop-database-"+name)); diff != "" {
			t.Errorf("Secret of %s is not as it was", name)
		}
	}
	if m.Status.Installation != installation {
		t.Errorf("installation = %s, before %s", m.Status.Installation, installation)
	}
}

// The way to external servers that the spec does not name any more is open until
// the last pod that uses them has ended.
func TestPolicyLeadsToServersThatAreLeft(t *testing.T) {
	bus := func() (v1alpha1.BusURL, int32) {
		address := startNATS(t, func(*natsserver.Options) {})
		u, err := url.Parse("nats://" + address)
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.ParseInt(u.Port(), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return v1alpha1.BusURL(u.String()), int32(port)
	}
	firstBus, firstPort := bus()
	secondBus, secondPort := bus()
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", fmt.Sprintf("bus: {external: {urls: [%q]}}", firstBus))
	w.awaitReady(m)
	leadsTo := func(want ...int32) {
		t.Helper()
		w.eventually(fmt.Sprintf("the policy leads to %d, and no other server", want), func() error {
			policy := &networkingv1.NetworkPolicy{}
			if err := w.get("shop-services", policy); err != nil {
				return err
			}
			var got []int32
			for _, port := range []int32{firstPort, secondPort} {
				for _, rule := range policy.Spec.Egress {
					if slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port }) {
						got = append(got, port)
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
	leadsTo(firstPort)

	d := &appsv1.Deployment{}
	w.must(w.get("shop-messaging", d))
	draining := w.runningPod("shop-messaging-old", d.Spec.Template.Labels, "messaging", "10.0.0.1")
	draining.Annotations, draining.Finalizers = d.Spec.Template.Annotations, []string{"example.com/stays"}
	w.must(w.client.Update(w.ctx, draining))
	w.edit(m, func() { m.Spec.Bus.External.URLs = []v1alpha1.BusURL{secondBus} })
	w.awaitReady(m)
	leadsTo(firstPort, secondPort)
	w.must(w.client.Delete(w.ctx, draining))
	w.looked()
	leadsTo(firstPort, secondPort)

	w.edit(m, func() { m.Spec.Bus.External = nil })
	w.awaitReady(m)
	leadsTo(firstPort)
	w.edit(draining, func() { draining.Finalizers = nil })
	leadsTo()
}

func (w *world) podLabels(component string) map[string]string {
	w.t.Helper()
	d := &appsv1.Deployment{}
	w.must(w.get("shop-"+component, d))
	labels := maps.Clone(d.Spec.Template.Labels)
	return labels
}

func TestExternalBus(t *testing.T) {
	authority := testpg.NewAuthority(t)
	certificate, key := authority.Issue(t, "127.0.0.1")
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	address := startNATS(t, func(o *natsserver.Options) {
		o.Username, o.Password = "courier", "hunter2"
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	})
	w := newWorld(t)
	w.runEverything(true)
	w.startOperator()
	m := w.marketplace("shop", "{}")
	w.awaitReady(m)
	const bus = v1alpha1.ConditionBusReady
	w.edit(m, func() {
		m.Spec.Bus.External = &v1alpha1.ExternalBus{
			URLs:                 []v1alpha1.BusURL{v1alpha1.BusURL("nats://" + address)},
			CredentialsSecretRef: &v1alpha1.SecretReference{Name: "nats"},
			TLS: &v1alpha1.BusTLS{
				CASecretRef:                &v1alpha1.SecretKeyReference{Name: "nats-ca"},
				ClientCertificateSecretRef: &v1alpha1.SecretReference{Name: "nats-client"},
			},
		}
	})
	w.tells(m, bus, v1alpha1.ReasonSecretMissing, "spec.bus.external.credentialsSecretRef", "no Secret nats ")
	w.putSecret("nats", map[string]string{"username": "courier"})
	w.tells(m, bus, v1alpha1.ReasonSecretInvalid, `has the key "username" and not "password"`)
	w.putSecret("nats", map[string]string{"username": "courier", "password": "hunter2", "token": "hunter2"})
	w.tells(m, bus, v1alpha1.ReasonSecretInvalid, "keys token and username", "keep one")
	w.putSecret("nats", map[string]string{"other": "hunter2"})
	w.tells(m, bus, v1alpha1.ReasonSecretInvalid, `it needs the key "token"`)
	w.putSecret("nats", map[string]string{"username": "courier", "password": "hunter3"})
	w.tells(m, bus, v1alpha1.ReasonSecretMissing, "spec.bus.external.tls.caSecretRef")
	w.putSecret("nats-ca", map[string]string{"ca.crt": string(authority.PEM)})
	w.tells(m, bus, v1alpha1.ReasonSecretMissing, "spec.bus.external.tls.clientCertificateSecretRef")
	w.putSecret("nats-client", map[string]string{"tls.crt": string(certificate), "tls.key": "hunter2"})
	w.tells(m, bus, v1alpha1.ReasonSecretInvalid, "a certificate and its private key")
	w.putSecret("nats-client", map[string]string{"tls.crt": string(certificate), "tls.key": string(key)})
	w.tells(m, bus, v1alpha1.ReasonAuthenticationFailed, address, "it refuses the credentials")
	w.putSecret("nats", map[string]string{"username": "courier", "password": "hunter2"})
	w.awaitReady(m)

	w.eventually("the embedded bus goes", func() error {
		if err := w.get("shop-bus", &appsv1.StatefulSet{}); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
	// New credentials roll nothing.
	generation := w.generation("shop-messaging")
	w.putSecret("nats", map[string]string{"username": "courier", "password": "hunter3"})
	w.tells(m, bus, v1alpha1.ReasonAuthenticationFailed)
	if got := w.generation("shop-messaging"); got != generation {
		t.Errorf("messaging was changed: generation %d, before %d", got, generation)
	}
	w.keepsFromPeople(m, "hunter", strings.Split(string(key), "\n")[1])

	w.edit(m, func() { m.Spec.Bus.External = nil })
	w.awaitReady(m)
	w.must(w.get("shop-bus", &appsv1.StatefulSet{}))
}
