package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

func TestPreviousImage(t *testing.T) {
	tests := map[string]struct {
		own, named string
		ran        *v1alpha1.ReleaseStatus
		want       string
	}{
		"the own one's neighbour":       {own: "team/mp:0.2.0", want: "team/mp:0.1.0"},
		"a registry with a port":        {own: "registry.example.com:5000/mp", want: "registry.example.com:5000/mp:0.1.0"},
		"a digest":                      {own: "registry.example.com:5000/mp:0.2.0@sha256:abc", want: "registry.example.com:5000/mp:0.1.0"},
		"what it ran from":              {own: "mp:0.2.0", ran: &v1alpha1.ReleaseStatus{Version: "v0.1.0", Image: "mp:dev-1"}, want: "mp:dev-1"},
		"what another release ran from": {own: "mp:0.2.0", ran: &v1alpha1.ReleaseStatus{Version: "v0.0.9", Image: "mp:dev-1"}, want: "mp:0.1.0"},
		"named, whatever it ran from":   {own: "mp:0.2.0", named: "mirror/mp:old", ran: &v1alpha1.ReleaseStatus{Version: "v0.1.0", Image: "mp:dev-1"}, want: "mirror/mp:old"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := &Reconciler{Config: Config{Image: tt.own, PreviousRelease: "v0.1.0", PreviousImage: tt.named}}
			m := &v1alpha1.Marketplace{Status: v1alpha1.MarketplaceStatus{Previous: tt.ran}}
			if got := r.previousImage(m); got != tt.want {
				t.Errorf("image = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDecideRelease(t *testing.T) {
	type facts struct {
		spec   v1alpha1.MarketplaceSpec
		status v1alpha1.MarketplaceStatus
		// live are images of what runs, by the workload's name, and release is
		// what they are marked with.
		live    map[string]string
		release string
	}
	var (
		own      = release{"v0.2.0", "mp:0.2.0"}
		previous = release{"v0.1.0", "mirror/mp:0.1.0"}
		automate = v1alpha1.MarketplaceSpec{UpgradePolicy: v1alpha1.UpgradeAutomatic}
		asks     = func(version string) v1alpha1.MarketplaceSpec { return v1alpha1.MarketplaceSpec{Version: version} }
		told     = func(version, image string) v1alpha1.MarketplaceStatus {
			return v1alpha1.MarketplaceStatus{Version: version, Image: image}
		}
		older = map[string]string{"shop-bus": "mp:dev-1", "shop-auth": "mp:dev-1"}
	)
	tests := map[string]struct {
		facts
		want    releases
		wantErr string
	}{
		"nothing runs":                {facts{}, releases{wanted: own}, ""},
		"nothing runs, the one asked": {facts{spec: asks("v0.1.0")}, releases{wanted: previous}, ""},
		"own, another build":          {facts{status: told("v0.2.0", "mp:dev-1")}, releases{release{"v0.2.0", "mp:dev-1"}, own}, ""},
		"pinned to the one before": {
			facts{status: told("v0.1.0", "mp:dev-1")},
			releases{release{"v0.1.0", "mp:dev-1"}, release{"v0.1.0", "mp:dev-1"}},
			"",
		},
		"automatic": {facts{spec: automate, status: told("v0.1.0", "mp:dev-1")}, releases{release{"v0.1.0", "mp:dev-1"}, own}, ""},
		"asked for": {facts{spec: asks("v0.2.0"), status: told("v0.1.0", "mp:dev-1")}, releases{release{"v0.1.0", "mp:dev-1"}, own}, ""},
		"back":      {facts{spec: asks("v0.1.0"), status: told("v0.2.0", "mp:0.2.0")}, releases{own, previous}, ""},
		"written by the operator of v0.1.0": {
			facts{status: told("dev", ""), live: older},
			releases{release{"v0.1.0", "mp:dev-1"}, release{"v0.1.0", "mp:dev-1"}},
			"",
		},
		"written by the operator of v0.1.0, after a newer one's": {
			facts{status: told("v0.1.0-4-gabcdef", "mp:0.2.0"), live: older},
			releases{release{"v0.1.0", "mp:dev-1"}, release{"v0.1.0", "mp:dev-1"}},
			"",
		},
		"written by the operator of v0.1.0, before its bus was there": {
			facts{status: told("dev", "")}, releases{wanted: own}, "",
		},
		"the status is lost": {
			facts{live: map[string]string{"shop-tasks": "mp:dev-3"}, release: "v0.2.0"},
			releases{release{"v0.2.0", "mp:dev-3"}, own},
			"",
		},
		"the status is lost, auth has an image of its own": {
			facts{
				spec: v1alpha1.MarketplaceSpec{Auth: v1alpha1.AuthSpec{Template: &v1alpha1.PodTemplate{Image: "mine:1"}}},
				live: map[string]string{"shop-auth": "mine:1", "shop-tasks": "mp:dev-1"},
			},
			releases{release{"v0.1.0", "mp:dev-1"}, release{"v0.1.0", "mp:dev-1"}},
			"",
		},
		"unknown is asked for": {
			facts{spec: asks("v0.9.0"), status: told("v0.2.0", "mp:0.2.0")},
			releases{},
			"spec.version: this operator knows v0.2.0 and v0.1.0, not v0.9.0: set spec.version to one that it knows, or install the operator of v0.9.0",
		},
		"the one before, with a field that it lacks": {
			facts{
				spec:   v1alpha1.MarketplaceSpec{Bus: v1alpha1.BusSpec{External: &v1alpha1.ExternalBus{}}},
				status: told("v0.1.0", "mp:dev-1"),
			},
			releases{},
			"spec.bus.external: release v0.1.0 does not have it: remove it, or set spec.version to v0.2.0",
		},
		"the one before, with support": {
			facts{
				spec:   v1alpha1.MarketplaceSpec{Messaging: v1alpha1.MessagingSpec{Support: &v1alpha1.SupportSpec{}}},
				status: told("v0.1.0", "mp:dev-1"),
			},
			releases{},
			"spec.messaging.support: release v0.1.0 does not have it: remove it, or set spec.version to v0.2.0",
		},
		"the one before, with options of Socket.IO": {
			facts{
				spec:   v1alpha1.MarketplaceSpec{Messaging: v1alpha1.MessagingSpec{SocketIO: &v1alpha1.SocketIOSpec{}}},
				status: told("v0.1.0", "mp:dev-1"),
			},
			releases{},
			"spec.messaging.socketIO: release v0.1.0 does not have it: remove it, or set spec.version to v0.2.0",
		},
		"the one before, with notifications": {
			facts{
				spec: v1alpha1.MarketplaceSpec{Messaging: v1alpha1.MessagingSpec{
					Notifications: &v1alpha1.NotificationsSpec{},
				}},
				status: told("v0.1.0", "mp:dev-1"),
			},
			releases{},
			"spec.messaging.notifications: release v0.1.0 does not have it: remove it, or set spec.version to v0.2.0",
		},
		"back to the one before, with a field that it lacks": {
			facts{
				spec: v1alpha1.MarketplaceSpec{
					Version: "v0.1.0", Database: v1alpha1.DatabaseSpec{External: &v1alpha1.ExternalDatabase{}},
				},
				status: told("v0.2.0", "mp:0.2.0"),
			},
			releases{},
			"spec.database.external: release v0.1.0 does not have it",
		},
		"this one, with all fields": {
			facts{spec: v1alpha1.MarketplaceSpec{
				Database: v1alpha1.DatabaseSpec{External: &v1alpha1.ExternalDatabase{}},
				Bus:      v1alpha1.BusSpec{External: &v1alpha1.ExternalBus{}},
			}}, releases{wanted: own}, "",
		},
		"too old is pinned": {
			facts{status: told("v0.0.9", "mp:0.0.9")},
			releases{},
			"status.version: the services are of v0.0.9, and this operator knows v0.2.0 and v0.1.0: set spec.version to v0.1.0, or install the operator of v0.0.9",
		},
		"too new is pinned": {
			facts{status: told("v0.3.0", "mp:0.3.0"), live: older, release: "v0.3.0"},
			releases{},
			"status.version: the services are of v0.3.0, and this operator knows v0.2.0 and v0.1.0: set spec.version to v0.2.0",
		},
		"too old, to the one before": {
			facts{spec: asks("v0.1.0"), status: told("v0.0.9", "mp:0.0.9")}, releases{release{"v0.0.9", "mp:0.0.9"}, previous}, "",
		},
		"too old, a release is skipped": {
			facts{spec: asks("v0.2.0"), status: told("v0.0.9", "mp:0.0.9")},
			releases{},
			"to go to v0.2.0 at once would skip a release: set spec.version to v0.1.0 first",
		},
		"too old, automatic would skip a release": {
			facts{spec: automate, status: told("v0.0.9", "mp:0.0.9")},
			releases{},
			"set spec.version to v0.1.0 first, without upgradePolicy: Automatic",
		},
		"too new, back to this one": {
			facts{spec: asks("v0.2.0"), status: told("v0.3.0", "mp:0.3.0")}, releases{release{"v0.3.0", "mp:0.3.0"}, own}, "",
		},
		"too new, back by two": {
			facts{spec: asks("v0.1.0"), status: told("v0.3.0", "mp:0.3.0")}, releases{}, "set spec.version to v0.2.0 first",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := &v1alpha1.Marketplace{
				ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "m"}, Spec: tt.spec, Status: tt.status,
			}
			seen := observation{owner: m.UID, objects: map[objectKey]client.Object{}}
			for name, image := range tt.live {
				meta := metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{UID: "m", Controller: new(true)}}}
				if tt.release != "" {
					meta.Labels = map[string]string{desired.LabelRelease: tt.release}
				}
				pods := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: image}}}}
				if name == "shop-bus" {
					seen.objects[objectKey{kindStatefulSet, name}] = &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: pods}}
				} else {
					seen.objects[objectKey{kindDeployment, name}] = &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: pods}}
				}
			}
			r := &Reconciler{Config: Config{
				Release: own.version, Image: own.image, PreviousRelease: previous.version, PreviousImage: previous.image,
			}}
			got, err := r.decideRelease(m, seen)
			if tt.wantErr != "" {
				o := outcomeOf(err)
				if o.stalled == nil || o.stalled.reason != v1alpha1.ReasonVersionUnsupported || !strings.Contains(o.stalled.Error(), tt.wantErr) {
					t.Fatalf("error = %v, want one that stalls: %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(releases{}, release{})); diff != "" {
				t.Errorf("releases (-want +got):\n%s", diff)
			}
		})
	}
}
