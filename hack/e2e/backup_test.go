//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/services/client"
)

// keeper is a user whose data must be there later.
type keeper struct {
	email, password    string
	user, task         uuid.UUID
	conversation, said uuid.UUID
}

// leaveData signs a user up, who posts a chore, and says something to who offers
// to do it.
func leaveData(t *testing.T, m marketplace) keeper {
	t.Helper()
	k := keeper{email: fmt.Sprintf("%s@example.com", uuid.NewString()), password: rand.Text()}
	session, err := m.client(t).Register(t.Context(), k.email, k.password, "A user who comes back")
	if err != nil {
		t.Fatalf("register a user: %v", err)
	}
	k.user = session.UserID
	task, err := session.PostTask(t.Context(), "Water the plants", "While I am away", client.Money{AmountMinor: 1500, Currency: "EUR"})
	if err != nil {
		t.Fatalf("post a chore: %v", err)
	}
	k.task = task.ID
	other, err := m.client(t).Register(t.Context(), fmt.Sprintf("%s@example.com", uuid.NewString()), rand.Text(), "Who waters plants")
	if err != nil {
		t.Fatalf("register another user: %v", err)
	}
	if _, err := other.MakeOffer(t.Context(), k.task, client.Money{AmountMinor: 1500, Currency: "EUR"}, "I like plants."); err != nil {
		t.Fatalf("make an offer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	socket, err := session.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	k.conversation = k.findConversation(ctx, t, m, session)
	ack, err := socket.Send(ctx, k.conversation, uuid.New(), map[string]string{"text": "They are thirsty."})
	if err != nil {
		t.Fatalf("say something: %v", err)
	}
	k.said = ack.ID
	return k
}

// findConversation waits until the offer has begun the chore's conversation.
func (k keeper) findConversation(ctx context.Context, t *testing.T, m marketplace, session *client.Session) uuid.UUID {
	t.Helper()
	var list struct{ Items []struct{ ID uuid.UUID } }
	if err := poll(ctx, time.Minute, func(ctx context.Context) error {
		err := getJSON(ctx, session, m.urls(t).Messaging+"/v1/conversations?task_id="+k.task.String(), &list)
		if err == nil && len(list.Items) == 0 {
			err = errors.New("there is none")
		}
		return err
	}); err != nil {
		t.Fatalf("find the conversation: %v", err)
	}
	return list.Items[0].ID
}

// getJSON reads what a user may.
func getJSON(ctx context.Context, session *client.Session, url string, into any) error {
	token, err := session.AccessToken(ctx)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// findData signs the user in again, who finds the chore and what was said about
// it, and says more; and others can use what is there now, events between
// services included.
func findData(t *testing.T, m marketplace, k keeper) {
	t.Helper()
	session, err := m.client(t).Login(t.Context(), k.email, k.password)
	if err != nil {
		t.Fatalf("log in again: %v", err)
	}
	if session.UserID != k.user {
		t.Errorf("user = %s, was %s", session.UserID, k.user)
	}
	task, err := session.Task(t.Context(), k.task)
	if err != nil {
		t.Fatalf("find the chore again: %v", err)
	}
	if task.Title != "Water the plants" {
		t.Errorf("the chore is %q", task.Title)
	}
	var history struct {
		Items []struct {
			ID  uuid.UUID
			Seq int64
		}
	}
	if err := getJSON(t.Context(), session, m.urls(t).Messaging+"/v1/conversations/"+k.conversation.String()+"/messages", &history); err != nil {
		t.Fatalf("read the conversation again: %v", err)
	}
	if n := len(history.Items); n == 0 || history.Items[n-1].ID != k.said {
		t.Errorf("the conversation is %+v, and began with %s", history.Items, k.said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	socket, err := session.Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ack, err := socket.Send(ctx, k.conversation, uuid.New(), map[string]string{"text": "Still."})
	if err != nil {
		t.Fatalf("say something again: %v", err)
	}
	if want := int64(len(history.Items)) + 1; ack.Seq != want {
		t.Errorf("what is said now has seq %d, want %d", ack.Seq, want)
	}
	if out, err := walkThrough(t.Context(), m.urls(t)); err != nil {
		t.Fatalf("the walk failed: %v\n%s", err, out)
	}
}

// A Marketplace is backed up as the documentation says, lost with its volume,
// made again, and restored.
func TestBackup(t *testing.T) {
	m := start(t, "backup", small())
	if out, err := walkThrough(t.Context(), m.urls(t)); err != nil {
		t.Fatalf("the walk failed: %v\n%s", err, out)
	}
	k := leaveData(t, m)
	man := openManual(t, "backup.md", m)
	man.follow(t, "backup")

	m.delete(t)
	m.waitEverythingGone(t, []string{"configmaps/kube-root-ca.crt", "serviceaccounts/default"})
	spec := small()
	spec.Database.Installation = man.take(t, "installation")
	m.apply(t, spec)
	m.waitReady(t)
	if _, err := m.client(t).Login(t.Context(), k.email, k.password); err == nil {
		t.Fatal("the data is there before it was restored")
	}
	man.follow(t, "stop")
	man.follow(t, "restore")
	man.follow(t, "resume")
	findData(t, m, k)
}

// The embedded database is given up for one that someone else runs, with TLS
// and a role with few rights, as the documentation says.
func TestMoveToExternalDatabase(t *testing.T) {
	m := start(t, "move", small())
	k := leaveData(t, m)
	server := startExternalPostgres(t, m.namespace)
	man := openManual(t, "backup.md", m)
	man.put(t, "ca.crt", server.ca)
	man.follow(t, "stop")
	man.follow(t, "backup")
	man.follow(t, "load", "URL="+server.urlFromHere(t, "ca.crt"))
	man.follow(t, "switch")
	findData(t, m, k)

	err := cluster.kube.Get(t.Context(), kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-database"}, &appsv1.StatefulSet{})
	if kube.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the embedded server: %v, want it gone", err)
	}
	if err := cluster.kube.Get(t.Context(), kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-database"}, &corev1.PersistentVolumeClaim{}); err != nil {
		t.Errorf("the embedded server's volume: %v, want it kept", err)
	}
}

// externalPostgres is a server that the operator does not run.
type externalPostgres struct {
	namespace string
	url       *url.URL
	ca        []byte
}

// startExternalPostgres starts one, and makes the Secrets my-database and
// my-database-ca for it.
func startExternalPostgres(t *testing.T, namespace string) externalPostgres {
	t.Helper()
	host := "external-postgres." + namespace + ".svc"
	ca, cert, key := certificate(t, host)
	server := externalPostgres{namespace: namespace, ca: ca, url: &url.URL{
		Scheme: "postgres", User: url.UserPassword("shop_admin", rand.Text()), Host: host + ":5432", Path: "/shop",
	}}
	password, _ := server.url.User.Password()
	for name, data := range map[string]map[string][]byte{
		"external-postgres": {"tls.crt": cert, "tls.key": key, "password": []byte(password)},
		"my-database":       {"url": []byte(server.url.String())},
		"my-database-ca":    {"ca.crt": ca},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: data}
		if err := cluster.kube.Create(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	database := &appsv1.StatefulSet{}
	if err := cluster.kube.Get(t.Context(), kube.ObjectKey{Namespace: namespace, Name: "move-database"}, database); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join("testdata", "external-postgres.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	image := database.Spec.Template.Spec.Containers[0].Image
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(strings.ReplaceAll(string(manifest), "IMAGE", image)), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := documents.Decode(object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		object.SetNamespace(namespace)
		if err := cluster.kube.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "the external PostgreSQL is ready", func(ctx context.Context) error {
		pod := &corev1.Pod{}
		if err := cluster.kube.Get(ctx, kube.ObjectKey{Namespace: namespace, Name: "external-postgres"}, pod); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("pod is %s: %v", pod.Status.Phase, pod.Status.ContainerStatuses)
	})
	return server
}

// urlFromHere is the URL for this machine, which does not know the cluster's
// names, with the file of the certificate authority.
func (s externalPostgres) urlFromHere(t *testing.T, ca string) string {
	t.Helper()
	service := &corev1.Service{}
	if err := cluster.kube.Get(t.Context(), kube.ObjectKey{Namespace: s.namespace, Name: "external-postgres"}, service); err != nil {
		t.Fatal(err)
	}
	u := *s.url
	u.RawQuery = url.Values{"hostaddr": {service.Spec.ClusterIP}, "sslmode": {"verify-full"}, "sslrootcert": {ca}}.Encode()
	return u.String()
}

// certificate makes an authority and a server's certificate for a host.
func certificate(t *testing.T, host string) (ca, cert, key []byte) {
	t.Helper()
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, &serverKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", caDER), encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
}
