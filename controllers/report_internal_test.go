package controllers

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/load"
	"github.com/marketplane/marketplane/controllers/reach"
)

func TestConnectionsStatusSparesWrites(t *testing.T) {
	then := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	before := newConnectionsStatus(then, load.Total{Live: 1000, Draining: 0, Pending: 5})
	tests := map[string]struct {
		after   time.Duration
		total   load.Total
		written bool
	}{
		"the same, much later":        {time.Hour, load.Total{Live: 1000, Pending: 5}, false},
		"a little less":               {5 * time.Second, load.Total{Live: 950, Pending: 5}, false},
		"a little less, later":        {30 * time.Second, load.Total{Live: 950, Pending: 5}, true},
		"a tenth more":                {5 * time.Second, load.Total{Live: 1100, Pending: 5}, true},
		"the first that drains":       {5 * time.Second, load.Total{Live: 1000, Draining: 1, Pending: 5}, true},
		"a pod that does not tell":    {5 * time.Second, load.Total{Live: 1000, Pending: 5, Missing: 1}, true},
		"all gone":                    {5 * time.Second, load.Total{}, true},
		"the first that is forwarded": {5 * time.Second, load.Total{Live: 1000, Pending: 5, Forwarded: 1}, true},
		"one of few that are pending": {5 * time.Second, load.Total{Live: 1000, Pending: 4}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			now := then.Add(tt.after)
			want := before
			if tt.written {
				want = newConnectionsStatus(now, tt.total)
			}
			if diff := cmp.Diff(want, connectionsStatus(before, now, tt.total)); diff != "" {
				t.Errorf("connections (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutcomeOf(t *testing.T) {
	var (
		services = schema.GroupResource{Resource: "services"}
		taken    = stop(v1alpha1.ReasonNameTaken, "taken")
		later    = wait(v1alpha1.ReasonWaiting, "later")
		conflict = fmt.Errorf("apply: %w", apierrors.NewConflict(services, "a", errors.New("older")))
		failure  = errors.New("no connection")
	)
	tests := map[string]struct {
		err                      error
		stalled, waiting, failed bool
		transient                bool
	}{
		"nothing":           {err: nil},
		"stalled":           {err: taken, stalled: true},
		"all at once":       {err: errors.Join(taken, errors.Join(later, failure), nil), stalled: true, waiting: true, failed: true},
		"a conflict":        {err: conflict, failed: true, transient: true},
		"not only conflict": {err: errors.Join(conflict, failure), failed: true},
		"a refusal": {
			err:     classify(apierrors.NewForbidden(services, "a", errors.New("quota")), "Service a"),
			stalled: true,
		},
		"a namespace that goes": {
			err: classify(&apierrors.StatusError{ErrStatus: metav1.Status{
				Reason:  metav1.StatusReasonForbidden,
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}},
			}}, "Service a"),
			waiting: true,
		},
		"a server that is away": {
			err:    classify(apierrors.NewServerTimeout(services, "patch", 1), "Service a"),
			failed: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := outcomeOf(tt.err)
			if got := o.stalled != nil; got != tt.stalled {
				t.Errorf("stalled = %v", o.stalled)
			}
			if got := o.waiting != nil; got != tt.waiting {
				t.Errorf("waiting = %v", o.waiting)
			}
			if got := o.failed != nil; got != tt.failed {
				t.Errorf("failed = %v", o.failed)
			}
			if got := transient(o.failed); got != tt.transient {
				t.Errorf("transient = %v", got)
			}
		})
	}
}

// A migration whose pod cannot start does not merely run.
func TestSchemaStateTellsWhyThePodDoesNotStart(t *testing.T) {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "shop-migrate-1-x",
			OwnerReferences: []metav1.OwnerReference{{Kind: kindJob, Name: "shop-migrate-1", Controller: new(true)}},
		},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: contract.ComponentMigrate, Image: "marketplane:one",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "not found"}},
		}}},
	}
	seen := observation{pods: map[string][]corev1.Pod{contract.ComponentMigrate: {pod}}}
	got := schemaState(&v1alpha1.Marketplace{}, seen, &plan{migration: "shop-migrate-1", migrationState: migrationRunning})
	if got.ok || got.reason != v1alpha1.ReasonPodFailing || got.message != "pod shop-migrate-1-x: image marketplane:one of container migrate cannot be pulled: not found" {
		t.Errorf("state = %+v", got)
	}
}

func TestSchemaStateTellsWhatTheMigrationWaitsFor(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const name = "shop-migrate-1"
	job := func(age time.Duration) map[objectKey]client.Object {
		return map[objectKey]client.Object{{kindJob, name}: &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
			Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age)), OwnerReferences: []metav1.OwnerReference{{UID: "m", Controller: new(true)}},
		}}}
	}
	well := &external{looked: true, found: reach.Result{Reason: v1alpha1.ReasonReady}}
	tests := map[string]struct {
		paused     bool
		seen       observation
		state      migrationState
		wantReason string
		want       string
	}{
		"the database":       {seen: observation{}, wantReason: v1alpha1.ReasonWaiting, want: "the migration waits for the database"},
		"whoever paused it":  {paused: true, seen: observation{database: well}, wantReason: v1alpha1.ReasonPaused, want: "the migration is not begun while spec.paused is set"},
		"a Job to be made":   {seen: observation{database: well}, wantReason: v1alpha1.ReasonMigrating, want: "Job shop-migrate-1 is to be made"},
		"a Job just made":    {seen: observation{applied: map[objectKey]appliedRecord{{kindJob, name}: {}}}, wantReason: v1alpha1.ReasonMigrating, want: "Job shop-migrate-1 runs"},
		"a Job that runs":    {seen: observation{objects: job(10 * time.Minute)}, state: migrationRunning, wantReason: v1alpha1.ReasonMigrating, want: "Job shop-migrate-1 runs"},
		"a Job that runs on": {seen: observation{objects: job(11 * time.Minute)}, state: migrationRunning, wantReason: v1alpha1.ReasonMigrating, want: "Job shop-migrate-1 has run since 2026-01-01T11:49:00Z: kubectl logs job/shop-migrate-1 tells what it does, and the server's pg_stat_activity what it waits for"},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			m := &v1alpha1.Marketplace{Spec: v1alpha1.MarketplaceSpec{Paused: tt.paused}}
			m.Spec.Database.External = &v1alpha1.ExternalDatabase{}
			tt.seen.at, tt.seen.owner = now, "m"
			got := schemaState(m, tt.seen, &plan{migration: name, migrationState: tt.state})
			if got.ok || got.reason != tt.wantReason || got.message != tt.want {
				t.Errorf("state = %+v", got)
			}
		})
	}
}

// A cache that does not know the last scale-up yet must not undo it.
func TestCurrentSizeWhileTheCacheLags(t *testing.T) {
	m := &v1alpha1.Marketplace{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "m"}}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Name: "shop-messaging", UID: "d", Generation: 4,
			OwnerReferences: []metav1.OwnerReference{{UID: "m", Controller: new(true)}},
		},
		Spec: appsv1.DeploymentSpec{Replicas: new(int32(1))},
	}
	key := objectKey{kindDeployment, "shop-messaging"}
	tests := map[string]struct {
		applied appliedRecord
		want    int32
	}{
		"the cache is up to date":                        {appliedRecord{uid: "d", generation: 4}, 1},
		"the cache lags":                                 {appliedRecord{uid: "d", generation: 5}, 3},
		"another Deployment was applied to":              {appliedRecord{uid: "e", generation: 9}, 1},
		"nothing was applied since the operator started": {appliedRecord{}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			seen := observation{
				owner:   m.UID,
				objects: map[objectKey]client.Object{key: deployment},
				applied: map[objectKey]appliedRecord{key: tt.applied},
			}
			if got := currentSize(m, &memory{size: 3}, seen, 1); got != tt.want {
				t.Errorf("size = %d, want %d", got, tt.want)
			}
		})
	}
}
