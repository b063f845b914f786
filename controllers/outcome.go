package controllers

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/marketplane/marketplane/api/v1alpha1"
)

// problem is an error that says what to do about it. An error that is none is
// tried again, with back-off.
type problem struct {
	// stalled: nothing changes until someone acts. Otherwise it comes by itself.
	stalled bool
	reason  string
	err     error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// stop says that someone must act; the message says what to do.
func stop(reason, format string, args ...any) error {
	return &problem{stalled: true, reason: reason, err: fmt.Errorf(format, args...)}
}

// wait says that something must come first, and should by itself.
func wait(reason, format string, args ...any) error {
	return &problem{reason: reason, err: fmt.Errorf(format, args...)}
}

// classify turns what the API server answered to a write into what to do
// about it. A problem stays what it is.
func classify(err error, what string) error {
	var known *problem
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return wait(v1alpha1.ReasonWaiting, "%s: the namespace is being deleted", what)
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return stop(v1alpha1.ReasonRefused, "the API server refuses %s: %w", what, err)
	default:
		return fmt.Errorf("apply %s: %w", what, err)
	}
}

// outcome is what a whole reconciliation came to.
type outcome struct {
	// stalled, waiting and failed hold the first problem of each kind.
	stalled, waiting *problem
	// failed are errors that are tried again.
	failed error
}

// outcomeOf sorts err, which may join several.
func outcomeOf(err error) outcome {
	var o outcome
	for _, e := range flatten(err) {
		var p *problem
		switch {
		case !errors.As(e, &p):
			o.failed = errors.Join(o.failed, e)
		case p.stalled && o.stalled == nil:
			o.stalled = p
		case !p.stalled && o.waiting == nil:
			o.waiting = p
		}
	}
	return o
}

// transient says whether every failed request was a mere conflict: what the
// operator knew was older than the cluster.
func transient(err error) bool {
	for _, e := range flatten(err) {
		if !apierrors.IsConflict(e) && !apierrors.IsAlreadyExists(e) {
			return false
		}
	}
	return err != nil
}

func flatten(err error) []error {
	if err == nil {
		return nil
	}
	// Only the outermost joins are taken apart: what they join is one error each.
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
