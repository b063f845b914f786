package tasks

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

// Status is where a task stands.
type Status string

// The statuses of a task. StatusNone is before it was posted.
const (
	StatusNone       Status = ""
	StatusOpen       Status = "open"
	StatusAssigned   Status = "assigned"
	StatusInProgress Status = "in_progress"
	StatusSubmitted  Status = "submitted"
	StatusCompleted  Status = "completed"
	StatusCancelled  Status = "cancelled"
)

// OfferStatus is where an offer stands.
type OfferStatus string

// The statuses of an offer.
const (
	OfferPending  OfferStatus = "pending"
	OfferAccepted OfferStatus = "accepted"
	// OfferSuperseded can't be accepted any more: another was, or the task was
	// cancelled.
	OfferSuperseded OfferStatus = "superseded"
	OfferWithdrawn  OfferStatus = "withdrawn"
)

// role is what a user is to a task.
type role string

const (
	// stranger has nothing to do with it.
	stranger role = "stranger"
	// offerer made an offer that was not accepted.
	offerer role = "offerer"
	client  role = "client"
	tasker  role = "tasker"
)

// action is what a user asks for, named as the refusal of it reads.
type action string

const (
	actionPost     action = "posted"
	actionAccept   action = "assigned"
	actionStart    action = "started"
	actionSubmit   action = "submitted"
	actionComplete action = "completed"
	actionCancel   action = "cancelled"
	actionWithdraw action = "withdrawn"
)

// transition is one row of a lifecycle.
type transition[S ~string] struct {
	from   S
	action action
	by     role
	to     S
}

// lifecycle is a transition table: every row is allowed, and nothing else is.
type lifecycle[S ~string] []transition[S]

// taskLife is the whole life of a task.
var taskLife = lifecycle[Status]{
	{StatusNone, actionPost, client, StatusOpen},
	{StatusOpen, actionAccept, client, StatusAssigned},
	{StatusOpen, actionCancel, client, StatusCancelled},
	{StatusAssigned, actionStart, tasker, StatusInProgress},
	{StatusInProgress, actionSubmit, tasker, StatusSubmitted},
	{StatusSubmitted, actionComplete, client, StatusCompleted},
}

// offerLife is the life of an offer, as far as its two people decide; an offer
// is superseded as a consequence. Its tasker has role offerer here, whatever
// became of the task.
var offerLife = lifecycle[OfferStatus]{
	{OfferPending, actionAccept, client, OfferAccepted},
	{OfferPending, actionWithdraw, offerer, OfferWithdrawn},
}

var errForbidden = fault.New(fault.Forbidden, "forbidden", "This is for another party of the task to do.")

// next returns where an action of a role leads from a status: errForbidden if
// the role may never do it, or a fault illegal_transition if not from there.
// Where it is refused, to is where it would have led, for the metrics.
func (l lifecycle[S]) next(what string, from S, act action, by role) (to S, err error) {
	known := false
	for _, row := range l {
		if row.action != act {
			continue
		}
		to = row.to
		if row.by != by {
			continue
		}
		if row.from == from {
			return row.to, nil
		}
		known = true
	}
	if !known {
		return to, errForbidden
	}
	return to, illegal(what, string(from), act)
}

func illegal(what, from string, act action) error {
	return fault.New(fault.Conflict, "illegal_transition",
		fmt.Sprintf("The %s is %s now, so it can't be %s.", what, from, act))
}

// Expected are the versions of a task that a caller is willing to change; nil
// is for any.
type Expected []int64

var errStale = fault.New(fault.Stale, "version_mismatch",
	"The task has changed since you read it. Read it again, and decide anew.")

func (e Expected) check(version int64) error {
	if e != nil && !slices.Contains(e, version) {
		return errStale
	}
	return nil
}

// roleOf is the caller's to a task; offered says whether the caller ever made
// an offer on it.
func roleOf(t Task, user uuid.UUID, offered bool) role {
	switch {
	case t.ClientID == user:
		return client
	case t.TaskerID != nil && *t.TaskerID == user:
		return tasker
	case offered:
		return offerer
	}
	return stranger
}
