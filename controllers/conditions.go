package controllers

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// maxMessage bounds what people are told, in bytes: a condition's message may
// be longer, but an Event's note has at most 1024.
const maxMessage = 1000

// state is one concern's condition.
type state struct {
	ok bool
	// growing says that it is ok, and on its way to another size.
	growing bool
	reason  string
	message string
	// stalled: it stays so until someone acts.
	stalled bool
	// unknown: it could not be looked at, and may be well.
	unknown bool
	// pending: it has not been looked at yet. What was said about this spec
	// before still stands.
	pending bool
}

func ready(format string, args ...any) state {
	return state{ok: true, reason: v1alpha1.ReasonReady, message: fmt.Sprintf(format, args...)}
}

// growing is the state of a service that has what it had, and comes to another
// size.
func growing(available, wanted int32, trouble string) state {
	message := fmt.Sprintf("%d pods are available, on the way to %d", available, wanted)
	if trouble != "" {
		message += "; " + trouble
	}
	return state{ok: true, growing: true, reason: v1alpha1.ReasonScaling, message: message}
}

func notYet(reason, format string, args ...any) state {
	return state{reason: reason, message: fmt.Sprintf(format, args...)}
}

// concern is a condition type and its state.
type concern struct {
	condition string
	state     state
}

// setConditions computes every condition from what was seen. p is nil where
// nothing could be decided.
func setConditions(m *v1alpha1.Marketplace, seen observation, p *plan, o outcome) {
	names := desired.NamesOf(m)
	concerns := []concern{
		{v1alpha1.ConditionKeysCurrent, keysState(m, seen)},
		{v1alpha1.ConditionDatabaseReady, databaseState(m, seen)},
		{v1alpha1.ConditionSchemaCurrent, schemaState(m, seen, p)},
		{v1alpha1.ConditionBusReady, busState(m, names, seen)},
		{v1alpha1.ConditionAuthAvailable, serviceState(m, seen, p, contract.ComponentAuth)},
		{v1alpha1.ConditionTasksAvailable, serviceState(m, seen, p, contract.ComponentTasks)},
		{v1alpha1.ConditionMessagingAvailable, serviceState(m, seen, p, contract.ComponentMessaging)},
	}
	if s := exposed(m, seen); s != nil {
		concerns = append(concerns, concern{v1alpha1.ConditionExposed, *s})
	} else {
		meta.RemoveStatusCondition(&m.Status.Conditions, v1alpha1.ConditionExposed)
	}
	if seen.notifications != nil {
		concerns = append(concerns, concern{v1alpha1.ConditionNotificationsReady, *seen.notifications})
	} else if m.Spec.Messaging.Notifications == nil {
		meta.RemoveStatusCondition(&m.Status.Conditions, v1alpha1.ConditionNotificationsReady)
	}
	for i := range concerns {
		c := &concerns[i]
		if c.state.pending {
			c.state = stateBefore(m, *c)
		}
		status := statusOf(c.state.ok)
		if c.state.unknown {
			status = metav1.ConditionUnknown
		}
		setTo(m, c.condition, status, c.state.reason, c.state.message)
	}
	if conflict := scalingConflict(m, seen); conflict != "" {
		set(m, v1alpha1.ConditionScalingConflict, true, v1alpha1.ReasonAutoscalerConflict, conflict)
	} else {
		meta.RemoveStatusCondition(&m.Status.Conditions, v1alpha1.ConditionScalingConflict)
	}
	summarise(m, concerns, p, o)
}

// stateBefore is what a condition said about this spec before, so that an
// operator that starts anew takes back nothing.
func stateBefore(m *v1alpha1.Marketplace, c concern) state {
	before := meta.FindStatusCondition(m.Status.Conditions, c.condition)
	if before == nil || before.ObservedGeneration != m.Generation {
		return c.state
	}
	return state{
		ok: before.Status == metav1.ConditionTrue, unknown: before.Status == metav1.ConditionUnknown,
		reason: before.Reason, message: before.Message, stalled: needsSomeone(before.Reason),
	}
}

// summarise sets the three conditions of kstatus.
func summarise(m *v1alpha1.Marketplace, concerns []concern, p *plan, o outcome) {
	stalled := o.stalled
	if p != nil && p.migrationState == migrationFailed && stalled == nil {
		stalled = &problem{
			reason: v1alpha1.ReasonMigrationFailed,
			err:    errors.New(schemaMessage(m)),
		}
	}
	for _, c := range concerns {
		if c.state.stalled && stalled == nil {
			stalled = &problem{reason: c.state.reason, err: errors.New(c.condition + ": " + c.state.message)}
		}
	}
	working, growth := firstWorking(concerns, o), firstGrowing(concerns)
	conditions := &m.Status.Conditions
	switch {
	case stalled != nil:
		set(m, v1alpha1.ConditionReady, false, stalled.reason, stalled.Error())
		set(m, v1alpha1.ConditionStalled, true, stalled.reason, stalled.Error())
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	case m.Spec.Paused:
		set(m, v1alpha1.ConditionReady, working == nil, v1alpha1.ReasonPaused, pausedMessage(working))
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	case working != nil:
		set(m, v1alpha1.ConditionReady, false, working.reason, working.message)
		set(m, v1alpha1.ConditionReconciling, true, working.reason, working.message)
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
	case growth != nil:
		set(m, v1alpha1.ConditionReady, true, growth.reason, "every part is available; "+growth.message)
		set(m, v1alpha1.ConditionReconciling, true, growth.reason, growth.message)
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
	default:
		set(m, v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, "every part runs as the spec asks")
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionStalled)
		meta.RemoveStatusCondition(conditions, v1alpha1.ConditionReconciling)
	}
}

// firstWorking is the first thing that keeps the Marketplace from being ready,
// nil where nothing does.
func firstWorking(concerns []concern, o outcome) *state {
	if o.failed != nil && !transient(o.failed) {
		s := notYet(v1alpha1.ReasonApplyFailed, "%s", o.failed.Error())
		return &s
	}
	if o.waiting != nil {
		s := notYet(o.waiting.reason, "%s", o.waiting.Error())
		return &s
	}
	for _, c := range concerns {
		if !c.state.ok {
			s := c.state
			s.message = c.condition + ": " + s.message
			return &s
		}
	}
	return nil
}

// firstGrowing is the first service that is on its way to another size, nil
// where none is.
func firstGrowing(concerns []concern) *state {
	for _, c := range concerns {
		if c.state.growing {
			s := c.state
			s.message = c.condition + ": " + s.message
			return &s
		}
	}
	return nil
}

func pausedMessage(working *state) string {
	const message = "nothing is changed while spec.paused is set"
	if working == nil {
		return message
	}
	return message + "; " + working.message
}

func databaseState(m *v1alpha1.Marketplace, seen observation) state {
	if m.Spec.Database.External != nil {
		return seen.database.state()
	}
	return statefulSetState(seen, desired.NamesOf(m), contract.ComponentDatabase, 1,
		"the embedded PostgreSQL takes connections (one server and one volume, for evaluation)")
}

func busState(m *v1alpha1.Marketplace, names desired.Names, seen observation) state {
	if m.Spec.Bus.External != nil {
		return seen.bus.state()
	}
	replicas := m.Spec.Bus.EmbeddedOrDefault().Replicas
	return statefulSetState(seen, names, contract.ComponentBus, replicas,
		fmt.Sprintf("%d of %d embedded servers are ready", replicas, replicas))
}

func statefulSetState(seen observation, names desired.Names, component string, replicas int32, message string) state {
	s := seen.statefulSet(names, component)
	if s == nil {
		return notYet(v1alpha1.ReasonProgressing, "it is being created")
	}
	rolled := s.Status.ObservedGeneration >= seen.generation(kindStatefulSet, s) &&
		(s.Status.UpdateRevision == "" || s.Status.UpdatedReplicas >= replicas)
	if rolled && s.Status.ReadyReplicas >= replicas {
		return ready("%s", message)
	}
	if trouble := podTrouble(component, s.Spec.Template, seen.pods[component], seen.at); trouble.rank < rankNone {
		return notYet(v1alpha1.ReasonPodFailing, "%s", trouble.text)
	}
	if len(seen.pods[component]) == 0 {
		// A StatefulSet tells in Events alone why it cannot make any.
		return notYet(v1alpha1.ReasonProgressing, "0 of %d servers are ready, no pod is there; if none comes, kubectl describe statefulset %s tells why", replicas, s.Name)
	}
	return notYet(v1alpha1.ReasonProgressing, "%d of %d servers are ready", s.Status.ReadyReplicas, replicas)
}

// longMigration is how long a migration may run before people are told where to
// look: it is never ended, since what takes long may be right.
const longMigration = 10 * time.Minute

func schemaState(m *v1alpha1.Marketplace, seen observation, p *plan) state {
	if p == nil {
		return state{
			reason: v1alpha1.ReasonWaiting, unknown: true,
			message: "it is not known which migration is needed: see the other conditions",
		}
	}
	switch p.migrationState {
	case migrationSucceeded:
		return ready("Job %s has succeeded", p.migration)
	case migrationFailed:
		message := fmt.Sprintf("Job %s failed", p.migration)
		if words := lastWords(podsOfJob(seen, p.migration)); words != "" {
			message += ": " + words
		}
		return notYet(v1alpha1.ReasonMigrationFailed, "%s; %s", message, p.attempt.outlook())
	case migrationRunning:
		if words := lastWords(podsOfJob(seen, p.migration)); words != "" {
			return notYet(v1alpha1.ReasonMigrating, "Job %s runs again after: %s", p.migration, words)
		}
		if trouble := podTrouble(contract.ComponentMigrate, corev1.PodTemplateSpec{}, podsOfJob(seen, p.migration), seen.at); trouble.rank < rankNone {
			return notYet(v1alpha1.ReasonPodFailing, "%s", trouble.text)
		}
		if job := seen.job(p.migration); job != nil && seen.at.Sub(job.CreationTimestamp.Time) > longMigration {
			return notYet(v1alpha1.ReasonMigrating, "Job %s has run since %s: kubectl logs job/%s tells what it does, and the server's pg_stat_activity what it waits for",
				p.migration, date(job.CreationTimestamp.Time), p.migration)
		}
		return notYet(v1alpha1.ReasonMigrating, "Job %s runs", p.migration)
	default:
		return notMigrating(m, seen, p)
	}
}

// notMigrating is the state of the schema where no Job was seen.
func notMigrating(m *v1alpha1.Marketplace, seen observation, p *plan) state {
	_, made := seen.applied[objectKey{kindJob, p.migration}]
	switch {
	case made:
		return notYet(v1alpha1.ReasonMigrating, "Job %s runs", p.migration)
	case m.Spec.Paused:
		return notYet(v1alpha1.ReasonPaused, "the migration is not begun while spec.paused is set")
	case !databaseState(m, seen).ok:
		return notYet(v1alpha1.ReasonWaiting, "the migration waits for the database")
	default:
		return notYet(v1alpha1.ReasonMigrating, "Job %s is to be made", p.migration)
	}
}

func schemaMessage(m *v1alpha1.Marketplace) string {
	c := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.ConditionSchemaCurrent)
	if c == nil {
		return "the migration failed"
	}
	return c.Message
}

func podsOfJob(seen observation, job string) []corev1.Pod {
	var pods []corev1.Pod
	for _, pod := range seen.pods[contract.ComponentMigrate] {
		if owner := metav1.GetControllerOf(&pod); owner != nil && owner.Name == job {
			pods = append(pods, pod)
		}
	}
	return pods
}

func serviceState(m *v1alpha1.Marketplace, seen observation, p *plan, component string) state {
	d := seen.deployment(desired.NamesOf(m), component)
	held := p == nil || p.migrationState != migrationSucceeded
	if d == nil {
		if held {
			return notYet(v1alpha1.ReasonWaiting, "%s waits for the schema", component)
		}
		return notYet(v1alpha1.ReasonProgressing, "it is being created")
	}
	wanted := wantedReplicas(m, seen, p, component, d)
	switch {
	case rolledOut(d, seen.generation(kindDeployment, d), wanted):
		if held {
			return ready("%d of %d pods are available; a change waits for the schema", wanted, wanted)
		}
		return ready("%d of %d pods are available%s", wanted, wanted, notActing(seen.autoscaler(desired.NamesOf(m), component)))
	default:
		trouble := podTrouble(component, d.Spec.Template, seen.pods[component], seen.at)
		if refusal := podsRefused(d); trouble.rank == rankNone && refusal != "" {
			return notYet(v1alpha1.ReasonPodFailing, "%s", refusal)
		}
		// That no node takes a pod is common while the cluster grows, too.
		if seen.scaling(component, d) && trouble.rank >= rankUnschedulable {
			return growing(d.Status.AvailableReplicas, wanted, trouble.text)
		}
		if trouble.rank < rankNone {
			return notYet(v1alpha1.ReasonPodFailing, "%s", trouble.text)
		}
		return notYet(v1alpha1.ReasonProgressing, "%d of %d pods are updated and %d available",
			d.Status.UpdatedReplicas, wanted, d.Status.AvailableReplicas)
	}
}

// rolledOut says whether exactly the wanted pods run, all of the newest
// template, and all available.
func rolledOut(d *appsv1.Deployment, generation int64, wanted int32) bool {
	s := d.Status
	return s.ObservedGeneration >= generation &&
		replicasIn(d) == wanted &&
		s.UpdatedReplicas == wanted && s.Replicas == wanted && s.AvailableReplicas >= wanted
}

// head keeps the beginning of a text, in at most limit bytes.
func head(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len("…")], "") + "…"
}

func set(m *v1alpha1.Marketplace, condition string, ok bool, reason, message string) {
	setTo(m, condition, statusOf(ok), reason, message)
}

func statusOf(ok bool) metav1.ConditionStatus {
	if ok {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// setTo sets a condition at once to what it shall be: on the way over another
// status it would get a new time at every look, and be written each time.
func setTo(m *v1alpha1.Marketplace, condition string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{
		Type: condition, Status: status, Reason: reason, Message: head(message, maxMessage), ObservedGeneration: m.Generation,
	})
}

// count is n as the API carries it.
func count(n int) int32 {
	return int32(min(max(n, 0), math.MaxInt32))
}

// timestamp is t as the API carries it: to the second.
func timestamp(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }
