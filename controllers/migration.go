package controllers

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// A migration Job tries seven times over some ten minutes, and then gives up.
// What made it fail may pass all the same: a database that was away for longer,
// a lock that someone held. So it is made anew, in rounds that come more and
// more seldom, over some three hours.
const (
	migrationRounds     = 8
	firstRoundPause     = time.Minute
	longestRoundPause   = time.Hour
	migrationDeleteHint = "to try again at once, remove the cause and delete the Job"
)

// migration is the Job that a release needs, and how far it has come.
type migration struct {
	// round is the Job's; 0 is the first.
	round int
	state migrationState
	// again is when a Job that failed is made anew; zero where it is not.
	again time.Time
	// before is the Job of the round before, where this one is about to be made:
	// one that failed, or that is older than the volume.
	before *batchv1.Job
	// outdated says that it is older than the volume.
	outdated bool
}

// decideMigration looks at the Jobs of the migration of this name, whose later
// rounds have numbers behind it. Only where the database can be used is another
// round begun. What a Job did that is older than the embedded database's volume
// was lost with the volume before; volume is zero where there is none.
func decideMigration(seen observation, name string, now, volume time.Time, usable bool) migration {
	current := migration{round: -1}
	var job *batchv1.Job
	for key, object := range seen.objects {
		found, ok := object.(*batchv1.Job)
		if !ok || key.kind != kindJob || seen.job(found.Name) == nil {
			continue
		}
		if round, ok := roundOf(name, found.Name); ok && round > current.round {
			job, current.round = found, round
		}
	}
	if job == nil {
		return migration{state: migrationAbsent}
	}
	if job.CreationTimestamp.Time.Before(volume) {
		return migration{round: current.round + 1, state: migrationAbsent, before: job, outdated: true}
	}
	current.state = stateOfMigration(job)
	if current.state != migrationFailed || current.round >= migrationRounds {
		return current
	}
	current.again = failedAt(job).Add(min(firstRoundPause<<current.round, longestRoundPause))
	if now.Before(current.again) || !usable || job.DeletionTimestamp != nil {
		return current
	}
	return migration{round: current.round + 1, state: migrationAbsent, before: job}
}

// roundOf is the round of a Job of the migration of this name.
func roundOf(name, job string) (int, bool) {
	if job == name {
		return 0, true
	}
	suffix, ok := strings.CutPrefix(job, name+"-")
	if !ok {
		return 0, false
	}
	round, err := strconv.Atoi(suffix)
	return round, err == nil && round > 0
}

func failedAt(job *batchv1.Job) time.Time {
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// outlook says what becomes of a Job that failed.
func (m migration) outlook() string {
	if m.again.IsZero() {
		return "it is not tried again by itself; " + migrationDeleteHint
	}
	return fmt.Sprintf("it is tried again after %s, once the database can be used (%d of %d); %s",
		m.again.UTC().Format(time.RFC3339), m.round+1, migrationRounds, migrationDeleteHint)
}

// againEvent says why a Job is made anew.
func (m migration) againEvent(seen observation, name string) string {
	if m.outdated {
		return fmt.Sprintf("migration: the database's volume is newer than Job %s: the schema is made again as Job %s", m.before.Name, name)
	}
	text := fmt.Sprintf("migration: Job %s failed, and is tried again as Job %s (%d of %d)", m.before.Name, name, m.round, migrationRounds)
	if words := lastWords(podsOfJob(seen, m.before.Name)); words != "" {
		text += "; before, " + words
	}
	return text
}
