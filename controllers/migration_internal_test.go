package controllers

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// jobsOf are Jobs of one Marketplace, by name, that ended as given at a time;
// no time means that they run.
func jobsOf(failed map[string]time.Time, condition batchv1.JobConditionType) observation {
	const owner = types.UID("owner")
	yes := true
	seen := observation{owner: owner, objects: map[objectKey]client.Object{}}
	for name, at := range failed {
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
			Name: name, OwnerReferences: []metav1.OwnerReference{{UID: owner, Controller: &yes}},
		}}
		if !at.IsZero() {
			job.Status.Conditions = []batchv1.JobCondition{{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)}}
		}
		seen.objects[objectKey{kindJob, name}] = job
	}
	return seen
}

// A migration that fails whatever is done is tried eight times more, more and
// more seldom, and then left to someone. An outage uses nothing up.
func TestMigrationRounds(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const name = "shop-migrate-0123456789"
	type made struct {
		Job string
		At  string
	}
	run := func(outage time.Duration) (log []made, last migration) {
		job, failed := name, start
		for now := start; now.Before(start.Add(24 * time.Hour)); now = now.Add(5 * time.Second) {
			last = decideMigration(jobsOf(map[string]time.Time{job: failed}, batchv1.JobFailed), name, now, time.Time{}, now.Sub(start) >= outage)
			if last.state != migrationAbsent {
				continue
			}
			job, failed = fmt.Sprintf("%s-%d", name, last.round), now
			log = append(log, made{job[len(name):], now.Sub(start).String()})
		}
		return log, last
	}
	log, last := run(0)
	want := []made{
		{"-1", "1m0s"},
		{"-2", "3m0s"},
		{"-3", "7m0s"},
		{"-4", "15m0s"},
		{"-5", "31m0s"},
		{"-6", "1h3m0s"},
		{"-7", "2h3m0s"},
		{"-8", "3h3m0s"},
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("rounds (-want +got):\n%s", diff)
	}
	if last.state != migrationFailed || !last.again.IsZero() {
		t.Errorf("at the end: %+v", last)
	}
	log, _ = run(10 * time.Hour)
	if len(log) != 8 || log[0] != (made{"-1", "10h0m0s"}) {
		t.Errorf("rounds after an outage of 10 hours: %v", log)
	}
}

func TestDecideMigration(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const name = "shop-migrate-0123456789"
	running := time.Time{}
	tests := map[string]struct {
		jobs      map[string]time.Time
		condition batchv1.JobConditionType
		volume    time.Time // made; every Job is of now
		wantRound int
		wantState migrationState
	}{
		"none":                        {nil, "", time.Time{}, 0, migrationAbsent},
		"another migration's":         {map[string]time.Time{"shop-migrate-9876543210": now, name + "0": now, name + "-x": now}, batchv1.JobComplete, time.Time{}, 0, migrationAbsent},
		"one that runs":               {map[string]time.Time{name: running}, "", time.Time{}, 0, migrationRunning},
		"one that succeeded":          {map[string]time.Time{name: now}, batchv1.JobComplete, time.Time{}, 0, migrationSucceeded},
		"a later round succeeded":     {map[string]time.Time{name: now, name + "-2": now}, batchv1.JobComplete, time.Time{}, 2, migrationSucceeded},
		"one that failed just now":    {map[string]time.Time{name: now}, batchv1.JobFailed, time.Time{}, 0, migrationFailed},
		"one that failed a while ago": {map[string]time.Time{name: now.Add(-2 * time.Minute)}, batchv1.JobFailed, time.Time{}, 1, migrationAbsent},
		"the tenth round":             {map[string]time.Time{name + "-10": now.Add(-24 * time.Hour)}, batchv1.JobFailed, time.Time{}, 10, migrationFailed},
		"a volume of the same time":   {map[string]time.Time{name: now}, batchv1.JobComplete, now, 0, migrationSucceeded},
		"a volume that is newer":      {map[string]time.Time{name + "-1": now}, batchv1.JobComplete, now.Add(time.Second), 2, migrationAbsent},
		"and a Job that still runs":   {map[string]time.Time{name: running}, "", now.Add(time.Second), 1, migrationAbsent},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			seen := jobsOf(tt.jobs, tt.condition)
			for _, job := range seen.objects {
				job.SetCreationTimestamp(metav1.NewTime(now))
			}
			got := decideMigration(seen, name, now, tt.volume, true)
			if got.round != tt.wantRound || got.state != tt.wantState {
				t.Errorf("round %d, state %d; want %d, %d", got.round, got.state, tt.wantRound, tt.wantState)
			}
		})
	}
}
