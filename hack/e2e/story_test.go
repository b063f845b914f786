//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// A platform engineer applies a Marketplace with an empty spec, users use it,
// it is deleted and made again on the volume that was kept, and at last it is
// deleted for good.
func TestOneMarketplace(t *testing.T) {
	namespace := makeNamespace(t, "story")
	m := marketplace{name: "story", namespace: namespace}
	empty := everythingIn(t, namespace)

	m.apply(t, v1alpha1.MarketplaceSpec{})
	m.waitReady(t)
	checkColumns(t, m)

	out, err := walkThrough(t.Context(), m.urls(t))
	if err != nil {
		t.Fatalf("the walk failed: %v\n%s", err, out)
	}
	t.Logf("the walk:\n%s", out)
	email, password := "kept@example.com", rand.Text()
	user, err := m.client(t).Register(t.Context(), email, password, "A user who comes back")
	if err != nil {
		t.Fatalf("register a user: %v", err)
	}

	m.delete(t)
	m.waitEverythingGone(t, append(slices.Clone(empty), "persistentvolumeclaims/story-database"))

	// A Marketplace of the same name finds the data that was kept.
	m.apply(t, v1alpha1.MarketplaceSpec{})
	m.waitReady(t)
	again, err := m.client(t).Login(t.Context(), email, password)
	if err != nil {
		t.Fatalf("log in after the Marketplace was made again: %v", err)
	}
	if again.UserID != user.UserID {
		t.Errorf("user = %s after the Marketplace was made again, was %s", again.UserID, user.UserID)
	}

	// Nothing is kept of this one.
	m.change(t, func(spec *v1alpha1.MarketplaceSpec) {
		spec.Database.Embedded = &v1alpha1.EmbeddedDatabase{Storage: v1alpha1.StorageSpec{DeletionPolicy: v1alpha1.DeletionDelete}}
	})
	eventually(t, time.Minute, "the change is observed", m.isReady)
	m.delete(t)
	m.waitEverythingGone(t, empty)
}

// delete deletes the Marketplace and waits for that object alone.
func (m marketplace) delete(t *testing.T) {
	t.Helper()
	object, err := m.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.kube.Delete(t.Context(), object); err != nil {
		t.Fatalf("delete Marketplace %s: %v", m.name, err)
	}
	eventually(t, time.Minute, "Marketplace "+m.name+" is gone", func(ctx context.Context) error { return isGone(ctx, object) })
}

// checkColumns looks at what kubectl shows.
func checkColumns(t *testing.T, m marketplace) {
	t.Helper()
	config := rest.CopyConfig(cluster.config)
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	table := &metav1.Table{}
	err = api.Get().Namespace(m.namespace).Resource("marketplaces").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Into(table)
	if err != nil {
		t.Fatalf("get the table of Marketplaces: %v", err)
	}
	if len(table.Rows) != 1 {
		t.Fatalf("the table has %d rows, want 1", len(table.Rows))
	}
	row := map[string]string{}
	for i, column := range table.ColumnDefinitions {
		row[column.Name] = fmt.Sprint(table.Rows[0].Cells[i])
	}
	t.Logf("kubectl shows: %v", row)
	want := map[string]string{"Ready": "True", "Connections": "0", "Replicas": "2"}
	for column, value := range want {
		if row[column] != value {
			t.Errorf("column %s = %q, want %q", column, row[column], value)
		}
	}
}

// waitEverythingGone waits until the namespace holds nothing but want.
func (m marketplace) waitEverythingGone(t *testing.T, want []string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, 2*time.Minute, "nothing is left but what should be", func(context.Context) error {
		if diff := cmp.Diff(want, everythingIn(t, m.namespace)); diff != "" {
			return fmt.Errorf("objects differ (-want +got):\n%s", diff)
		}
		return nil
	})
}

// everythingIn lists all objects of a namespace, of whatever kind, as
// resource/name. Events are left out: they go with time.
func everythingIn(t *testing.T, namespace string) []string {
	t.Helper()
	lists, err := cluster.discovery.ServerPreferredResources()
	if err != nil {
		t.Fatalf("discover the kinds: %v", err)
	}
	lists = discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists)
	var found []string
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range list.APIResources {
			if !kind.Namespaced || kind.Name == "events" {
				continue
			}
			objects, err := cluster.metadata.Resource(group.WithResource(kind.Name)).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("list %s: %v", kind.Name, err)
			}
			for _, o := range objects.Items {
				found = append(found, kind.Name+"/"+o.Name)
			}
		}
	}
	slices.Sort(found)
	return found
}
