package controllers

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	apiwait "k8s.io/apimachinery/pkg/util/wait"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
)

// What the operator made or waits for is watched, and looked at when it changes.
// These pauses are for what nobody tells.
const (
	// loadPause is how often connections are read where messaging follows them.
	loadPause = 5 * time.Second
	// slowPause is how soon it is found out what someone did about a stalled
	// Marketplace.
	slowPause = 30 * time.Second
	// statusPause is how often connections are read that only the status tells.
	statusPause = time.Minute
	// idlePause is for what should not be missed, and could be.
	idlePause = 10 * time.Minute
	// spread is the share of a pause that is added at random, so that many
	// Marketplaces are not looked at all at once.
	spread = 0.1
)

// pause is how long the operator may leave m alone unless a watch tells of a
// change, or the time has come for the signing keys, for the certificate or for
// another try of the migration.
func (r *Reconciler) pause(m *v1alpha1.Marketplace, seen observation, attempt migration, o outcome) time.Duration {
	p := idlePause
	switch {
	case m.Spec.Messaging.Autoscaling != nil:
		// Without pods, too: a size that was kept for a while comes to its end.
		p = loadPause
	// Whether a pod has failed to become ready is a matter of time.
	case o.stalled != nil, o.waiting != nil, meta.IsStatusConditionTrue(m.Status.Conditions, v1alpha1.ConditionReconciling):
		p = slowPause
	case len(runningPods(seen.pods[contract.ComponentMessaging], contract.ComponentMessaging)) > 0:
		p = statusPause
	}
	if r.longestPause > 0 {
		p = min(p, r.longestPause)
	}
	p = apiwait.Jitter(p, spread)
	// A time that had passed when the look began has been dealt with, or waits
	// for something else: for the database, say, of which a watch or the prober
	// tells.
	for _, due := range []time.Time{seen.keysDue(), seen.certificateDue, attempt.again} {
		if due.After(seen.at) {
			p = min(p, max(due.Sub(r.Now()), firstPause))
		}
	}
	return p
}
