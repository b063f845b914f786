package controllers_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// A migration that gave up is made anew, a while later, and told so.
func TestMigrationIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.runEverything(false)
	w.log = logr.FromSlogHandler(slog.DiscardHandler)
	w.startOperator()
	m := w.marketplace("shop", "")
	job := w.migration("")
	w.failedPod(job, "connect: the server is on holiday")
	w.must(w.finishJob(w.ctx, job, false))
	message := w.awaitStalled(m, v1alpha1.ReasonMigrationFailed)
	for _, want := range []string{"on holiday", "it is tried again after ", "(1 of 8)"} {
		if !strings.Contains(message, want) {
			t.Errorf("message %q lacks %q", message, want)
		}
	}
	w.looked()
	w.must(w.get(job.Name, &batchv1.Job{}))

	// Until the next one is there, this one counts the rounds.
	wanted := job.Name + "-1"
	refuse := interceptor(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/jobs/"+wanted) {
			return nil, errors.New("the connection was reset")
		}
		return next.RoundTrip(r)
	})
	w.intercept.Store(&refuse)
	w.ahead.Store(int64(2 * time.Minute))
	w.eventually("it cannot be made", func() error {
		w.must(w.get("shop", m))
		if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionReady); c.Reason != v1alpha1.ReasonApplyFailed {
			return fmt.Errorf("%+v", *c)
		}
		return nil
	})
	w.must(w.get(job.Name, job))
	if job.DeletionTimestamp != nil {
		t.Error("the Job that failed was deleted before the next one was there")
	}
	w.intercept.Store(nil)
	again := w.migration(job.Name)
	if again.Name != wanted {
		t.Errorf("Job %s, want %s", again.Name, wanted)
	}
	w.hasEvent(m, "migration: Job "+job.Name+" failed, and is tried again as Job "+again.Name+" (1 of 8); before, it ended with code 1: connect: the server is on holiday")
	w.must(w.finishJob(w.ctx, again, true))
	w.awaitReady(m)
	w.eventually("the Job that failed is gone", func() error {
		if err := w.get(job.Name, &batchv1.Job{}); !apierrors.IsNotFound(err) {
			return orFound(err)
		}
		return nil
	})
}

// Where the volume of the embedded database was lost, and another one was made,
// what the migration did before is lost, too: it runs again.
func TestMigrationRunsAgainOnANewVolume(t *testing.T) {
	w := newWorld(t)
	w.runEverything(false)
	w.startOperator()
	m := w.marketplace("shop", "")
	first := w.migration("")
	w.must(w.finishJob(w.ctx, first, true))
	w.awaitReady(m)

	w.eventually("a second has passed: times of creation have no more", func() error {
		if now := time.Now().Unix(); now <= first.CreationTimestamp.Unix() {
			return fmt.Errorf("it is still %d", now)
		}
		return nil
	})
	claim := &corev1.PersistentVolumeClaim{}
	w.must(w.get("shop-database", claim))
	lost := claim.UID
	w.edit(claim, func() { claim.Finalizers = nil }) // nobody here takes away that of volumes in use
	w.must(w.client.Delete(w.ctx, claim))
	w.eventually("another volume is made", func() error {
		if err := w.get("shop-database", claim); err != nil {
			return err
		}
		if claim.UID == lost {
			return errors.New("it is the same")
		}
		return nil
	})
	second := w.migration(first.Name)
	w.eventually("it is told that the schema is not there", func() error {
		w.must(w.get("shop", m))
		if c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionSchemaCurrent); c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonMigrating {
			return fmt.Errorf("%+v", *c)
		}
		return checkConditions(m)
	})
	w.hasEvent(m, "migration: the database's volume is newer than Job "+first.Name+": the schema is made again as Job "+second.Name)
	w.must(w.finishJob(w.ctx, second, true))
	w.awaitReady(m)
}
